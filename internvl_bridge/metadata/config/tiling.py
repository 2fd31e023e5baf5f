"""How an image is cut into tiles, and what a tile becomes, as each format says it."""

from dataclasses import dataclass
from math import isqrt
from typing import Any

from internvl_bridge.errors import CompanionFileError, ConfigError, shown
from internvl_bridge.mapping import value_checks
from internvl_bridge.metadata.config.fields import side_of
from internvl_bridge.metadata.json_files import Config


@dataclass(frozen=True, slots=True)
class Tiling:
    """An image becomes at least ``smallest`` and at most ``largest`` tiles, and a thumbnail if several."""

    smallest: int
    largest: int


ONE_TILE = Tiling(1, 1)
"""HF's processor always cuts images into tiles: into one, where the custom format cuts none."""


def custom_tiling(config: Config) -> Tiling:
    """The tiling that a custom config.json states; absent fields have its class's defaults."""
    if not config.get("dynamic_image_size", False):
        return ONE_TILE
    return Tiling(config.get("min_dynamic_patch", 1), config.get("max_dynamic_patch", 6))


def custom_fields(tiling: Tiling) -> dict[str, Any]:
    """The fields of a custom config.json that state ``tiling``."""
    several = tiling != ONE_TILE
    return {
        "dynamic_image_size": several,
        "use_thumbnail": several,
        "min_dynamic_patch": tiling.smallest,
        "max_dynamic_patch": tiling.largest,
    }


def hf_tiling(processor: Config) -> Tiling | None:
    """The tiling that an HF image processor's config states; absent fields have its class's defaults.

    None for no config at all. ``crop_to_patches`` is not read: InternVL's processor class overrules it with true.
    Raises CompanionFileError for values that are not numbers.
    """
    if not processor:
        return None
    stated = {name: value for name, value in processor.items() if value is not None}
    smallest, largest = stated.get("min_patches", 1), stated.get("max_patches", 12)
    if not value_checks.positive(smallest) or not value_checks.positive(largest) or smallest > largest:
        raise CompanionFileError(
            f"The image processor has min_patches {shown(smallest)} and max_patches {shown(largest)}, by which no "
            f"image can be cut.",
            "Correct them in preprocessor_config.json (in processor_config.json, where transformers 5 saved it).",
        )
    return Tiling(smallest, largest)


def stated_tiling(tiling: Tiling, *, thumbnail: bool) -> dict[str, Any]:
    """The fields at the top of an HF config.json that state ``tiling``.

    transformers reads the image processor's. mlx-vlm and llama.cpp read these, by their names in the custom format.
    """
    return {
        "min_dynamic_patch": tiling.smallest,
        "max_dynamic_patch": tiling.largest,
        "use_thumbnail": thumbnail,
    }


def top_tiling(hf: Config) -> Tiling | None:
    """The tiling that :func:`stated_tiling` stated in an HF config.json; None if nothing did."""
    smallest, largest = hf.get("min_dynamic_patch"), hf.get("max_dynamic_patch")
    return None if smallest is None or largest is None or smallest > largest else Tiling(smallest, largest)


def hf_fields(tiling: Tiling) -> dict[str, Any]:
    """The fields of an HF image processor's config that state ``tiling``."""
    return {
        "crop_to_patches": tiling != ONE_TILE,
        "max_patches": tiling.largest,
        "min_patches": tiling.smallest,
    }


def tile_side(custom: Config) -> int:
    """The side of an image tile, in pixels."""
    return int(custom.get("force_image_size") or side_of(custom["vision_config"].get("image_size", 224)))


def tokens_per_tile(custom: Config) -> int:
    """How many ``<IMG_CONTEXT>`` tokens one image tile becomes."""
    side = tile_side(custom)
    tokens = tokens_of_side(side, custom)
    if not tokens:
        raise ConfigError(
            f"config.json describes image tiles of {side} pixels, which do not become any token.",
            "Use the config.json that the checkpoint was saved with.",
        )
    return tokens


def tokens_of_side(side: int, config: Config) -> int:
    """How many tokens a tile becomes with sides of so many pixels; ``config`` is of either format."""
    patch, ratio = side_of(config["vision_config"].get("patch_size", 14)), config.get("downsample_ratio", 0.5)
    return int((side // patch) ** 2 * ratio**2)


def tile_side_for(tokens: int, custom: Config) -> int:
    """The side of a tile, in pixels, that becomes so many tokens. Raises ConfigError if none does."""
    side = isqrt(tokens) * side_of(custom["vision_config"].get("patch_size", 14))
    size: int = round(side / custom.get("downsample_ratio", 0.5))
    if tokens_per_tile({**custom, "force_image_size": size}) != tokens:
        raise ConfigError(
            f"config.json has image_seq_length {tokens}, which no square tile of its patches has.",
            "Use the config.json that the checkpoint was saved with.",
        )
    return size
