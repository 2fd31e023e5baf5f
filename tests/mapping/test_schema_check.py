"""Tensors compared with what config.json describes: the words of each disagreement."""

import pytest

from internvl_bridge.errors import ContradictionError, MissingKeyError
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.schema_check import check_against, counted_parts, part_of

Shapes = dict[str, tuple[int, ...]]


def layered(stack: str, count: int) -> Shapes:
    return {f"{stack}.{number}.ls1": (2,) for number in range(count)}


def check(expected: Shapes, found: Shapes) -> None:
    check_against(expected, {key: TensorSpec("BF16", shape) for key, shape in found.items()})


def test_what_agrees_is_accepted_in_any_order() -> None:
    check({"a": (1,), "b": (2, 3)}, {"b": (2, 3), "a": (1,)})


def test_one_missing_tensor_is_named() -> None:
    with pytest.raises(MissingKeyError, match=r"^config\.json describes b, but the checkpoint does not have it\. "):
        check({"a": (1,), "b": (1,)}, {"a": (1,)})


def test_many_missing_tensors_are_counted() -> None:
    with pytest.raises(MissingKeyError, match=r"describes a, b, c and 2 more tensors, .* does not have them\."):
        check(dict.fromkeys("edcba", (1,)), {})


@pytest.mark.parametrize("head", ["language_model.lm_head.weight", "language_model.output.weight", "lm_head.weight"])
def test_a_missing_head_may_be_a_tied_one(head: str) -> None:
    with pytest.raises(MissingKeyError) as error:
        check({"a": (1,), head: (1,)}, {"a": (1,)})

    assert "set tie_word_embeddings to true" in error.value.remedy


def test_a_missing_head_among_others_is_an_incomplete_checkpoint() -> None:
    with pytest.raises(MissingKeyError) as error:
        check({"a": (1,), "language_model.lm_head.weight": (1,)}, {})

    assert error.value.remedy.startswith("The checkpoint is incomplete: save or download it again. If a trainer")


def test_what_is_missing_is_counted_part_by_part() -> None:
    tower = [f"vision_tower.{name}" for name in "abc"]
    keys = [*tower, "model.language_model.x", "lm_head.weight"]
    assert counted_parts(tower[:2], keys) == "2 of 3 tensors of the vision tower"
    assert counted_parts([*tower, "lm_head.weight"], keys) == "3 of 3 tensors of the vision tower and lm_head.weight"


def test_a_part_of_which_nothing_is_there_is_named_whole() -> None:
    tower = {f"vision_tower.{name}": (1,) for name in "ab"}
    with pytest.raises(MissingKeyError) as error:
        check({"a": (1,), **tower}, {"a": (1,)})

    assert "describes the vision tower (2 of 2 tensors), but the checkpoint has none" in error.value.reason


@pytest.mark.parametrize(("extra", "pronoun"), [("x", "it"), ("xy", "them")])
def test_tensors_that_config_json_does_not_describe_are_named(extra: str, pronoun: str) -> None:
    with pytest.raises(ContradictionError) as error:
        check({"a": (1,)}, dict.fromkeys(["a", *extra], (1,)))

    named = ", ".join(extra)
    assert error.value.reason == (f"The checkpoint has {named}, but config.json describes a model without {pronoun}.")


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), ()])
def test_another_shape_is_named_beside_the_described_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContradictionError) as error:
        check({"a": (2, 3)}, {"a": shape})

    assert error.value.reason == f"a has shape {list(shape)}, but config.json describes [2, 3]."


@pytest.mark.parametrize(
    "stack", ["vision_model.encoder.layers", "vision_tower.encoder.layer", "language_model.model.layers"]
)
@pytest.mark.parametrize(("description", "found"), [(2, 3), (3, 2)])
def test_another_number_of_layers_is_said_as_such(stack: str, description: int, found: int) -> None:
    with pytest.raises(ContradictionError) as error:
        check(layered(stack, description), layered(stack, found))

    assert error.value.reason == (
        f"The checkpoint has {found} layers {stack}.*, but config.json says num_hidden_layers is {description}."
    )


def test_a_whole_missing_stack_is_missing_tensors() -> None:
    with pytest.raises(MissingKeyError, match=r"describes a\.layers\.0\.ls1, "):
        check(layered("a.layers", 2), {})


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("model.vision_tower.embeddings.cls_token", "vision tower"),
        ("mlp1.0.bias", "projector"),
        ("language_model.model.norm.weight", "language model"),
        ("lm_head.weight", "language model"),
    ],
)
def test_every_tensor_is_of_a_part(key: str, part: str):
    assert part_of(key) == part
