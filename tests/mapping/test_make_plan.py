"""Every refusal of the planner, with the words the user reads."""

import pytest

from internvl_bridge.errors import (
    AmbiguousKeyError,
    ContradictionError,
    DuplicateKeyError,
    IncompleteGroupError,
)
from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import INTERNLM2, QWEN2
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import RowLookup, explain_unknown_keys, make_plan, unmatched_keys
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.qkv_layouts import Thirds
from internvl_bridge.mapping.tables import fuse, rename

TO_HF, TO_CUSTOM = Format.HF, Format.CUSTOM
SPEC = TensorSpec("BF16", (6, 2))
TEXT = TextDims(7, 5, 6, 1, 4, 2, 3, False, False, None)


def test_unmatched_keys_are_listed_in_their_order() -> None:
    keys = ["z", "mlp1.0.weight", "a", "language_model.lm_head.weight"]

    assert unmatched_keys(QWEN2.table(TEXT), TO_HF, keys) == ["z", "a"]
    assert unmatched_keys(QWEN2.table(TEXT), TO_CUSTOM, iter(keys)) == ["z", "mlp1.0.weight", "a"]


def test_a_key_that_two_rows_claim_is_not_unmatched() -> None:
    table = (rename("mlp1.{param}", "a.{param}"), rename("mlp1.weight", "b"))

    assert unmatched_keys(table, TO_HF, ["mlp1.weight", "x"]) == ["x"]


def test_the_owners_of_a_key_are_the_rows_that_claim_it() -> None:
    table = (rename("mlp1.{param}", "a.{rest}"), rename("mlp1.weight", "{rest}"), rename("other", "b"))

    assert RowLookup(table, TO_HF).of("mlp1.weight") == [0, 1]
    assert RowLookup(table, TO_HF).of("mlp1.bias") == [0]
    assert RowLookup(table, TO_HF).of("mlp1.weight.x") == []
    assert RowLookup(table, TO_CUSTOM).of("b") == [1, 2]
    assert RowLookup(table, TO_CUSTOM).of("a.x.y") == [0, 1]


def test_a_row_with_several_patterns_owns_a_key_once() -> None:
    row = fuse("f", {"q": "a.{param}", "k": "a.weight"}, Thirds())

    assert RowLookup((row,), TO_CUSTOM).of("a.weight") == [0]


def test_the_first_unknown_key_is_explained() -> None:
    error = explain_unknown_keys(["x.lora_A.y", "mlp2.0.weight"])

    assert error.reason.startswith("Unknown tensor x.lora_A.y, mlp2.0.weight: it is part of a LoRA adapter")
    assert error.remedy.startswith("Merge it, and convert the result")


def test_a_key_with_two_rows_is_refused() -> None:
    table = (rename("mlp1.{param}", "a.{param}"), rename("mlp1.weight", "b"))

    assert make_plan(table, {"mlp1.bias": SPEC}, TO_HF).targets == {"a.bias": SPEC}
    with pytest.raises(AmbiguousKeyError, match=r"^mlp1\.weight is claimed by 2 transforms\."):
        make_plan(table, {"mlp1.weight": SPEC}, TO_HF)


def test_two_sources_of_one_target_are_refused() -> None:
    table = (rename("new", "target"), rename("old", "target"))

    assert make_plan(table, {"old": SPEC}, TO_HF).targets == {"target": SPEC}
    with pytest.raises(DuplicateKeyError, match=r"^new, old would both become target\. Remove the tensors"):
        make_plan(table, {"old": SPEC, "new": SPEC}, TO_HF)


VIT = "vision_tower.encoder.layer.0.attention"
LLM = "language_model.model.layers.0.self_attn"


@pytest.mark.parametrize("lost", "qkv")
@pytest.mark.parametrize("param", ["weight", "bias"])
def test_an_incomplete_group_names_what_is_missing_and_what_is_there(lost: str, param: str) -> None:
    left = [role for role in "kqv" if role != lost]
    specs = {f"{VIT}.{role}_proj.{param}": SPEC for role in left}

    with pytest.raises(IncompleteGroupError) as error:
        make_plan(QWEN2.table(TEXT), specs, TO_CUSTOM)

    there = ", ".join(f"{VIT}.{role}_proj.{param}" for role in left)
    assert error.value.reason == (
        f"{VIT}.{lost}_proj.{param} is missing, but {there} is there; "
        f"vision_model.encoder.layers.0.attn.qkv.{param} is made of all 3 together."
    )


