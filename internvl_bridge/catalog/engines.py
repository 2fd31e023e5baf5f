"""The engines that serve InternVL: which format of which language models each takes, and how that is known.

Sources: the engines' own code, run on converted checkpoints or read, in the versions that the rows name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from internvl_bridge.mapping.families import (
    FAMILIES,
    GPT_OSS,
    INTERNLM2,
    LLAMA,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    Family,
)
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.spellings import L1, L2, KeyLayout


@dataclass(frozen=True, slots=True)
class Support:
    """What an engine takes of a format.

    Args:
        families: the language models.
        was_run: whether the engine's own code was run on converted checkpoints; else its source was read.
        remark: what else there is to know, in a sentence; empty if nothing.
    """

    families: tuple[Family, ...]
    was_run: bool
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, in the version that was looked at. ``hf`` and ``custom`` are None if it does not take that format."""

    name: str
    version: str
    hf: Support | None
    custom: Support | None

    def support(self, format_: Format) -> Support | None:
        """What it takes of ``format_``."""
        return self.hf if format_ is Format.HF else self.custom


_DENSE_AND_MOE = (QWEN2, QWEN3, QWEN3_MOE)
_NEEDS_HEAD = "A tied model needs an output head among its tensors (--tied copy)."

ENGINES = (
    Engine(
        "transformers",
        "5.23.0 and 4.57.6",
        hf=Support(FAMILIES, was_run=True),
        custom=Support(FAMILIES, was_run=True, remark="Version 4 only, with upstream's remote code."),
    ),
    Engine(
        "vLLM",
        "0.33.0",
        hf=Support(FAMILIES, was_run=True),
        custom=Support((*_DENSE_AND_MOE, GPT_OSS, LLAMA, INTERNLM2), was_run=True, remark=_NEEDS_HEAD),
    ),
    Engine(
        "LMDeploy",
        "0.18.0",
        hf=Support(FAMILIES, was_run=True, remark="It needs text_config.architectures. TurboMind has no Phi-3."),
        custom=Support(FAMILIES, was_run=False, remark="TurboMind has no Phi-3."),
    ),
    Engine(
        "SGLang",
        "0.5.23",
        hf=Support(FAMILIES, was_run=True, remark="By its transformers backend. No path with InternVL3_5."),
        custom=Support((*_DENSE_AND_MOE, INTERNLM2), was_run=False, remark=_NEEDS_HEAD),
    ),
    Engine(
        "llama.cpp",
        "as in llama-cpp-python 0.3.36",
        hf=Support(
            (*_DENSE_AND_MOE, GPT_OSS, LLAMA, INTERNLM2),
            was_run=True,
            remark="The language model. Its converter takes the vision tower (--mmproj) from the custom format only.",
        ),
        custom=Support(
            (*_DENSE_AND_MOE, GPT_OSS, LLAMA), was_run=True, remark="And the vision tower (--mmproj) of all."
        ),
    ),
    Engine(
        "OpenVINO",
        "optimum-intel 2.2.0",
        hf=None,
        custom=Support(FAMILIES, was_run=False, remark="With transformers up to 4.57.6."),
    ),
    Engine(
        "mlx-vlm",
        "0.7.10",
        hf=Support((QWEN3,), was_run=True, remark="It reads the tiling at the top of config.json."),
        custom=Support((QWEN2, QWEN3), was_run=True),
    ),
)

_SPELLED = (L1, L2)
"""The layouts of HF keys that the engines were given; vLLM does not load others."""


@dataclass(frozen=True, slots=True)
class Served:
    """What of a checkpoint decides which engines take it, and whether they take it as it is meant.

    ``has_head``: an output head is stored. ``names_tower`` and ``names_text``: vision_config and text_config name their
    class. ``stacks_experts``: one tensor holds all of a layer. ``is_quantised``: linear layers are. ``place`` is where
    it lies.
    """

    family: Family
    layout: KeyLayout
    has_head: bool
    names_tower: bool
    names_text: bool
    stacks_experts: bool
    is_quantised: bool
    place: str

    @property
    def engines(self) -> tuple[str, ...]:
        """The names of the engines that take it; none of those that are quantised was tried."""
        if self.is_quantised or not self._is_spelled:
            return ()
        supports = ((engine.name, engine.support(self.layout.format)) for engine in ENGINES)
        names = [name for name, support in supports if support is not None and self.family in support.families]
        return tuple(name for name in names if name not in self._hindered)

    @property
    def _hindered(self) -> set[str]:
        """The engines that something about this very checkpoint stops."""
        if self.layout.format is Format.CUSTOM:
            return set() if self.has_head else {"vLLM", "SGLang"}
        nameless = set() if self.names_text else {"LMDeploy", "llama.cpp"}
        untried = {engine.name for engine in ENGINES} - {"transformers", "vLLM"} if self.stacks_experts else set()
        return nameless | untried

    @property
    def _is_spelled(self) -> bool:
        return self.layout.format is Format.CUSTOM or self.layout in _SPELLED

    @property
    def faults(self) -> Iterator[str]:
        """What engines would do wrong with it, most of it without a word."""
        if not self._is_spelled:
            yield (
                f"vLLM does not load keys spelled {self.layout.name}. 'internvl-bridge repair' makes those that all "
                f"engines read."
            )
        if self.layout.format is Format.CUSTOM and not self.has_head:
            yield (
                "vLLM and SGLang load a custom checkpoint without an output head, and run it with an uninitialised "
                "one. For them, make it from the HF format, with 'to-custom --tied copy'."
            )
        if self.layout is L1 and self.names_tower:
            yield (
                "config.json has vision_config.architectures. With it, llama.cpp's converter makes a file without the "
                "vision tower (--mmproj). 'internvl-bridge repair' leaves the field out."
            )

    @property
    def place_remark(self) -> str | None:
        """What an engine would do because of the path."""
        if self.layout.format is Format.CUSTOM or "InternVL3_5" not in self.place:
            return None
        return (
            "SGLang takes every path with InternVL3_5 in it for a custom checkpoint. To serve an HF one there, give "
            "its directory another name."
        )
