"""The key spellings in which HF checkpoints are found, each as renames from the portable one (L1).

L1 is what transformers 4.52-4.57, 5.0-5.3 and 5.6+ write; L2 is a raw ``state_dict()``; L3 is what
transformers 5.4-5.5 write.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.transforms import Rename, Transform


@dataclass(frozen=True, slots=True)
class Spelling:
    """A way to spell HF keys: renames from L1 (their custom side) to this spelling (their HF side)."""

    name: str
    renames: tuple[Transform, ...]


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


def detect_spelling(keys: Iterable[str]) -> Spelling | None:
    """The one spelling that explains all ``keys``, or None if none does."""
    known = list(keys)
    return next((spelling for spelling in (L1, L3, L2) if _explains(spelling, known)), None)


def _explains(spelling: Spelling, keys: list[str]) -> bool:
    patterns = [pattern for rename in spelling.renames for pattern in rename.hf_patterns]
    return all(any(pattern.matches(key) for pattern in patterns) for key in keys)