def test_groups_of_different_layers_do_not_complete_each_other() -> None:
    specs = {f"vision_tower.encoder.layer.{i}.attention.{role}_proj.bias": SPEC for i, role in enumerate("qkv")}

    with pytest.raises(IncompleteGroupError, match=r"layer\.0\.attention\.k_proj\.bias, .*v_proj\.bias is missing"):
        make_plan(QWEN2.table(TEXT), specs, TO_CUSTOM)


@pytest.mark.parametrize(
    ("odd", "listed"),
    [
        (TensorSpec("F32", (2, 2)), "k_proj.weight F32 [2, 2]"),
        (TensorSpec("BF16", (2, 3)), "k_proj.weight BF16 [2, 3]"),
        (TensorSpec("BF16", (2,)), "k_proj.weight BF16 [2]"),
        (TensorSpec("BF16", ()), "k_proj.weight BF16 []"),
    ],
    ids=["dtype", "width", "dimensions", "scalar"],
)
def test_parts_that_do_not_go_together_are_listed(odd: TensorSpec, listed: str) -> None:
    specs = {f"{VIT}.{role}_proj.weight": TensorSpec("BF16", (2, 2)) for role in "qkv"}
    specs[f"{VIT}.k_proj.weight"] = odd

    with pytest.raises(ContradictionError) as error:
        make_plan(QWEN2.table(TEXT), specs, TO_CUSTOM)

    assert "cannot be made of tensors of different dtypes or widths" in error.value.reason
    assert listed in error.value.reason
    assert "Save the checkpoint again with one dtype" in error.value.remedy


def test_three_scalars_make_no_fused_tensor() -> None:
    specs = {f"{VIT}.{role}_proj.bias": TensorSpec("BF16", ()) for role in "qkv"}

    with pytest.raises(ContradictionError, match="different dtypes or widths"):
        make_plan(QWEN2.table(TEXT), specs, TO_CUSTOM)


def test_thirds_of_different_sizes_are_refused() -> None:
    rows = {"q": 4, "k": 1, "v": 1}
    specs = {f"{VIT}.{role}_proj.bias": TensorSpec("BF16", (rows[role],)) for role in "qkv"}

    with pytest.raises(ContradictionError) as error:
        make_plan(QWEN2.table(TEXT), specs, TO_CUSTOM)

    assert error.value.reason == (
        f"{VIT}.q_proj.bias has shape [4], which is not its share of vision_model.encoder.layers.0.attn.qkv.bias [6]."
    )


@pytest.mark.parametrize("shape", [(7, 2), (4,), ()])
def test_a_fused_tensor_without_thirds_is_refused(shape: tuple[int, ...]) -> None:
    key = "vision_model.encoder.layers.0.attn.qkv.weight"

    with pytest.raises(ContradictionError) as error:
        make_plan(QWEN2.table(TEXT), {key: TensorSpec("BF16", shape)}, TO_HF)

    assert error.value.reason == f"{key} has shape {list(shape)}, which Thirds() cannot divide."


@pytest.mark.parametrize("shape", [(23, 5), (25, 5), (12, 5), (48, 5), ()])
def test_a_grouped_tensor_that_contradicts_the_head_counts_is_refused(shape: tuple[int, ...]) -> None:
    key = "language_model.model.layers.0.attention.wqkv.weight"

    with pytest.raises(ContradictionError) as error:
        make_plan(INTERNLM2.table(TEXT), {key: TensorSpec("BF16", shape)}, TO_HF)

    assert error.value.reason == (
        f"{key} has shape {list(shape)}, which GroupedQKV(heads=4, kv_heads=2, head_dim=3) cannot divide."
    )
    assert "Check the head counts in config.json" in error.value.remedy


def test_heads_that_no_group_shares_are_refused() -> None:
    odd = TextDims(7, 5, 6, 1, 3, 2, 3, False, False, None)
    key = "language_model.model.layers.0.attention.wqkv.weight"

    with pytest.raises(ContradictionError, match="cannot divide"):
        make_plan(INTERNLM2.table(odd), {key: TensorSpec("BF16", (21, 5))}, TO_HF)


def test_parts_that_contradict_the_head_counts_are_refused_even_if_their_sum_fits() -> None:
    rows = {"q": 6, "k": 12, "v": 6}
    specs = {f"{LLM}.{role}_proj.weight": TensorSpec("BF16", (rows[role], 5)) for role in "qkv"}

    with pytest.raises(ContradictionError, match=r"q_proj\.weight has shape \[6, 5\], which is not its share"):
        make_plan(INTERNLM2.table(TEXT), specs, TO_CUSTOM)
