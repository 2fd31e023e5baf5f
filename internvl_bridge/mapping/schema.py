"""Which tensors a model of given dimensions has, and their shapes, in HF names (on-disk spelling L1)."""

from collections.abc import Callable, Container, Iterator

from internvl_bridge.mapping.dimensions import ExpertDims, ModelDims, TextDims, VisionDims

Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]

EMBEDDINGS = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
"""The output head; a model without it shares its input embeddings."""

_MXFP4_BLOCK = 32
"""Elements that share one scale; two of them fill a byte."""


def hf_schema(dims: ModelDims, found: Container[str]) -> dict[str, Shape]:
    """Key and shape of every tensor that ``InternVLForConditionalGeneration`` reads for ``dims``.

    The keys ``found`` decide what config.json leaves open: a model without an output head shares its
    input embeddings, and GPT-OSS experts are stored in bf16 or in MXFP4.
    """
    text = dict(_text(dims.text, mxfp4=has_mxfp4(found)))
    if has_head(found):
        text[HEAD] = (dims.text.vocab, dims.text.hidden)
    return dict([*_vision(dims.vision), *_projector(dims), *text.items()])


def has_head(keys: Container[str]) -> bool:
    """Whether HF ``keys`` hold an output head of their own."""
    return HEAD in keys


def has_mxfp4(keys: Container[str]) -> bool:
    """Whether HF ``keys`` hold experts in 4-bit blocks."""
    return "language_model.model.layers.0.mlp.experts.gate_up_proj_blocks" in keys


