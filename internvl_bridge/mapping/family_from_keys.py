"""Find the family of a model by its tensor keys, without a config.json."""

from collections.abc import Collection, Iterator

from internvl_bridge.errors import OptionError
from internvl_bridge.mapping import families
from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import GPT_OSS, QWEN3_MOE, Family, default_family
from internvl_bridge.mapping.make_plan import unmatched_keys
from internvl_bridge.mapping.routes import Route
from internvl_bridge.mapping.spellings import CUSTOM, LAYOUTS, KeySpelling, layout_of, spelling_of
from internvl_bridge.mapping.tables import FUSED_EXPERTS

_UNKNOWN = TextDims(1, 1, 1, 1, 1, 1, 1, attention_bias=False, mlp_bias=False, experts=None)


def possible_routes(target: KeySpelling, models: Collection[tuple[Family, TextDims]]) -> Iterator[Route]:
    """The routes between the formats that keys of one of ``models`` may take to ``target``."""
    for family, dims in models:
        if target != CUSTOM:
            yield Route(family, dims, CUSTOM, target)
            continue
        for layout in LAYOUTS:
            for experts in family.expert_choices:
                yield Route(family, dims, KeySpelling(layout, experts), CUSTOM)


def guessable_models(target: KeySpelling) -> list[tuple[Family, TextDims]]:
    """The families that keys may be of; HF's do not show which of several families with one class they are of."""
    known = (
        families.FAMILIES
        if target != CUSTOM
        else [f for f in families.FAMILIES if f is default_family(f.hf_model_type)]
    )
    return [(family, _UNKNOWN) for family in known]


def guessed_route(keys: Collection[str], target: KeySpelling) -> Route:
    """The route between the formats that explains most of ``keys``.

    Raises OptionError for keys that several families have and convert differently. Raises UnknownKeyError or
    MixedSpellingError for HF keys that no single layout explains.
    """
    for key in keys:
        check_guessable(key)
    layout = layout_of(keys) if target == CUSTOM else CUSTOM.layout
    possible = possible_routes(target, guessable_models(target))
    routes = [route for route in possible if route.source.layout == layout]
    unexplained = {route: len(unmatched_keys(route.first_table, target.format, keys)) for route in routes}
    nearest = [route for route in routes if unexplained[route] == min(unexplained.values())]
    if {QWEN3_MOE, GPT_OSS} <= {route.family for route in nearest}:
        for key in keys:
            if key.endswith(FUSED_EXPERTS):
                raise ambiguous(key)
    if target == CUSTOM:
        spelling_of(keys, nearest[0].family)
    return nearest[0]


def check_guessable(key: str) -> None:
    """Raise OptionError for a key whose tensor can be split only with the numbers in config.json."""
    if key.endswith(("attention.wqkv.weight", "attention.wqkv.bias")):
        raise OptionError(
            f"{key} is InternLM2's fused projection, which cannot be split without the numbers of heads.",
            "Pass the contents of the model's config.json as config.",
        )


def ambiguous(key: str) -> OptionError:
    """The refusal of a key that several families have, and convert otherwise."""
    return OptionError(
        f"{key} holds experts, but nothing shows whether they are those of Qwen3-MoE or of GPT-OSS.",
        "Pass the contents of the model's config.json as config.",
    )
