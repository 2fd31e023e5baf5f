"""How an image is cut into tiles, as each format says it."""

from dataclasses import dataclass
from typing import Any

from internvl_bridge.metadata import kinds
from internvl_bridge.metadata.config_file import Config


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
    """The tiling that an HF image processor's config states, if it does.

    ``crop_to_patches`` is no part of it: InternVL's processor class overrules it with true.
    """
    match processor.get("min_patches"), processor.get("max_patches"):
        case int(smallest), int(largest) if kinds.positive(smallest) and kinds.positive(largest):
            return Tiling(smallest, largest) if smallest <= largest else None
        case _:
            return None


def hf_fields(tiling: Tiling) -> dict[str, Any]:
    """The fields of an HF image processor's config that state ``tiling``."""
    return {
        "crop_to_patches": tiling != ONE_TILE,
        "max_patches": tiling.largest,
        "min_patches": tiling.smallest,
    }
