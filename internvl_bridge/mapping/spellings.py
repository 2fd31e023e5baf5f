"""How keys are spelled: where they begin, and how they hold experts.

L1 is what transformers 4.52-4.57, 5.0-5.3 and 5.6+ write; L2 is a raw ``state_dict()``; L3 is what transformers 5.4-5.5
write. If the checkpoint that 5.23 reads has no head, 5.23 creates one. This head gets L2's name among the names of L1.
Experts are fused in what 5.0-5.3 write and in every raw state dict of 5.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from internvl_bridge.errors import MixedSpellingError, first_few
from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import Experts, Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import explain_unknown_keys
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.tables import Table
from internvl_bridge.mapping.transforms import Rename, Transform


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """How keys begin: renames from L1 (their custom side) to this layout of HF keys (their HF side).

    The custom format has one layout, and no rename leads to it: the tables do.
    """

    name: str
    renames: tuple[Rename, ...]
    format: Format = Format.HF

    def explains(self, key: str) -> bool:
        """Whether a key of this layout can be ``key``."""
        return any(rename.hf.matches(key) for rename in self.renames)


@dataclass(frozen=True, slots=True)
class KeySpelling:
    """A way to spell keys: one of HF's, or that of the custom format (:data:`CUSTOM`)."""

    layout: KeyLayout
    experts: Experts = Experts.SPLIT

    @property
    def format(self) -> Format:
        """The format whose keys are spelled so."""
        return self.layout.format

    @property
    def name(self) -> str:
        return self.layout.name if self.experts is Experts.SPLIT else f"{self.layout.name} with fused experts"


def _layout(name: str, *pairs: tuple[str, str]) -> KeyLayout:
    return KeyLayout(
        name,
        tuple(Rename(KeyPattern(l1), KeyPattern(spelled)) for l1, spelled in pairs),
    )


_HEAD = "language_model.lm_head.weight"
_TEXT, _VISION, _PROJECTOR = "language_model.model.{text}", "vision_tower.{rest}", "multi_modal_projector.{rest}"

L1 = _layout("L1", (_HEAD, _HEAD), (_TEXT, _TEXT), (_VISION, _VISION), (_PROJECTOR, _PROJECTOR))
L2 = _layout(
    "L2",
    (_HEAD, "lm_head.weight"),
    (_TEXT, "model.language_model.{text}"),
    (_VISION, "model.vision_tower.{rest}"),
    (_PROJECTOR, "model.multi_modal_projector.{rest}"),
)
L3 = _layout(
    "L3",
    (_HEAD, _HEAD),
    (_TEXT, "model.language_model.model.{text}"),
    (_VISION, "model.vision_tower.{rest}"),
    (_PROJECTOR, "model.multi_modal_projector.{rest}"),
)
L1_BARE_HEAD = _layout(
    "L1, bare head", (_HEAD, "lm_head.weight"), (_TEXT, _TEXT), (_VISION, _VISION), (_PROJECTOR, _PROJECTOR)
)
LAYOUTS = (L1, L2, L3, L1_BARE_HEAD)
"""Those of HF keys."""
_CHOICES = {"l1": L1, "l2": L2}
"""Those that an output can have; the others are only read."""

CUSTOM = KeySpelling(KeyLayout("custom", (), Format.CUSTOM))
"""The one spelling of the custom format."""

MOST_COMPATIBLE = KeySpelling(L1)
"""What every transformers from 4.52 on reads."""


def chosen_spelling(wanted: Format, layout: str, experts: str) -> KeySpelling:
    """The spelling of an output in the format ``wanted``; "l1" or "l2", and "split" or "fused" say which of HF's."""
    return CUSTOM if wanted is Format.CUSTOM else KeySpelling(_CHOICES[layout], Experts(experts))


def spelled_table(family: Family, dims: TextDims, spelling: KeySpelling) -> Table:
    """All rows of ``family``, with HF keys in ``spelling``."""
    return spelled(family.table(dims, spelling.experts), spelling.layout)


def spelled(table: Iterable[Transform], layout: KeyLayout) -> Table:
    """The rows of ``table`` with their HF keys in ``layout`` instead of L1."""
    if layout is L1:
        return tuple(table)

    def spell(pattern: KeyPattern) -> KeyPattern:
        [template] = (
            rename.hf.format(bindings)
            for rename in layout.renames
            if (bindings := rename.custom.match(pattern.template)) is not None
        )
        return KeyPattern(template)

    return tuple(transform.spelled(spell) for transform in table)


def respelled(key: str, source: KeyLayout, target: KeyLayout) -> str:
    """The HF ``key`` of the layout ``source``, as ``target`` has it."""
    l1 = next(rename.custom.format(found) for rename in source.renames if (found := rename.hf.match(key)) is not None)
    return next(rename.hf.format(found) for rename in target.renames if (found := rename.custom.match(l1)) is not None)


def spelling_in(format_: Format, keys: Collection[str], family: Family) -> KeySpelling:
    """The spelling of ``keys``, which are of the given format. Raises as :func:`spelling_of`."""
    return CUSTOM if format_ is Format.CUSTOM else spelling_of(keys, family)


def spelling_of(keys: Collection[str], family: Family) -> KeySpelling:
    """The spelling of the HF ``keys`` of a model of ``family``.

    Raises UnknownKeyError for keys that no layout explains. Raises MixedSpellingError, naming the fewer ones, if each
    key is explained, but not all by one spelling.
    """
    layout = layout_of(keys)
    found = {experts: _of_experts(keys, family, KeySpelling(layout, experts)) for experts in Experts}
    if all(found.values()):
        raise _mixed({f"{experts.value} experts": those for experts, those in found.items()})
    return KeySpelling(layout, Experts.FUSED if found[Experts.FUSED] else Experts.SPLIT)


def layout_of(keys: Collection[str]) -> KeyLayout:
    """The layout of HF ``keys``, L1 if several explain them all. Raises as :func:`spelling_of`."""
    layout = next((layout for layout in LAYOUTS if all(map(layout.explains, keys))), None)
    if layout is not None:
        return layout
    if unknown := [key for key in keys if not any(layout.explains(key) for layout in LAYOUTS)]:
        raise explain_unknown_keys(unknown)
    explained = {layout.name: [key for key in keys if layout.explains(key)] for layout in LAYOUTS}
    most = max(explained, key=lambda name: len(explained[name]))
    odd = sorted({*keys} - {*explained[most]})
    name = max((name for name in explained if name != most), key=lambda name: len({*explained[name]} & {*odd}))
    raise _mixed({name: odd, most: explained[most]})


def _of_experts(keys: Iterable[str], family: Family, spelling: KeySpelling) -> list[str]:
    """Those of ``keys`` that hold experts as ``spelling`` has them."""
    rows = spelled(family.expert_rows(spelling.experts, None), spelling.layout)
    patterns = [pattern for row in rows for pattern in row.hf_patterns]
    return [key for key in keys if any(pattern.matches(key) for pattern in patterns)]


def _mixed(spellings: Mapping[str, Sequence[str]]) -> MixedSpellingError:
    (fewer, odd), (more, most) = sorted(spellings.items(), key=lambda item: len(item[1]))
    return MixedSpellingError(
        f"The checkpoint mixes spellings: {first_few(odd)} as {fewer}, but {first_few(most)} as {more}.",
        "It was merged from two saves, or renamed half-way: save it again, or rename or remove the odd tensors.",
    )
