"""The numbers of a model that decide which tensors it has and what shapes they have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VisionDims:
    """An InternViT tower. ``image_size`` and ``patch_size`` in pixels, square."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    channels: int
    image_size: int
    patch_size: int
    layer_norm: bool
    qkv_bias: bool
    qk_norm: bool

    @property
    def kind(self) -> str:
        """Which of the two released designs this tower follows, by its features and not its size."""
        match (self.layer_norm, self.qkv_bias, self.qk_norm):
            case (True, True, False):
                return "InternViT-300M kind"
            case (False, False, True):
                return "InternViT-6B kind"
            case _:
                return "InternViT, mixed features"


@dataclass(frozen=True, slots=True)
class ExpertDims:
    """A mixture of experts in every ``step``-th layer, except the ``dense_layers``."""

    experts: int
    intermediate: int
    step: int
    dense_layers: frozenset[int]

    def in_layer(self, layer: int) -> bool:
        """Whether the layer with this index (from 0) has experts instead of one MLP."""
        return layer not in self.dense_layers and (layer + 1) % self.step == 0

    def layers_of(self, layers: int) -> int:
        """How many of so many layers have experts."""
        dense = sum(0 <= layer < layers and (layer + 1) % self.step == 0 for layer in self.dense_layers)
        return layers // self.step - dense


@dataclass(frozen=True, slots=True)
class TextDims:
    """A language model, in the terms of its HF class."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    attention_bias: bool
    mlp_bias: bool
    experts: ExpertDims | None


@dataclass(frozen=True, slots=True)
class ModelDims:
    """A whole InternVL model. ``shuffled`` is how many patches the pixel shuffle joins (s^2)."""

    vision: VisionDims
    text: TextDims
    shuffled: int
