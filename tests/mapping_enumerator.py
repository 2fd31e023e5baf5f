"""Every tensor of every InternVL model, custom name beside HF name, written from the format description.

Independent of the package's tables and of its schema: only its data classes are used. So a slip in a
table disagrees with this list instead of agreeing with itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from internvl_bridge.mapping.dimensions import ExpertDims, ModelDims, TextDims, VisionDims
from internvl_bridge.mapping.plan import TensorSpec

Shape = tuple[int, ...]
HEAD = "language_model.lm_head.weight"
LAYOUTS = ("L1", "L2", "L3", "L1, bare head")


def laid_out(key: str, layout: str) -> str:
    """The HF ``key``, which is L1's, as ``layout`` has it."""
    if key == HEAD:
        return "lm_head.weight" if layout in ("L2", "L1, bare head") else key
    if layout in ("L1", "L1, bare head"):
        return key
    if layout == "L2" and key.startswith("language_model.model."):
        return "model.language_model." + key.removeprefix("language_model.model.")
    return f"model.{key}"


@dataclass(frozen=True, slots=True)
class Twin:
    """One model in both formats; HF keys in the on-disk spelling (L1) with one tensor per expert.

    ``stacked`` are the HF tensors, in L1, that hold all experts of a layer, and ``split`` the keys of those that
    they replace.
    """

    family: str
    dims: ModelDims
    custom: dict[str, TensorSpec] = field(default_factory=dict)
    hf: dict[str, TensorSpec] = field(default_factory=dict)
    stacked: dict[str, TensorSpec] = field(default_factory=dict)
    split: set[str] = field(default_factory=set)

    def spelled(self, layout: str, *, fused: bool) -> dict[str, TensorSpec]:
        """The HF tensors in one of the ways in which they are found."""
        specs = self.hf
        if fused:
            specs = {key: spec for key, spec in specs.items() if key not in self.split} | self.stacked
        return {laid_out(key, layout): spec for key, spec in specs.items()}

    def tensor(self, custom: str, hf: str, *shape: int, dtype: str = "BF16") -> None:
        self.custom[custom] = self.hf[hf] = TensorSpec(dtype, shape)

    def same(self, key: str, *shape: int, dtype: str = "BF16") -> None:
        self.tensor(key, key, *shape, dtype=dtype)

    def linear(self, custom: str, hf: str, rows: int, columns: int, *, bias: bool) -> None:
        self.tensor(f"{custom}.weight", f"{hf}.weight", rows, columns)
        if bias:
            self.tensor(f"{custom}.bias", f"{hf}.bias", rows)

    def norm(self, custom: str, hf: str, size: int, *, bias: bool = False) -> None:
        self.tensor(f"{custom}.weight", f"{hf}.weight", size)
        if bias:
            self.tensor(f"{custom}.bias", f"{hf}.bias", size)

    def fused(self, custom: str, hf: str, rows: dict[str, int], columns: int, *, bias: bool) -> None:
        """One custom linear that is q_proj, k_proj and v_proj under ``hf``."""
        total = sum(rows.values())
        self.custom[f"{custom}.weight"] = TensorSpec("BF16", (total, columns))
        for role, count in rows.items():
            self.hf[f"{hf}.{role}_proj.weight"] = TensorSpec("BF16", (count, columns))
        if bias:
            self.custom[f"{custom}.bias"] = TensorSpec("BF16", (total,))
            for role, count in rows.items():
                self.hf[f"{hf}.{role}_proj.bias"] = TensorSpec("BF16", (count,))