def _vision(dims: VisionDims) -> Entries:
    hidden = dims.hidden
    embeddings = "vision_tower.embeddings"
    patches = (dims.image_size // dims.patch_size) ** 2
    yield f"{embeddings}.cls_token", (1, 1, hidden)
    yield f"{embeddings}.position_embeddings", (1, patches + 1, hidden)
    patch = (hidden, dims.channels, dims.patch_size, dims.patch_size)
    yield from _linear(f"{embeddings}.patch_embeddings.projection", patch, bias=True)
    for layer in range(dims.layers):
        prefix = f"vision_tower.encoder.layer.{layer}"
        for norm in ("layernorm_before", "layernorm_after"):
            yield from _linear(f"{prefix}.{norm}", (hidden,), bias=dims.layer_norm)
        for role in "qkv":
            yield from _linear(f"{prefix}.attention.{role}_proj", (hidden, hidden), bias=dims.qkv_bias)
        if dims.qk_norm:
            for role in "qk":
                yield f"{prefix}.attention.{role}_norm.weight", (hidden,)
        yield from _linear(f"{prefix}.attention.projection_layer", (hidden, hidden), bias=True)
        yield from _linear(f"{prefix}.mlp.fc1", (dims.intermediate, hidden), bias=True)
        yield from _linear(f"{prefix}.mlp.fc2", (hidden, dims.intermediate), bias=True)
        yield f"{prefix}.lambda_1", (hidden,)
        yield f"{prefix}.lambda_2", (hidden,)


def _projector(dims: ModelDims) -> Entries:
    shuffled, hidden = dims.vision.hidden * dims.shuffled, dims.text.hidden
    yield from _linear("multi_modal_projector.layer_norm", (shuffled,), bias=True)
    yield from _linear("multi_modal_projector.linear_1", (hidden, shuffled), bias=True)
    yield from _linear("multi_modal_projector.linear_2", (hidden, hidden), bias=True)


def _text(dims: TextDims, *, mxfp4: bool) -> Entries:
    layer_entries = _gpt_oss_mxfp4_layer if mxfp4 else _LAYERS[dims.model_type]
    yield EMBEDDINGS, (dims.vocab, dims.hidden)
    for layer in range(dims.layers):
        prefix = f"language_model.model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (dims.hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (dims.hidden,)
        yield from layer_entries(prefix, dims, layer)
    yield "language_model.model.norm.weight", (dims.hidden,)


def _qwen2_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    yield from _attention(prefix, dims, qkv_bias=True, output_bias=False)
    yield from _mlp(f"{prefix}.mlp", dims.hidden, dims.intermediate)


def _qwen3_layer(prefix: str, dims: TextDims, layer: int) -> Entries:
    yield from _attention(prefix, dims, qkv_bias=dims.attention_bias, output_bias=dims.attention_bias)
    for role in "qk":
        yield f"{prefix}.self_attn.{role}_norm.weight", (dims.head_dim,)
    if dims.experts is not None and dims.experts.in_layer(layer):
        yield from _experts(prefix, dims.hidden, dims.experts)
    else:
        yield from _mlp(f"{prefix}.mlp", dims.hidden, dims.intermediate)


def _llama_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    yield from _attention(prefix, dims, qkv_bias=dims.attention_bias, output_bias=dims.attention_bias)
    yield from _mlp(f"{prefix}.mlp", dims.hidden, dims.intermediate, bias=dims.mlp_bias)


def _phi3_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    fused = (dims.heads + 2 * dims.kv_heads) * dims.head_dim
    yield f"{prefix}.self_attn.qkv_proj.weight", (fused, dims.hidden)
    yield f"{prefix}.self_attn.o_proj.weight", (dims.hidden, dims.heads * dims.head_dim)
    yield f"{prefix}.mlp.gate_up_proj.weight", (2 * dims.intermediate, dims.hidden)
    yield f"{prefix}.mlp.down_proj.weight", (dims.hidden, dims.intermediate)


def _gpt_oss_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    yield from _gpt_oss_frame(prefix, dims)
    for name, inputs, outputs in _gpt_oss_experts(prefix, dims):
        yield name, (_expert_count(dims), inputs, outputs)


def _gpt_oss_mxfp4_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    yield from _gpt_oss_frame(prefix, dims)
    for name, inputs, outputs in _gpt_oss_experts(prefix, dims):
        blocks = (_expert_count(dims), outputs, inputs // _MXFP4_BLOCK)
        yield f"{name}_blocks", (*blocks, _MXFP4_BLOCK // 2)
        yield f"{name}_scales", blocks


def _gpt_oss_frame(prefix: str, dims: TextDims) -> Entries:
    yield from _attention(prefix, dims, qkv_bias=dims.attention_bias, output_bias=dims.attention_bias)
    yield f"{prefix}.self_attn.sinks", (dims.heads,)
    yield from _linear(f"{prefix}.mlp.router", (_expert_count(dims), dims.hidden), bias=True)
    for name, _, outputs in _gpt_oss_experts(prefix, dims):
        yield f"{name}_bias", (_expert_count(dims), outputs)


def _gpt_oss_experts(prefix: str, dims: TextDims) -> Iterator[tuple[str, int, int]]:
    yield f"{prefix}.mlp.experts.gate_up_proj", dims.hidden, 2 * dims.intermediate
    yield f"{prefix}.mlp.experts.down_proj", dims.intermediate, dims.hidden


def _expert_count(dims: TextDims) -> int:
    return dims.experts.experts if dims.experts else 0


_LAYERS: dict[str, Callable[[str, TextDims, int], Entries]] = {
    "qwen2": _qwen2_layer,
    "qwen3": _qwen3_layer,
    "qwen3_moe": _qwen3_layer,
    "llama": _llama_layer,
    "phi3": _phi3_layer,
    "gpt_oss": _gpt_oss_layer,
}


def _attention(prefix: str, dims: TextDims, *, qkv_bias: bool, output_bias: bool) -> Entries:
    queries, keys = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    for role, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield from _linear(f"{prefix}.self_attn.{role}_proj", (rows, dims.hidden), bias=qkv_bias)
    yield from _linear(f"{prefix}.self_attn.o_proj", (dims.hidden, queries), bias=output_bias)


def _mlp(prefix: str, hidden: int, intermediate: int, *, bias: bool = False) -> Entries:
    yield from _linear(f"{prefix}.gate_proj", (intermediate, hidden), bias=bias)
    yield from _linear(f"{prefix}.up_proj", (intermediate, hidden), bias=bias)
    yield from _linear(f"{prefix}.down_proj", (hidden, intermediate), bias=bias)


def _experts(prefix: str, hidden: int, dims: ExpertDims) -> Entries:
    yield f"{prefix}.mlp.gate.weight", (dims.experts, hidden)
    for expert in range(dims.experts):
        yield from _mlp(f"{prefix}.mlp.experts.{expert}", hidden, dims.intermediate)


def _linear(name: str, weight: Shape, *, bias: bool) -> Entries:
    yield f"{name}.weight", weight
    if bias:
        yield f"{name}.bias", weight[:1]
