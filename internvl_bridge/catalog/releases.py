"""The released models: one row each, with the numbers that decide which tensors it has.

Sources: the config.json files on the hub, and third parties' copies of them; where none could be read, the published
config of the language model that the release names. A new release of a known kind is one more row in :data:`RELEASES`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from internvl_bridge.mapping.dimensions import ExpertDims, ModelDims, TextDims, VisionDims
from internvl_bridge.mapping.families import (
    GPT_OSS,
    INTERNLM2,
    INTERNLM3,
    LLAMA,
    PHI3,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    Family,
)
from internvl_bridge.mapping.layer_shapes import Shape
from internvl_bridge.mapping.schema import HEAD, hf_schema

AWQ = "-AWQ"
"""How the names of quantised releases end."""

_SHUFFLED = 4
"""Patches that the pixel shuffle joins, in every release."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A language model that releases are built on.

    ``head_dim`` is that of its family where it is None. ``experts``: how many, and how wide each is.
    """

    name: str
    family: Family
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int | None = None
    experts: tuple[int, int] | None = None

    def dims(self, vocabulary: int) -> TextDims:
        """The numbers of its tensors, with so many embeddings."""
        experts = None if self.experts is None else ExpertDims(*self.experts, step=1, dense_layers=frozenset())
        head_dim = self.head_dim or self.family.head_dim or self.hidden // self.heads
        sizes = (vocabulary, self.hidden, self.intermediate, self.layers, self.heads, self.kv_heads, head_dim)
        return TextDims(*sizes, attention_bias=self.family.attention_bias, mlp_bias=False, experts=experts)


@dataclass(frozen=True, slots=True)
class Release:
    """A released model that converts both ways, or several of the same shapes.

    Args:
        name: its name, as the hub has it under OpenGVLab.
        variants: how the names of others end that have the same tensors; of :data:`AWQ`, the quantised ones.
        language_model: what it is built on.
        tower: its InternViT.
        template: the conversation template that its config.json names.
        vocabulary: how many embeddings it has.
        image_token: the id of ``<IMG_CONTEXT>``.
        remark: what its owner should know, besides what holds for all of its kind; empty if there is nothing.
    """

    name: str
    variants: tuple[str, ...]
    language_model: LanguageModel
    tower: VisionDims
    template: str
    vocabulary: int
    image_token: int
    remark: str = ""

    @property
    def dims(self) -> ModelDims:
        return ModelDims(self.tower, self.language_model.dims(self.vocabulary), _SHUFFLED)

    @property
    def schema(self) -> dict[str, Shape]:
        """Key and shape of every tensor, in HF names (L1)."""
        return hf_schema(self.language_model.family, self.dims, {HEAD})

    @property
    def parameters(self) -> int:
        return sum(map(prod, self.schema.values()))

    @property
    def remarks(self) -> Iterator[str]:
        """All that its owner should know, sentence by sentence."""
        if self.remark:
            yield self.remark
        family = self.language_model.family
        if family.hf_model_type == LLAMA.hf_model_type and family is not LLAMA:
            yield _AS_LLAMA
        if AWQ in self.variants:
            yield _AWQ_IS_REFUSED if family is INTERNLM2 else _AWQ_CONVERTS


@dataclass(frozen=True, slots=True)
class Refused:
    """Released models that are not converted, and why not."""

    names: tuple[str, ...]
    reason: str


_AWQ_CONVERTS = "-AWQ: packed tensors are copied as they are. We have not loaded the output."
_AWQ_IS_REFUSED = "-AWQ is refused, as its packed q, k and v are fused: quantise the converted model."
_MESSAGE = "Its own system message is used only if its conversation.py is there: later code has another one."
_AS_LLAMA = "A Llama in the HF format: to-custom gives its own names back by the sidecar or by --reference."
_MADE_UP = "Tested with made-up checkpoints only."

_300M = VisionDims(1024, 4096, 24, 16, 3, 448, 14, layer_norm=True, qkv_bias=True, qk_norm=False)
_6B = VisionDims(3200, 12800, 45, 25, 3, 448, 14, layer_norm=False, qkv_bias=False, qk_norm=True)

_QWEN2_05B = LanguageModel("Qwen2-0.5B", QWEN2, 896, 4864, 24, 14, 2)
_QWEN25_15B = LanguageModel("Qwen2.5-1.5B", QWEN2, 1536, 8960, 28, 12, 2)
_QWEN25_3B = LanguageModel("Qwen2.5-3B", QWEN2, 2048, 11008, 36, 16, 2)
_QWEN25_7B = LanguageModel("Qwen2.5-7B", QWEN2, 3584, 18944, 28, 28, 4)
_QWEN25_14B = LanguageModel("Qwen2.5-14B", QWEN2, 5120, 13824, 48, 40, 8)
_QWEN25_32B = LanguageModel("Qwen2.5-32B", QWEN2, 5120, 27648, 64, 40, 8)
_QWEN25_72B = LanguageModel("Qwen2.5-72B", QWEN2, 8192, 29568, 80, 64, 8)
_QWEN3_06B = LanguageModel("Qwen3-0.6B", QWEN3, 1024, 3072, 28, 16, 8)
_QWEN3_17B = LanguageModel("Qwen3-1.7B", QWEN3, 2048, 6144, 28, 16, 8)
_QWEN3_4B = LanguageModel("Qwen3-4B", QWEN3, 2560, 9728, 36, 32, 8)
_QWEN3_8B = LanguageModel("Qwen3-8B", QWEN3, 4096, 12288, 36, 32, 8)
_QWEN3_14B = LanguageModel("Qwen3-14B", QWEN3, 5120, 17408, 40, 40, 8)
_QWEN3_32B = LanguageModel("Qwen3-32B", QWEN3, 5120, 25600, 64, 64, 8)
_QWEN3_30B = LanguageModel("Qwen3-30B-A3B", QWEN3_MOE, 2048, 6144, 48, 32, 4, 128, experts=(128, 768))
_QWEN3_235B = LanguageModel("Qwen3-235B-A22B", QWEN3_MOE, 4096, 12288, 94, 64, 4, 128, experts=(128, 1536))
_INTERNLM2_2B = LanguageModel("InternLM2-1.8B", INTERNLM2, 2048, 8192, 24, 16, 8)
_INTERNLM2_7B = LanguageModel("InternLM2-7B", INTERNLM2, 4096, 14336, 32, 32, 8)
_INTERNLM2_20B = LanguageModel("InternLM2-20B", INTERNLM2, 6144, 16384, 48, 48, 8)
_INTERNLM3_8B = LanguageModel("InternLM3-8B", INTERNLM3, 4096, 10240, 48, 32, 2)
_YI_34B = LanguageModel("Nous-Hermes-2-Yi-34B", LLAMA, 7168, 20480, 60, 56, 8)
_LLAMA3_70B = LanguageModel("Llama-3-70B", LLAMA, 8192, 28672, 80, 64, 8)
_PHI3_MINI = LanguageModel("Phi-3-mini-128k", PHI3, 3072, 8192, 32, 32, 32)
_GPT_OSS_20B = LanguageModel("GPT-OSS-20B", GPT_OSS, 2880, 2880, 24, 64, 8, experts=(32, 2880))

_MPO, _V3, _V35 = ("-MPO",), ("-Instruct", "-Pretrained"), ("-Instruct", "-MPO", "-Pretrained")
_I2, _H2, _V25, _P3 = "internlm2-chat", "Hermes-2", "internvl2_5", "phi3-chat"

RELEASES = (
    Release("InternVL-Chat-V1-5", (AWQ,), _INTERNLM2_20B, _6B, _I2, 92553, 92546, _MESSAGE),
    Release("Mini-InternVL-Chat-2B-V1-5", (), _INTERNLM2_2B, _300M, _I2, 92553, 92546, _MESSAGE),
    Release("Mini-InternVL-Chat-4B-V1-5", (), _PHI3_MINI, _300M, _P3, 32020, 32013, _MESSAGE),
    Release("InternVL2-1B", (), _QWEN2_05B, _300M, _H2, 151655, 151648),
    Release("InternVL2-2B", (AWQ,), _INTERNLM2_2B, _300M, _I2, 92553, 92546),
    Release("InternVL2-4B", (), _PHI3_MINI, _300M, _P3, 32020, 32013),
    Release("InternVL2-8B", ("-MPO", AWQ), _INTERNLM2_7B, _300M, _I2, 92553, 92546),
    Release("InternVL2-26B", (AWQ,), _INTERNLM2_20B, _6B, _I2, 92553, 92546),
    Release("InternVL2-40B", (AWQ,), _YI_34B, _6B, _H2, 64009, 64002),
    Release("InternVL2-Llama3-76B", (AWQ,), _LLAMA3_70B, _6B, _I2, 128265, 128258),
    Release("Mini-InternVL2-1B-DA-*", (), _QWEN2_05B, _300M, _H2, 151655, 151648),
    Release("Mini-InternVL2-2B-DA-*", (), _INTERNLM2_2B, _300M, _I2, 92553, 92546),
    Release("Mini-InternVL2-4B-DA-*", (), _PHI3_MINI, _300M, _P3, 32020, 32013),
    Release("InternVL2_5-1B", _MPO, _QWEN2_05B, _300M, _V25, 151674, 151667),
    Release("InternVL2_5-2B", _MPO, _INTERNLM2_2B, _300M, _V25, 92553, 92546),
    Release("InternVL2_5-4B", ("-MPO", AWQ), _QWEN25_3B, _300M, _V25, 151674, 151667),
    Release("InternVL2_5-8B", ("-MPO", AWQ), _INTERNLM2_7B, _300M, _V25, 92553, 92546),
    Release("InternVL2_5-26B", ("-MPO", AWQ), _INTERNLM2_20B, _6B, _V25, 92553, 92546),
    Release("InternVL2_5-38B", ("-MPO", AWQ), _QWEN25_32B, _6B, _V25, 151674, 151667),
    Release("InternVL2_5-78B", ("-MPO", AWQ), _QWEN25_72B, _6B, _V25, 151674, 151667),
    Release("InternVL3-1B", (*_V3, AWQ), _QWEN2_05B, _300M, _V25, 151674, 151667),
    Release("InternVL3-2B", (*_V3, AWQ), _QWEN25_15B, _300M, _V25, 151674, 151667),
    Release("InternVL3-8B", (*_V3, AWQ), _QWEN25_7B, _300M, _V25, 151674, 151667),
    Release("InternVL3-9B", (*_V3, AWQ), _INTERNLM3_8B, _300M, _V25, 128521, 128514, _MADE_UP),
    Release("InternVL3-14B", (*_V3, AWQ), _QWEN25_14B, _300M, _V25, 151674, 151667),
    Release("InternVL3-38B", (*_V3, AWQ), _QWEN25_32B, _6B, _V25, 151674, 151667),
    Release("InternVL3-78B", (*_V3, AWQ), _QWEN25_72B, _6B, _V25, 151674, 151667),
    Release("InternVL3_5-1B", _V35, _QWEN3_06B, _300M, _V25, 151936, 151671),
    Release("InternVL3_5-2B", _V35, _QWEN3_17B, _300M, _V25, 151936, 151671),
    Release("InternVL3_5-4B", _V35, _QWEN3_4B, _300M, _V25, 151936, 151671),
    Release("InternVL3_5-8B", _V35, _QWEN3_8B, _300M, _V25, 151936, 151671),
    Release("InternVL3_5-14B", _V35, _QWEN3_14B, _300M, _V25, 151936, 151671),
    Release("InternVL3_5-38B", _V35, _QWEN3_32B, _6B, _V25, 151936, 151671),
    Release("InternVL3_5-30B-A3B", _V35, _QWEN3_30B, _300M, _V25, 151936, 151671),
    Release("InternVL3_5-241B-A28B", _V35, _QWEN3_235B, _6B, _V25, 151936, 151671),
    Release(
        *("InternVL3_5-GPT-OSS-20B-A4B-Preview", (), _GPT_OSS_20B, _300M, "internvl3_5_gpt_oss", 201088, 200021),
    ),
)

REFUSED = (
    Refused(
        ("InternVL-Chat-V1-1", "InternVL-Chat-V1-2", "InternVL-Chat-V1-2-Plus"),
        "ps_version v1: for the same pixels the HF format has no equivalent.",
    ),
    Refused(("InternVL-Chat-V1-5-int8",), "Quantised with bitsandbytes, the vision tower included."),
    Refused(("InternVL3_5-*-Flash",), "transformers does not have their visual router."),
    Refused(("Mono-InternVL-2B", "InternVL-U"), "Other architectures, without a class in transformers."),
    Refused(
        ("InternVL_2_5_HiCo_R16", "InternVL_2_5_HiCo_R64", "InternVideo2_5_Chat_8B", "V2PE", "HPD-Parsing"),
        "Forks: their code computes something else from the same tensors. --accept fork converts the tensors.",
    ),
    Refused(("InternVL-Chat-ViT-6B-Vicuna-7B", "InternVL-Chat-ViT-6B-Vicuna-13B"), "LLaVA's architecture."),
)


def all_remarks() -> tuple[str, ...]:
    """Every remark on a release once, in the order in which the releases have them."""
    return tuple(dict.fromkeys(remark for release in RELEASES for remark in release.remarks))
