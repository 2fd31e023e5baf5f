"""Where two checkpoints differ: by component, by group, by layer."""

from math import hypot, inf, isnan, nan

import pytest

from internvl_bridge.reporting.tables import Facts, Table
from internvl_bridge.verification.changes import by_component, by_group, by_layer, changes_as_json
from internvl_bridge.verification.comparison_report import comparison_report
from internvl_bridge.verification.tensor_difference import TensorDifference
from internvl_bridge.verification.tensors import Comparison

TEXT = "language_model.model.layers"


def difference(key: str, l2: float, norm: float, largest: float = 0.5) -> TensorDifference:
    return TensorDifference(key, 0, l2, norm, largest, elements=4, bytes=8)


def comparison(*differences: TensorDifference, equal: tuple[str, ...] = (), mismatched=(), missing=()) -> Comparison:
    return Comparison(tuple(missing), (), dict.fromkeys(mismatched, "F32"), differences, equal)


FOUND = comparison(
    difference(f"{TEXT}.0.mlp.up_proj.weight", 3.0, 10.0, 0.25),
    difference(f"{TEXT}.2.mlp.up_proj.weight", 4.0, 10.0, 0.75),
    difference(f"{TEXT}.2.self_attn.q_proj.weight", 1.0, 1.0),
    difference("lm_head.weight", 0.0, 5.0, 0.0),
    equal=("vision_tower.encoder.layer.0.mlp.fc1.weight", f"{TEXT}.1.mlp.up_proj.weight"),
    mismatched=("multi_modal_projector.linear_1.weight",),
)


def test_components_are_in_the_order_of_the_model_with_their_groups():
    changes = by_component(FOUND)
    assert [*changes] == [
        ("vision tower", ""),
        ("vision tower", "MLP"),
        ("projector", ""),
        ("language model", ""),
        ("language model", "attention"),
        ("language model", "MLP"),
        ("output head", ""),
    ]
    mlp, whole = changes["language model", "MLP"], changes["language model", ""]
    assert (mlp.tensors, mlp.differing, mlp.l2, mlp.norm, mlp.largest) == (3, 2, 5.0, hypot(10, 10), 0.75)
    assert (whole.tensors, whole.differing, whole.l2) == (4, 3, hypot(3, 4, 1))
    assert mlp.relative == 5.0 / hypot(10, 10)
    assert (changes["vision tower", ""].differing, changes["vision tower", ""].relative) == (0, 0.0)


def test_what_could_not_be_compared_differs():
    projector = by_component(FOUND)["projector", ""]
    assert (projector.tensors, projector.differing, projector.mismatched, projector.l2) == (1, 1, 1, 0.0)
    [table, _] = [part for part in comparison_report(FOUND) if isinstance(part, Table)]
    assert table.rows[2] == ("projector", "1", "1", "-", "-", "-")
    assert next(iter(comparison_report(FOUND))).startswith("Different: 2 of 7 tensors are equal bit for bit")


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("relative", f"{TEXT}.*.self_attn.q_proj.weight"),
        ("l2", f"{TEXT}.*.mlp.up_proj.weight"),
        ("largest", f"{TEXT}.*.mlp.up_proj.weight"),
        ("name", f"{TEXT}.*.mlp.up_proj.weight"),
    ],
)
def test_groups_are_sorted_as_asked(sort, first):
    groups = by_group(FOUND, sort)
    assert next(iter(groups)) == first
    assert groups[f"{TEXT}.*.mlp.up_proj.weight"].tensors == 3
    assert "vision_tower.encoder.layer.*.mlp.fc1.weight" not in groups


def test_what_cannot_be_measured_comes_first():
    found = comparison(difference("a.weight", 9.0, 1.0), difference("b.weight", nan, nan, nan))
    assert [*by_group(found)] == ["b.weight", "a.weight"]
    assert isnan(by_component(found)["other tensors", ""].largest)


def test_a_layer_that_is_not_a_number_is_the_highest():
    layers = [difference(f"{TEXT}.{layer}.mlp.up_proj.weight", 0.1, 1.0) for layer in range(80)]
    layers[41] = difference(f"{TEXT}.41.mlp.up_proj.weight", nan, 1.0)
    [facts] = [part for part in comparison_report(comparison(*layers)) if isinstance(part, Facts)]
    assert facts.values["language model"].endswith("up to nan, in layer 41 of 80")
    assert facts.values["language model"].count("?") == 1
    assert isnan(by_component(comparison(*layers, difference("a.b", inf, 1.0)))["language model", ""].l2)


def test_a_distance_from_nothing_is_infinite():
    assert difference("a", 1.0, 0.0).relative == inf
    assert difference("a", 0.0, 0.0).relative == 0.0
    assert difference("a", 1.0, 0.0).as_json()["relative_l2"] == "inf"


def test_layers_that_did_not_change_or_are_not_there_are_zero():
    layers = by_layer(FOUND)
    assert layers["vision tower"] == [0.0]
    assert layers["language model"] == [0.3, 0.0, hypot(4, 1) / hypot(10, 1)]
    assert changes_as_json(FOUND)["layers"]["vision tower"] == [0.0]


def test_a_model_of_many_tensors_fits_on_a_screen():
    """The 241B model has 37,540 tensors."""
    experts = [
        f"{TEXT}.{layer}.mlp.experts.{n}.{p}_proj.weight" for layer in range(94) for n in range(128) for p in "ug"
    ]
    found = comparison(*(difference(key, 1.0, 2.0) for key in experts), missing=experts)
    parts = [*comparison_report(found)]
    rows = sum(len(part.rows) + 1 if isinstance(part, Table) else 1 for part in parts)
    assert rows < 24
    [bars] = [part for part in parts if isinstance(part, Facts)]
    assert len(bars.values["language model"].split()[0]) <= 48
    assert len([*comparison_report(found, every=True)]) > 2 * len(experts)


def test_few_differences_are_named_one_by_one_and_many_by_their_group():
    def tables(top: int) -> list[Table]:
        return [part for part in comparison_report(FOUND, top=top) if isinstance(part, Table)]

    assert tables(4)[1].header[0] == "Tensor"
    assert [row[0] for row in tables(2)[1].rows] == ["layers.*.self_attn.q_proj", "layers.*.mlp.up_proj"]
    assert "and 1 more groups of tensors; --top 3 shows them" in [*comparison_report(FOUND, top=2)]
    by_l2 = [part for part in comparison_report(FOUND, top=4, sort="l2") if isinstance(part, Table)][1]
    assert [row[2] for row in by_l2.rows] == ["4", "3", "1", "0"]
    assert "The vision tower is untouched: every bit is equal." in [*comparison_report(FOUND)]
