"""What takes the place of a quantised weight: by the shapes that the quantisers' own libraries write."""

import pytest

from internvl_bridge.mapping.packing import packed, packed_dtypes, packed_schema, packing_in

Q, OUT, GATE = (
    f"language_model.model.layers.0.{name}" for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate")
)
SCHEMA = {f"{Q}.weight": (96, 64), f"{Q}.bias": (96,), f"{OUT}.weight": (64, 96), f"{GATE}.weight": (4, 64)}
FP8 = {"weight": (96, 64), "weight_scale_inv": (3, 2)}
COMPRESSED = {"weight": (96, 64), "weight_scale": (96, 1)}
NF4, FP4 = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
BLOCKS = {"weight": (3072, 1), "weight.absmax": (96,), "weight.quant_map": (16,), NF4: (80,)}
NESTED = {**BLOCKS, "weight.nested_absmax": (1,), "weight.nested_quant_map": (256,)}


@pytest.mark.parametrize(
    "layer",
    [
        {"qweight": (64, 12), "qzeros": (4, 12), "scales": (4, 96)},
        {"qweight": (64, 12), "qzeros": (1, 12), "scales": (1, 96)},
        FP8,
        {**FP8, "weight_scale_inv": ()},
        {**FP8, "input_scale": (1,)},
        COMPRESSED,
        {**COMPRESSED, "weight_scale": (1,), "input_scale": ()},
        {"weight": (96, 64), "SCB": (96,)},
        {"weight": (96, 64), "SCB": (96,), "weight_format": ()},
        BLOCKS,
        NESTED,
        {**{name: shape for name, shape in NESTED.items() if name != NF4}, FP4: (80,)},
    ],
)
def test_what_quantisers_write_is_the_schema(layer: dict[str, tuple[int, ...]]) -> None:
    found = {key: shape for key, shape in SCHEMA.items() if key != f"{Q}.weight"}
    found |= {f"{Q}.{name}": shape for name, shape in layer.items()}
    packing = packing_in(found)
    assert packing is not None
    assert packed_schema(packing, SCHEMA, found) == found
    assert packed(packing, SCHEMA, found).plain == (OUT, GATE)
    assert packed(packing, SCHEMA, found).groups == ({64 // layer["scales"][0]} if "scales" in layer else set())
    assert {f"{Q}.{name}" for name in layer} <= packed_dtypes(packing, found).keys()


@pytest.mark.parametrize(
    "layer",
    [
        {"qweight": (12, 64), "qzeros": (4, 12), "scales": (4, 96)},
        {"qweight": (64, 12), "qzeros": (5, 12), "scales": (5, 96)},
        {"qweight": (64, 12), "qzeros": (0, 12), "scales": (0, 96)},
        {"qweight": (64, 12), "qzeros": (4, 12)},
        {**FP8, "weight_scale_inv": (97, 1)},
        {**FP8, "weight_scale_inv": (3,)},
        {**FP8, "weight_scale_inv": (0, 1)},
        {**FP8, "input_scale": (96,)},
        {**COMPRESSED, "weight": (64, 96)},
        {"weight": (96, 64), "SCB": (64,)},
        {**BLOCKS, "weight": (3072,)},
        {**BLOCKS, "weight.absmax": (96, 1)},
        {**BLOCKS, FP4: (80,)},
        {name: shape for name, shape in BLOCKS.items() if name != NF4},
    ],
)
def test_other_shapes_are_not(layer: dict[str, tuple[int, ...]]) -> None:
    found = {f"{Q}.{name}": shape for name, shape in layer.items()}
    packing = packing_in(found)
    assert packing is not None
    assert packed_schema(packing, {f"{Q}.weight": (96, 64)}, found) != found


def test_weights_that_are_not_quantised_have_no_packing() -> None:
    assert packing_in(SCHEMA) is None