def add_vision_and_projector(twin: Twin) -> None:
    tower = twin.dims.vision
    width, patch = tower.hidden, tower.patch_size
    custom, hf = "vision_model.embeddings", "vision_tower.embeddings"
    twin.tensor(f"{custom}.class_embedding", f"{hf}.cls_token", 1, 1, width)
    patches = (tower.image_size // patch) ** 2
    twin.tensor(f"{custom}.position_embedding", f"{hf}.position_embeddings", 1, patches + 1, width)
    embedding, projection = f"{custom}.patch_embedding", f"{hf}.patch_embeddings.projection"
    twin.tensor(f"{embedding}.weight", f"{projection}.weight", width, tower.channels, patch, patch)
    twin.tensor(f"{embedding}.bias", f"{projection}.bias", width)
    for layer in range(tower.layers):
        custom, hf = f"vision_model.encoder.layers.{layer}", f"vision_tower.encoder.layer.{layer}"
        twin.norm(f"{custom}.norm1", f"{hf}.layernorm_before", width, bias=tower.layer_norm)
        twin.norm(f"{custom}.norm2", f"{hf}.layernorm_after", width, bias=tower.layer_norm)
        thirds = dict.fromkeys("qkv", width)
        twin.fused(f"{custom}.attn.qkv", f"{hf}.attention", thirds, width, bias=tower.qkv_bias)
        if tower.qk_norm:
            twin.norm(f"{custom}.attn.q_norm", f"{hf}.attention.q_norm", width)
            twin.norm(f"{custom}.attn.k_norm", f"{hf}.attention.k_norm", width)
        twin.linear(f"{custom}.attn.proj", f"{hf}.attention.projection_layer", width, width, bias=True)
        twin.linear(f"{custom}.mlp.fc1", f"{hf}.mlp.fc1", tower.intermediate, width, bias=True)
        twin.linear(f"{custom}.mlp.fc2", f"{hf}.mlp.fc2", width, tower.intermediate, bias=True)
        twin.tensor(f"{custom}.ls1", f"{hf}.lambda_1", width)
        twin.tensor(f"{custom}.ls2", f"{hf}.lambda_2", width)
    shuffled, hidden = width * twin.dims.shuffled, twin.dims.text.hidden
    twin.norm("mlp1.0", "multi_modal_projector.layer_norm", shuffled, bias=True)
    twin.linear("mlp1.1", "multi_modal_projector.linear_1", hidden, shuffled, bias=True)
    twin.linear("mlp1.3", "multi_modal_projector.linear_2", hidden, hidden, bias=True)


def add_frame(twin: Twin) -> None:
    """What all language models with HF's names share."""
    text = twin.dims.text
    twin.same("language_model.model.embed_tokens.weight", text.vocab, text.hidden)
    twin.same("language_model.model.norm.weight", text.hidden)
    twin.same(HEAD, text.vocab, text.hidden)
    for layer in range(text.layers):
        twin.same(f"language_model.model.layers.{layer}.input_layernorm.weight", text.hidden)
        twin.same(f"language_model.model.layers.{layer}.post_attention_layernorm.weight", text.hidden)


def add_attention(twin: Twin, *, qkv_bias: bool, output_bias: bool, qk_norm: bool = False) -> None:
    text = twin.dims.text
    queries, keys = text.heads * text.head_dim, text.kv_heads * text.head_dim
    for layer in range(text.layers):
        name = f"language_model.model.layers.{layer}.self_attn"
        for role, rows in (("q", queries), ("k", keys), ("v", keys)):
            twin.linear(f"{name}.{role}_proj", f"{name}.{role}_proj", rows, text.hidden, bias=qkv_bias)
        twin.linear(f"{name}.o_proj", f"{name}.o_proj", text.hidden, queries, bias=output_bias)
        if qk_norm:
            twin.same(f"{name}.q_norm.weight", text.head_dim)
            twin.same(f"{name}.k_norm.weight", text.head_dim)


def add_mlp(twin: Twin, name: str, intermediate: int, *, bias: bool = False) -> None:
    hidden = twin.dims.text.hidden
    twin.linear(f"{name}.gate_proj", f"{name}.gate_proj", intermediate, hidden, bias=bias)
    twin.linear(f"{name}.up_proj", f"{name}.up_proj", intermediate, hidden, bias=bias)
    twin.linear(f"{name}.down_proj", f"{name}.down_proj", hidden, intermediate, bias=bias)


def layers(twin: Twin) -> list[str]:
    return [f"language_model.model.layers.{layer}" for layer in range(twin.dims.text.layers)]


def add_qwen2(twin: Twin) -> None:
    add_frame(twin)
    add_attention(twin, qkv_bias=True, output_bias=False)
    for name in layers(twin):
        add_mlp(twin, f"{name}.mlp", twin.dims.text.intermediate)


def add_qwen3(twin: Twin) -> None:
    add_frame(twin)
    add_attention(twin, qkv_bias=False, output_bias=False, qk_norm=True)
    for name in layers(twin):
        add_mlp(twin, f"{name}.mlp", twin.dims.text.intermediate)


def add_qwen3_moe(twin: Twin) -> None:
    text = twin.dims.text
    experts = text.experts
    add_frame(twin)
    add_attention(twin, qkv_bias=False, output_bias=False, qk_norm=True)
    for layer, name in enumerate(layers(twin)):
        if layer in experts.dense_layers or (layer + 1) % experts.step:
            add_mlp(twin, f"{name}.mlp", text.intermediate)
        else:
            twin.same(f"{name}.mlp.gate.weight", experts.experts, text.hidden)
            for expert in range(experts.experts):
                add_mlp(twin, f"{name}.mlp.experts.{expert}", experts.intermediate)
                twin.split.update(f"{name}.mlp.experts.{expert}.{part}_proj.weight" for part in ("gate", "up", "down"))
            gates_and_ups = (experts.experts, 2 * experts.intermediate, text.hidden)
            twin.stacked[f"{name}.mlp.experts.gate_up_proj"] = TensorSpec("BF16", gates_and_ups)
            downs = (experts.experts, text.hidden, experts.intermediate)
            twin.stacked[f"{name}.mlp.experts.down_proj"] = TensorSpec("BF16", downs)


def add_llama(twin: Twin) -> None:
    text = twin.dims.text
    add_frame(twin)
    add_attention(twin, qkv_bias=text.attention_bias, output_bias=text.attention_bias)
    for name in layers(twin):
        add_mlp(twin, f"{name}.mlp", text.intermediate, bias=text.mlp_bias)


def add_internlm2(twin: Twin) -> None:
    text = twin.dims.text
    queries, keys = text.heads * text.head_dim, text.kv_heads * text.head_dim
    embeddings = "language_model.model.embed_tokens.weight"
    twin.tensor("language_model.model.tok_embeddings.weight", embeddings, text.vocab, text.hidden)
    twin.same("language_model.model.norm.weight", text.hidden)
    twin.tensor("language_model.output.weight", HEAD, text.vocab, text.hidden)
    for name in layers(twin):
        twin.norm(f"{name}.attention_norm", f"{name}.input_layernorm", text.hidden)
        twin.norm(f"{name}.ffn_norm", f"{name}.post_attention_layernorm", text.hidden)
        attention, bias = f"{name}.self_attn", text.attention_bias
        rows = {"q": queries, "k": keys, "v": keys}
        twin.fused(f"{name}.attention.wqkv", attention, rows, text.hidden, bias=bias)
        twin.linear(f"{name}.attention.wo", f"{attention}.o_proj", text.hidden, queries, bias=bias)
        mlp, inner = f"{name}.feed_forward", text.intermediate
        twin.linear(f"{mlp}.w1", f"{name}.mlp.gate_proj", inner, text.hidden, bias=False)
        twin.linear(f"{mlp}.w3", f"{name}.mlp.up_proj", inner, text.hidden, bias=False)
        twin.linear(f"{mlp}.w2", f"{name}.mlp.down_proj", text.hidden, inner, bias=False)


def add_phi3(twin: Twin) -> None:
    text = twin.dims.text
    add_frame(twin)
    for name in layers(twin):
        rows = text.heads * text.head_dim + 2 * text.kv_heads * text.head_dim
        twin.same(f"{name}.self_attn.qkv_proj.weight", rows, text.hidden)
        twin.same(f"{name}.self_attn.o_proj.weight", text.hidden, text.heads * text.head_dim)
        twin.same(f"{name}.mlp.gate_up_proj.weight", 2 * text.intermediate, text.hidden)
        twin.same(f"{name}.mlp.down_proj.weight", text.hidden, text.intermediate)


def add_gpt_oss(twin: Twin) -> None:
    add_gpt_oss_frame(twin)
    text = twin.dims.text
    for name in layers(twin):
        experts, count = f"{name}.mlp.experts", text.experts.experts
        twin.same(f"{experts}.gate_up_proj", count, text.hidden, 2 * text.intermediate)
        twin.same(f"{experts}.down_proj", count, text.intermediate, text.hidden)


def add_gpt_oss_mxfp4(twin: Twin) -> None:
    """Inputs in blocks of 32 four-bit numbers: 16 bytes and one scale each, output by output."""
    add_gpt_oss_frame(twin)
    text = twin.dims.text
    for name in layers(twin):
        experts, count = f"{name}.mlp.experts", text.experts.experts
        for part, outputs, inputs in (
            ("gate_up_proj", 2 * text.intermediate, text.hidden),
            ("down_proj", text.hidden, text.intermediate),
        ):
            twin.same(f"{experts}.{part}_blocks", count, outputs, inputs // 32, 16, dtype="U8")
            twin.same(f"{experts}.{part}_scales", count, outputs, inputs // 32, dtype="U8")


def add_gpt_oss_frame(twin: Twin) -> None:
    text = twin.dims.text
    add_frame(twin)
    add_attention(twin, qkv_bias=True, output_bias=True)
    for name in layers(twin):
        count = text.experts.experts
        twin.same(f"{name}.self_attn.sinks", text.heads)
        twin.linear(f"{name}.mlp.router", f"{name}.mlp.router", count, text.hidden, bias=True)
        twin.same(f"{name}.mlp.experts.gate_up_proj_bias", count, 2 * text.intermediate)
        twin.same(f"{name}.mlp.experts.down_proj_bias", count, text.hidden)


@dataclass(frozen=True, slots=True)
class Language:
    """A language model: its family's name, its HF type, what is special about it, and its tensors."""

    family: str
    model_type: str
    add: Callable[[Twin], None]
    bias: bool = False
    mlp_bias: bool = False
    unit: int = 1
    """What hidden and intermediate sizes are multiples of."""


LANGUAGES = {
    "qwen2": Language("Qwen2", "qwen2", add_qwen2),
    "qwen3": Language("Qwen3", "qwen3", add_qwen3),
    "qwen3_moe": Language("Qwen3-MoE", "qwen3_moe", add_qwen3_moe),
    "llama": Language("Llama", "llama", add_llama),
    "internlm2": Language("InternLM2", "llama", add_internlm2),
    "internlm2 with bias": Language("InternLM2", "llama", add_internlm2, bias=True),
    "internlm3": Language("InternLM3", "llama", add_llama),
    "internlm3 with bias": Language("InternLM3", "llama", add_llama, bias=True, mlp_bias=True),
    "internlm3 with wqkv": Language("InternLM3 (wqkv)", "llama", add_internlm2),
    "phi3": Language("Phi-3", "phi3", add_phi3),
    "gpt_oss": Language("GPT-OSS", "gpt_oss", add_gpt_oss, bias=True),
    "gpt_oss mxfp4": Language("GPT-OSS", "gpt_oss", add_gpt_oss_mxfp4, bias=True, unit=32),
}

_SMALL_TOWER = VisionDims(
    hidden=4,
    intermediate=6,
    layers=2,
    heads=2,
    channels=3,
    image_size=4,
    patch_size=2,
    layer_norm=True,
    qkv_bias=True,
    qk_norm=False,
)
TOWERS = {
    "300m": _SMALL_TOWER,
    "6b": replace(_SMALL_TOWER, layer_norm=False, qkv_bias=False, qk_norm=True),
}


def enumerate_twin(language: Language, dims: ModelDims, *, tied: bool) -> Twin:
    """All tensors of one model; a tied one has no output head."""
    twin = Twin(language.family, dims)
    language.add(twin)
    add_vision_and_projector(twin)
    if tied:
        del twin.hf[HEAD]
        twin.custom.pop(HEAD, None)
        twin.custom.pop("language_model.output.weight", None)
    return twin


@st.composite
def twins(draw: st.DrawFn, name: str) -> Twin:
    """Models with the language model ``name`` and small, independent dimensions."""
    language, small = LANGUAGES[name], st.integers(1, 3)
    tower = replace(
        draw(st.sampled_from(list(TOWERS.values()))),
        hidden=draw(small),
        intermediate=draw(small),
        layers=draw(small),
        channels=draw(small),
        image_size=2 * draw(small),
    )
    kv_heads = draw(small)
    experts = ExpertDims(draw(small), draw(small), draw(small), draw(st.frozensets(st.integers(0, 2))))
    text = TextDims(
        vocab=draw(small),
        hidden=draw(small) * language.unit,
        intermediate=draw(small) * language.unit,
        layers=draw(small),
        heads=kv_heads * draw(small),
        kv_heads=kv_heads,
        head_dim=draw(small),
        attention_bias=language.bias,
        mlp_bias=language.mlp_bias,
        experts=experts if language.model_type in {"qwen3_moe", "gpt_oss"} else None,
    )
    dims = ModelDims(tower, text, shuffled=draw(small) ** 2)
    return enumerate_twin(language, dims, tied=draw(st.booleans()))


def sample(name: str, tower: str = "300m", *, tied: bool = False) -> Twin:
    """One fixed small model."""
    language = LANGUAGES[name]
    text = TextDims(
        vocab=7,
        hidden=5 * language.unit,
        intermediate=3 * language.unit,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=3,
        attention_bias=language.bias,
        mlp_bias=language.mlp_bias,
        experts=ExpertDims(2, 4, 1, frozenset()) if language.model_type in {"qwen3_moe", "gpt_oss"} else None,
    )
    return enumerate_twin(language, ModelDims(TOWERS[tower], text, shuffled=4), tied=tied)
