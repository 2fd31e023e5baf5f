"""What the tests of this room share: the ways to spell keys, and a twin's tensors in each of them."""

import pytest
from mapping_enumerator import HEAD, LANGUAGES, Twin

from internvl_bridge.mapping.families import FAMILIES, Experts, Family
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.routes import Route
from internvl_bridge.mapping.spellings import CUSTOM, L1, L1_BARE_HEAD, LAYOUTS, KeySpelling

Specs = dict[str, TensorSpec]

SPELLINGS = tuple(KeySpelling(layout, experts) for layout in LAYOUTS for experts in Experts)
ALL_KEYS: tuple[KeySpelling, ...] = (CUSTOM, *SPELLINGS)

every_language = pytest.mark.parametrize("language", LANGUAGES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
every_spelling = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.name)


def family_of(twin: Twin) -> Family:
    [family] = [family for family in FAMILIES if family.name == twin.family]
    return family


def specs_as(twin: Twin, keys: KeySpelling) -> Specs:
    """The tensors that the enumerator lists for these keys."""
    if keys == CUSTOM:
        return dict(twin.custom)
    return twin.spelled(keys.layout.name, fused=keys.experts is Experts.FUSED)


def route_of(twin: Twin, source: KeySpelling, target: KeySpelling) -> Route:
    return Route(family_of(twin), twin.dims.text, source, target)


def recognised(twin: Twin, spelling: KeySpelling) -> KeySpelling:
    """What a twin's keys in ``spelling`` tell: only a head can be bare, and only experts can be fused."""
    return KeySpelling(
        L1 if spelling.layout is L1_BARE_HEAD and HEAD not in twin.hf else spelling.layout,
        spelling.experts if twin.stacked else Experts.SPLIT,
    )
