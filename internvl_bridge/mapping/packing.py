"""The tensors that take the place of a weight that is quantised."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from internvl_bridge.mapping.layer_shapes import Shape

Found = Mapping[str, Shape]
"""The shapes of a layer's tensors, by how their keys end."""

_INT4 = 8
"""Elements of 4 bits in an int32."""
_SCALES = {"F16", "BF16", "F32"}
_FLOAT8 = {"F8_E4M3", "F8_E5M2"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packing:
    """A way to store quantised weights.

    Args:
        name: what people call it.
        method: the ``quant_method`` of a quantization_config that means it.
        skipped: the field of a quantization_config that lists the modules which are not quantised.
        mark: how a key of a quantised layer ends, and no other key does.
        dtypes: the safetensors dtypes of a quantised layer's tensors, by how their keys end.
        shapes: the endings and shapes that a weight of a given shape is stored as. What they leave open (how many
            weights share a scale), the shapes that were found say.
        was_loaded: whether transformers has loaded converted checkpoints of this kind, and computed with them.
        says: the fields by which a quantization_config says the same, if it has them.
    """

    name: str
    method: str
    skipped: str
    mark: str
    dtypes: Mapping[str, set[str]]
    shapes: Callable[[Shape, Found], Found] = lambda weight, _: {".weight": weight}
    was_loaded: bool = True
    says: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Packed:
    """How a language model is quantised.

    ``plain`` are its linear layers that are not: their names among HF's keys (L1). ``groups`` are the numbers of inputs
    that share a scale, where the shapes of AWQ say so.
    """

    packing: Packing
    plain: tuple[str, ...]
    groups: frozenset[int] = frozenset()


def _awq(weight: Shape, found: Found) -> Found:
    """Columns of 8 outputs in an int32, and a scale and a zero point for each group of inputs."""
    outputs, inputs = weight
    groups = _length(found.get(".scales", ()), inputs)
    return {
        ".qweight": (inputs, outputs // _INT4),
        ".qzeros": (groups, outputs // _INT4),
        ".scales": (groups, outputs),
    }


def _length(found: Shape, most: int) -> int:
    """The first number of a shape, if it divides ``most``; else 1."""
    return found[0] if found and 0 < found[0] <= most and most % found[0] == 0 else 1


def _float8(ending: str) -> Callable[[Shape, Found], Found]:
    """The weight itself, with one scale, one for each output, or one for each block."""

    def shapes(weight: Shape, found: Found) -> Found:
        outputs, inputs = weight
        scale = found.get(ending, ())
        each = scale in {(), (1,), (outputs,), (outputs, 1)}
        blocks = len(scale) == 2 and 0 < scale[0] <= outputs and 0 < scale[1] <= inputs
        activations = {name: shape for name, shape in found.items() if name == ".input_scale" and shape in {(), (1,)}}
        return {".weight": weight, ending: scale if each or blocks else (outputs, 1), **activations}

    return shapes


def _int8(weight: Shape, found: Found) -> Found:
    stated = {".weight_format": ()} if ".weight_format" in found else {}
    return {".weight": weight, ".SCB": weight[:1], **stated}


_STATES = (".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4")


def _four_bits(weight: Shape, found: Found) -> Found:
    """Two elements in a byte, and tables whose lengths only their data explain."""
    outputs, inputs = weight
    tables = {name: shape for name, shape in found.items() if name.startswith(".weight.") and len(shape) == 1}
    state = _STATES[1] if _STATES[1] in tables and _STATES[0] not in tables else _STATES[0]
    tables = {name: shape for name, shape in tables.items() if name not in _STATES or name == state}
    needed = {".weight.absmax": (1,), ".weight.quant_map": (16,), state: (1,)}
    return {".weight": ((outputs * inputs + 1) // 2, 1), **needed, **tables}


MXFP4 = Packing(
    name="MXFP4",
    method="mxfp4",
    skipped="modules_to_not_convert",
    mark="_blocks",
    dtypes={"_blocks": {"U8"}, "_scales": {"U8"}},
)
"""Experts of GPT-OSS in 4-bit blocks: a layer of its own, see :mod:`internvl_bridge.mapping.layer_shapes`."""

_LINEAR_LAYERS = (
    Packing(
        name="AWQ",
        method="awq",
        skipped="modules_to_not_convert",
        mark=".qweight",
        dtypes={".qweight": {"I32"}, ".qzeros": {"I32"}, ".scales": _SCALES},
        shapes=_awq,
        was_loaded=False,
        says={"bits": 4, "w_bit": 4},
    ),
    Packing(
        name="FP8",
        method="fp8",
        skipped="modules_to_not_convert",
        mark=".weight_scale_inv",
        dtypes={".weight": _FLOAT8, ".weight_scale_inv": _SCALES, ".input_scale": _SCALES},
        shapes=_float8(".weight_scale_inv"),
    ),
    Packing(
        name="compressed-tensors",
        method="compressed-tensors",
        skipped="ignore",
        mark=".weight_scale",
        dtypes={".weight": {*_FLOAT8, "I8"}, ".weight_scale": _SCALES, ".input_scale": _SCALES},
        shapes=_float8(".weight_scale"),
    ),
    Packing(
        name="bitsandbytes of 8 bits",
        method="bitsandbytes",
        skipped="llm_int8_skip_modules",
        mark=".SCB",
        dtypes={".weight": {"I8"}, ".SCB": {"F32"}, ".weight_format": {"U8"}},
        shapes=_int8,
        says={"load_in_8bit": True},
    ),
    Packing(
        name="bitsandbytes of 4 bits",
        method="bitsandbytes",
        skipped="llm_int8_skip_modules",
        mark=".weight.absmax",
        dtypes={
            ".weight": {"U8"},
            ".weight.absmax": {"U8", "F32"},
            ".weight.quant_map": {"F32"},
            ".weight.nested_absmax": {"F32"},
            ".weight.nested_quant_map": {"F32"},
            _STATES[0]: {"U8"},
            _STATES[1]: {"U8"},
        },
        says={"load_in_4bit": True},
        shapes=_four_bits,
    ),
)
_PACKINGS = (MXFP4, *_LINEAR_LAYERS)

LINEAR = ("weight", "bias", *sorted({name[1:] for packing in _LINEAR_LAYERS for name in packing.dtypes} - {"weight"}))
"""How the keys of a linear layer can end, whether it is quantised or not."""

SKIPPED = {packing.skipped for packing in _PACKINGS}
"""The fields of a quantization_config that list modules which are not quantised."""

LAYERS = "language_model.model.layers."
"""How the names of the language model's layers begin among HF's keys (L1)."""


def packing_in(keys: Iterable[str]) -> Packing | None:
    """The packing that ``keys`` show; None if nothing is quantised. It does not depend on how keys begin."""
    marks = tuple(packing.mark for packing in _PACKINGS)
    marked = next((key for key in keys if key.endswith(marks)), None)
    return None if marked is None else next(packing for packing in _PACKINGS if marked.endswith(packing.mark))


def packed_schema(packing: Packing, schema: Mapping[str, Shape], found: Mapping[str, Shape]) -> dict[str, Shape]:
    """``schema`` with the tensors that ``packing`` has for a weight, wherever ``found`` has them."""
    layers = _layers(packing, found)
    result: dict[str, Shape] = {}
    for key, shape in schema.items():
        layer = key.removesuffix(".weight")
        if layer not in layers:
            result[key] = shape
            continue
        stored = {ending: found[layer + ending] for ending in packing.dtypes if layer + ending in found}
        result |= {layer + ending: shape for ending, shape in packing.shapes(shape, stored).items()}
    return result


def packed(packing: Packing, schema: Mapping[str, Shape], found: Mapping[str, Shape]) -> Packed:
    """What of the weights in ``schema`` the tensors ``found`` hold packed."""
    layers = _layers(packing, found)
    matrices = (key for key, shape in schema.items() if key.startswith(LAYERS) and len(shape) == 2)
    names = (key.removesuffix(".weight") for key in matrices if key.endswith(".weight"))
    scales = {layer: found[f"{layer}.scales"] for layer in layers if f"{layer}.scales" in found}
    groups = frozenset(schema[f"{layer}.weight"][1] // shape[0] for layer, shape in scales.items())
    return Packed(packing, tuple(name for name in names if name not in layers), groups)


def packed_dtypes(packing: Packing, found: Iterable[str]) -> dict[str, set[str]]:
    """The dtypes that each tensor of a quantised layer can have, by its key."""
    return {layer + ending: dtypes for layer in _layers(packing, found) for ending, dtypes in packing.dtypes.items()}


def _layers(packing: Packing, found: Iterable[str]) -> set[str]:
    return {key.removesuffix(packing.mark) for key in found if key.endswith(packing.mark)}
