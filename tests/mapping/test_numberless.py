"""Names without the numbers of layers and experts, and the names of first experts."""

import pytest

from internvl_bridge.mapping.dimensions import ExpertDims, TextDims
from internvl_bridge.mapping.families import QWEN3_MOE
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import unmatched_keys
from internvl_bridge.mapping.numberless import of_first_expert

EXPERT = "language_model.model.layers.7.mlp.experts.{}.up_proj.weight"
DIMS = TextDims(7, 5, 6, 8, 4, 2, 3, False, False, ExpertDims(4000, 3, 1, frozenset()))


@pytest.mark.parametrize("number", ["0", "31", "1023"])
def test_experts_go_like_the_first_one(number: str) -> None:
    assert of_first_expert(EXPERT.format(number)) == EXPERT.format(0)


@pytest.mark.parametrize("number", ["", "*", "007", "-1", "²", "1024"])
def test_what_is_no_usual_number_stays(number: str) -> None:
    assert of_first_expert(EXPERT.format(number)) == EXPERT.format(number)


@pytest.mark.parametrize("key", ["a.experts.3", "a.experts.gate_up_proj", "experts.3.b", "a.layers.3.b"])
def test_what_is_no_tensor_of_an_expert_stays(key: str) -> None:
    assert of_first_expert(key) == key


def test_an_odd_number_is_not_claimed_although_the_first_expert_is() -> None:
    keys = [EXPERT.format(number) for number in (0, 1, "007", "*", 1024, "³")]

    assert unmatched_keys(QWEN3_MOE.table(DIMS), Format.HF, keys) == [keys[2], keys[3], keys[5]]
