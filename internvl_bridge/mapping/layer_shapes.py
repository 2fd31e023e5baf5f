"""Which tensors one layer of a language model has, and their shapes: a function for each design. HF names (L1)."""

from collections.abc import Callable, Iterator

from internvl_bridge.mapping.dimensions import ExpertDims, TextDims

Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]
LayerShapes = Callable[[str, TextDims, int], Entries]
"""``(prefix of the layer's keys, dimensions, index of the layer)`` to names and shapes."""

_MXFP4_BLOCK = 32
"""Elements that share one scale; two of them fill a byte."""


def qwen2_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    """Grouped-query attention whose q, k and v always have a bias, and a gated MLP."""
    yield from _attention(prefix, dims, qkv_bias=True, output_bias=False)
    yield from _mlp(f"{prefix}.mlp", dims.hidden, dims.intermediate)


def qwen3_layer(prefix: str, dims: TextDims, layer: int) -> Entries:
    """Attention that normalises queries and keys; a gated MLP, or in some layers a mixture of experts."""
    yield from _attention(prefix, dims, qkv_bias=dims.attention_bias, output_bias=dims.attention_bias)
    for role in "qk":
        yield f"{prefix}.self_attn.{role}_norm.weight", (dims.head_dim,)
    if dims.experts is not None and dims.experts.in_layer(layer):
        yield from _experts(prefix, dims.hidden, dims.experts)
    else:
        yield from _mlp(f"{prefix}.mlp", dims.hidden, dims.intermediate)


def llama_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    """Attention and a gated MLP, each with biases or without."""
    yield from _attention(prefix, dims, qkv_bias=dims.attention_bias, output_bias=dims.attention_bias)
    yield from _mlp(f"{prefix}.mlp", dims.hidden, dims.intermediate, bias=dims.mlp_bias)


def phi3_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    """Attention and an MLP whose input projections are one tensor each."""
    fused = (dims.heads + 2 * dims.kv_heads) * dims.head_dim
    yield f"{prefix}.self_attn.qkv_proj.weight", (fused, dims.hidden)
    yield f"{prefix}.self_attn.o_proj.weight", (dims.hidden, dims.heads * dims.head_dim)
    yield f"{prefix}.mlp.gate_up_proj.weight", (2 * dims.intermediate, dims.hidden)
    yield f"{prefix}.mlp.down_proj.weight", (dims.hidden, dims.intermediate)


def gpt_oss_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    """Attention with sinks, and a mixture of experts in every layer."""
    yield from _gpt_oss_frame(prefix, dims)
    for name, inputs, outputs in _gpt_oss_experts(prefix, dims):
        yield name, (_expert_count(dims), inputs, outputs)


def gpt_oss_mxfp4_layer(prefix: str, dims: TextDims, _layer: int) -> Entries:
    """As :func:`gpt_oss_layer`, with experts in 4-bit blocks and their scales."""
    yield from _gpt_oss_frame(prefix, dims)
    for name, inputs, outputs in _gpt_oss_experts(prefix, dims):
        blocks = (_expert_count(dims), outputs, inputs // _MXFP4_BLOCK)
        yield f"{name}_blocks", (*blocks, _MXFP4_BLOCK // 2)
        yield f"{name}_scales", blocks


def _gpt_oss_frame(prefix: str, dims: TextDims) -> Entries:
    yield from _attention(prefix, dims, qkv_bias=dims.attention_bias, output_bias=dims.attention_bias)
    yield f"{prefix}.self_attn.sinks", (dims.heads,)
    yield from linear(f"{prefix}.mlp.router", (_expert_count(dims), dims.hidden), bias=True)
    for name, _, outputs in _gpt_oss_experts(prefix, dims):
        yield f"{name}_bias", (_expert_count(dims), outputs)


def _gpt_oss_experts(prefix: str, dims: TextDims) -> Iterator[tuple[str, int, int]]:
    yield f"{prefix}.mlp.experts.gate_up_proj", dims.hidden, 2 * dims.intermediate
    yield f"{prefix}.mlp.experts.down_proj", dims.intermediate, dims.hidden


def _expert_count(dims: TextDims) -> int:
    return dims.experts.experts if dims.experts else 0


def _attention(prefix: str, dims: TextDims, *, qkv_bias: bool, output_bias: bool) -> Entries:
    queries, keys = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    for role, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield from linear(f"{prefix}.self_attn.{role}_proj", (rows, dims.hidden), bias=qkv_bias)
    yield from linear(f"{prefix}.self_attn.o_proj", (dims.hidden, queries), bias=output_bias)


def _mlp(prefix: str, hidden: int, intermediate: int, *, bias: bool = False) -> Entries:
    yield from linear(f"{prefix}.gate_proj", (intermediate, hidden), bias=bias)
    yield from linear(f"{prefix}.up_proj", (intermediate, hidden), bias=bias)
    yield from linear(f"{prefix}.down_proj", (hidden, intermediate), bias=bias)


def _experts(prefix: str, hidden: int, dims: ExpertDims) -> Entries:
    yield f"{prefix}.mlp.gate.weight", (dims.experts, hidden)
    alike = [*_mlp("", hidden, dims.intermediate)]  # a model has thousands of experts
    for expert in range(dims.experts):
        for name, shape in alike:
            yield f"{prefix}.mlp.experts.{expert}{name}", shape


def linear(name: str, weight: Shape, *, bias: bool) -> Entries:
    """A weight, and its bias if it has one."""
    yield f"{name}.weight", weight
    if bias:
        yield f"{name}.bias", weight[:1]
