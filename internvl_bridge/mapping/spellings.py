"""The key spellings in which HF checkpoints are found, each as renames from the portable one (L1).

L1 is what transformers 4.52-4.57, 5.0-5.3 and 5.6+ write; L2 is a raw ``state_dict()``; L3 is what
transformers 5.4-5.5 write.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.plan import Plan, TensorSpec, compose, identity
from internvl_bridge.mapping.planning import Direction, explain_unknown_keys, make_plan, unmatched_keys
from internvl_bridge.mapping.transforms import Rename, Transform


@dataclass(frozen=True, slots=True)
class Spelling:
    """A way to spell HF keys: renames from L1 (their custom side) to this spelling (their HF side)."""

    name: str
    renames: tuple[Rename, ...]


def _spelling(name: str, *pairs: tuple[str, str]) -> Spelling:
    return Spelling(
        name,
        tuple(Rename(KeyPattern(portable), KeyPattern(spelled)) for portable, spelled in pairs),
    )


_HEAD = "language_model.lm_head.weight"
_TEXT, _VISION, _PROJECTOR = "language_model.model.", "vision_tower.", "multi_modal_projector."


def _under(portable: str, spelled: str) -> tuple[str, str]:
    return portable + "{rest}", spelled + "{rest}"


L1 = _spelling(
    "L1",
    (_HEAD, _HEAD),
    _under(_TEXT, _TEXT),
    _under(_VISION, _VISION),
    _under(_PROJECTOR, _PROJECTOR),
)
L2 = _spelling(
    "L2",
    (_HEAD, "lm_head.weight"),
    _under(_TEXT, "model.language_model."),
    _under(_VISION, "model.vision_tower."),
    _under(_PROJECTOR, "model.multi_modal_projector."),
)
L3 = _spelling(
    "L3",
    (_HEAD, _HEAD),
    _under(_TEXT, "model.language_model.model."),
    _under(_VISION, "model.vision_tower."),
    _under(_PROJECTOR, "model.multi_modal_projector."),
)
SPELLINGS = (L1, L2, L3)


def spelled(table: Iterable[Transform], spelling: Spelling) -> tuple[Transform, ...]:
    """The rows of ``table`` with their HF keys in ``spelling`` instead of L1."""
    if spelling is L1:
        return tuple(table)

    def spell(pattern: KeyPattern) -> KeyPattern:
        [template] = (
            rename.hf.format(bindings)
            for rename in spelling.renames
            if (bindings := rename.custom.match(pattern.template)) is not None
        )
        return KeyPattern(template)

    return tuple(transform.spelled(spell) for transform in table)


def respell(specs: Mapping[str, TensorSpec], old: Spelling, new: Spelling) -> Plan:
    """The plan that renames HF tensors from one spelling to another."""
    if old is new:
        return identity(specs)
    portable = make_plan(old.renames, specs, Direction.TO_CUSTOM)
    return compose(make_plan(new.renames, portable.targets, Direction.TO_HF), portable)


def detect_spelling(keys: Iterable[str]) -> Spelling | None:
    """The one spelling that explains all ``keys``, or None if none does."""
    known = list(keys)
    return next((spelling for spelling in (L1, L3, L2) if _explains(spelling, known)), None)


def _explains(spelling: Spelling, keys: list[str]) -> bool:
    patterns = [pattern for rename in spelling.renames for pattern in rename.hf_patterns]
    return all(any(pattern.matches(key) for pattern in patterns) for key in keys)


def spelling_of(keys: Iterable[str]) -> Spelling:
    """The spelling of HF ``keys``. Raises UnknownKeyError, naming the odd ones, if none explains all."""
    known = list(keys)
    spelling = detect_spelling(known)
    if spelling is None:
        unexplained = (unmatched_keys(s.renames, known, Direction.TO_CUSTOM) for s in SPELLINGS)
        raise explain_unknown_keys(min(unexplained, key=len))
    return spelling
