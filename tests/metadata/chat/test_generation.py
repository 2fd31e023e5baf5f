"""generation_config.json: a model that answers must also stop."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.metadata.chat.generation import hf_generation_config, with_turn_end

ids = st.integers(0, 99)
eos_values = st.one_of(st.none(), ids, st.lists(ids))


def as_list(eos: Any) -> list[int]:
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


@given(eos_values, ids)
def test_the_end_of_a_turn_is_among_them_and_nothing_is_lost(eos: Any, turn_end: int):
    ending = as_list(with_turn_end(eos, turn_end))
    assert turn_end in ending
    assert [number for number in ending if number in as_list(eos)] == as_list(eos)
    assert len(ending) <= 1 + len(as_list(eos))
    assert with_turn_end(with_turn_end(eos, turn_end), turn_end) == with_turn_end(eos, turn_end)


@given(eos_values)
def test_where_no_end_of_a_turn_is_known_nothing_changes(eos: Any):
    assert with_turn_end(eos, None) == eos


@pytest.mark.parametrize(
    ("eos", "expected"), [(None, 9), ([], 9), (9, 9), ([2, 9], [2, 9]), (2, [9, 2]), ([2, 3], [9, 2, 3])]
)
def test_one_id_stays_one_and_the_end_of_a_turn_comes_first(eos: Any, expected: Any):
    assert with_turn_end(eos, 9) == expected


def test_a_custom_one_keeps_what_it_says():
    custom = {"_from_model_config": True, "eos_token_id": 2, "temperature": 0.5, "transformers_version": "4.37.2"}
    made = hf_generation_config(custom, {"eos_token_id": 7, "bos_token_id": 1}, turn_end=9)
    assert made == {"eos_token_id": [9, 2], "temperature": 0.5, "transformers_version": "4.37.2"}
    assert "_from_model_config" in custom


def test_what_a_custom_one_does_not_say_of_the_end_the_language_model_does():
    assert hf_generation_config({"top_k": 5}, {"eos_token_id": 7, "bos_token_id": 1}, None) == {
        "top_k": 5,
        "eos_token_id": 7,
    }


def test_a_null_says_nothing_of_the_end_either():
    """A model whose generation config has a null there never stops in transformers."""
    assert hf_generation_config({"eos_token_id": None}, {"eos_token_id": 7}, None)["eos_token_id"] == 7


def test_without_one_the_language_models_tokens_are_taken():
    text = {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": None, "hidden_size": 64}
    assert hf_generation_config(None, text, 9) == {"bos_token_id": 1, "eos_token_id": [9, 2, 3]}
    assert hf_generation_config(None, {}, None) == {}
    assert hf_generation_config(None, {"pad_token_id": 0}, 9) == {"pad_token_id": 0, "eos_token_id": 9}


def test_the_padding_token_is_stated_by_whoever_knows_it_best():
    assert hf_generation_config({"pad_token_id": 1}, {"pad_token_id": 2}, None, pad=3) == {"pad_token_id": 1}
    assert hf_generation_config({}, {"pad_token_id": 2}, None, pad=3) == {"pad_token_id": 2}
    assert hf_generation_config({}, {}, None, pad=3) == {"pad_token_id": 3}
