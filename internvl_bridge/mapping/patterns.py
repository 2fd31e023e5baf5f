"""Key patterns: partial isomorphisms between tensor keys and the bindings of their placeholders."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from internvl_bridge.mapping.packing import LINEAR

_NUMBER = r"0|[1-9][0-9]{0,8}"

# Closed: a placeholder without a vocabulary here is an error when the pattern is built.
_VOCABULARY = {
    "layer": _NUMBER,
    "expert": _NUMBER,
    "param": "weight|bias",
    "linear": "|".join(map(re.escape, LINEAR)),
    "qk": "q|k",
    "fc": "fc1|fc2",
    "qkv": "q|k|v",
    "qkvo": "q|k|v|o",
    "mlp": "gate|up|down",
    "experts": "gate_up|down",
    "mx": "blocks|scales|bias",
    "norm": "input_layernorm|post_attention_layernorm",
    "rest": ".+",
    "text": r"(?!model\.).+",
}
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")

Bindings = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A tensor key with placeholders, for instance ``vision_model.encoder.layers.{layer}.ls1``.

    ``match`` and ``format`` are inverses: a key that matches is restored exactly from its bindings.
    Numbers have no leading zeros; every other placeholder has a closed vocabulary.
    """

    template: str

    def __post_init__(self) -> None:
        names = _PLACEHOLDER.findall(self.template)
        if len({*names}) != len(names) or not _VOCABULARY.keys() >= {*names}:
            raise ValueError(f"{self.template} has a placeholder twice, or one without a vocabulary")

    @property
    def segments(self) -> int | None:
        """How many parts between dots its keys have; None if that varies."""
        varies = self.template.endswith(("{rest}", "{text}", "{linear}"))
        return None if varies else self.template.count(".") + 1

    def match(self, key: str) -> dict[str, str] | None:
        """The bindings that make this pattern spell ``key``, or None if it cannot."""
        found = _compiled(self.template).fullmatch(key)
        return None if found is None else found.groupdict()

    def matches(self, key: str) -> bool:
        """Whether this pattern can spell ``key``."""
        return _compiled(self.template).fullmatch(key) is not None

    def format(self, bindings: Bindings) -> str:
        """The key that this pattern spells under ``bindings``."""
        return self.template.format_map(bindings)


@lru_cache(maxsize=1024)
def _compiled(template: str) -> re.Pattern[str]:
    """Compiled only when a key is matched: a model needs few of the patterns of all families."""
    pieces = _PLACEHOLDER.split(template)
    return re.compile(
        "".join(
            f"(?P<{piece}>{_VOCABULARY[piece]})" if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
    )
