"""Which tensors a model of given dimensions has, and their shapes, in HF names (on-disk spelling L1)."""

from collections.abc import Container

from internvl_bridge.mapping.dimensions import ModelDims, TextDims, VisionDims
from internvl_bridge.mapping.families import Family
from internvl_bridge.mapping.layer_shapes import Entries, Shape, linear

EMBEDDINGS = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
"""The output head; a model without it shares its input embeddings."""


def hf_schema(family: Family, dims: ModelDims, found: Container[str]) -> dict[str, Shape]:
    """Key and shape of every tensor that ``InternVLForConditionalGeneration`` has for ``dims``.

    The keys ``found`` decide what config.json leaves open: a model without an output head shares its
    input embeddings, and GPT-OSS experts are stored in bf16 or in MXFP4.
    """
    text = dict(_text(family, dims.text, mxfp4=has_mxfp4(found)))
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
    yield from linear(f"{embeddings}.patch_embeddings.projection", patch, bias=True)
    for layer in range(dims.layers):
        prefix = f"vision_tower.encoder.layer.{layer}"
        for norm in ("layernorm_before", "layernorm_after"):
            yield from linear(f"{prefix}.{norm}", (hidden,), bias=dims.layer_norm)
        for role in "qkv":
            yield from linear(f"{prefix}.attention.{role}_proj", (hidden, hidden), bias=dims.qkv_bias)
        if dims.qk_norm:
            for role in "qk":
                yield f"{prefix}.attention.{role}_norm.weight", (hidden,)
        yield from linear(f"{prefix}.attention.projection_layer", (hidden, hidden), bias=True)
        yield from linear(f"{prefix}.mlp.fc1", (dims.intermediate, hidden), bias=True)
        yield from linear(f"{prefix}.mlp.fc2", (hidden, dims.intermediate), bias=True)
        yield f"{prefix}.lambda_1", (hidden,)
        yield f"{prefix}.lambda_2", (hidden,)


def _projector(dims: ModelDims) -> Entries:
    shuffled, hidden = dims.vision.hidden * dims.shuffled, dims.text.hidden
    yield from linear("multi_modal_projector.layer_norm", (shuffled,), bias=True)
    yield from linear("multi_modal_projector.linear_1", (hidden, shuffled), bias=True)
    yield from linear("multi_modal_projector.linear_2", (hidden, hidden), bias=True)


def _text(family: Family, dims: TextDims, *, mxfp4: bool) -> Entries:
    layer_entries = family.mxfp4_layer if mxfp4 and family.mxfp4_layer else family.layer
    yield EMBEDDINGS, (dims.vocab, dims.hidden)
    for layer in range(dims.layers):
        prefix = f"language_model.model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (dims.hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (dims.hidden,)
        yield from layer_entries(prefix, dims, layer)
    yield "language_model.model.norm.weight", (dims.hidden,)
