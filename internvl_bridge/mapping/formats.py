"""The two checkpoint formats of InternVL."""

from enum import Enum


class Format(Enum):
    """CUSTOM: that of InternVL's own training code. HF: that of transformers."""

    CUSTOM = "custom"
    HF = "hf"

    @property
    def other(self) -> "Format":
        return Format.HF if self is Format.CUSTOM else Format.CUSTOM
