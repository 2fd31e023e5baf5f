"""Of several models in one dump, the one that is meant is taken, or all of them are named."""

import pytest

from internvl_bridge.errors import CheckpointError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.several_models import chosen_model, model_keys_in, several_models

CUSTOM, HF = (model_keys_in(format_) for format_ in (Format.CUSTOM, Format.HF))
KEYS = ("mlp1.0.weight", "vision_model.a", "language_model.b")


def under(*prefixes: str) -> list[str]:
    return [f"{prefix}{key}" for prefix in prefixes for key in KEYS]


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (under(""), ""),
        (under("model."), "model."),
        ([*under("app.model."), "optim.step"], "app.model."),
        ([*under("model."), "model.optim.mlp1.0.weight"], "model."),
        (["anything.else"], ""),
    ],
)
def test_an_only_model_is_taken(keys: list[str], prefix: str) -> None:
    assert chosen_model("x", keys, CUSTOM, None) == {
        key: key.removeprefix(prefix) for key in keys if key in under(prefix) or not prefix
    }


@pytest.mark.parametrize(
    ("prefixes", "named"),
    [(("actor.", "critic."), "actor"), (("ema.", "model."), "model"), (("", "ema_model."), "."), (("a.", "b."), "a")],
)
def test_of_several_the_likely_one_is_offered_and_each_can_be_chosen(prefixes: tuple[str, ...], named: str) -> None:
    keys = under(*prefixes)
    with pytest.raises(CheckpointError, match=f"x holds 2 models .*--state-dict {named} "):
        chosen_model("x", keys, CUSTOM, None)
    for prefix in prefixes:
        chosen = chosen_model("x", keys, CUSTOM, prefix.removesuffix(".") or ".")
        assert chosen == {f"{prefix}{key}": key for key in KEYS}


@pytest.mark.parametrize(("keys", "known"), [(under("model."), "model"), (["optim.a", "optim.b"], "optim")])
def test_a_name_that_is_not_there_is_answered_with_those_that_are(keys: list[str], known: str) -> None:
    with pytest.raises(CheckpointError, match=f"does not hold a state dict 'ema'. It holds {known}\\."):
        chosen_model("x", keys, CUSTOM, "ema")


def test_any_prefix_can_be_chosen_by_name() -> None:
    keys = ["odd.a", "odd.b", "mlp1.x"]
    assert chosen_model("x", keys, CUSTOM, "odd") == {"odd.a": "a", "odd.b": "b"}


def test_parts_behind_several_prefixes_are_named_and_states_of_optimizers_are_not() -> None:
    keys = ["a.mlp1.0.weight", "model.vision_model.a", "optim.state.mlp1.0.weight.exp_avg"]
    with pytest.raises(CheckpointError, match=r"x holds parts of a model under several names: a, model\."):
        chosen_model("x", keys, CUSTOM, None)
    assert chosen_model("x", [keys[0], keys[2]], CUSTOM, None) == {keys[0]: "mlp1.0.weight"}


def test_what_is_left_may_share_a_little() -> None:
    keys = [*under("model."), "other.mlp1.0.weight"]
    assert chosen_model("x", keys, CUSTOM, None).keys() == {*under("model.")}


def test_a_second_copy_at_the_top_is_named() -> None:
    keys = [*under("model."), *KEYS, "value_head.weight"]
    with pytest.raises(CheckpointError, match=r"x holds 2 models with the same keys: model, \."):
        chosen_model("x", keys, CUSTOM, None)
    assert chosen_model("x", keys, CUSTOM, ".") == {key: key for key in (*KEYS, "value_head.weight")}


def test_the_refusal_counts_and_names_all() -> None:
    assert "holds 3 models with the same keys: b, a_ema, critic." in str(several_models("x", ["a_ema", "critic", "b"]))


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (["lm_head.weight", "model.vision_tower.a"], True),
        (["language_model.lm_head.weight", "vision_tower.a"], True),
        (["model.vision_tower.a", "vision_tower.b"], False),
        (["vision_model.a"], False),
    ],
)
def test_keys_are_those_of_a_model_if_one_layout_explains_them(keys: list[str], found: bool) -> None:
    assert HF(keys) is found
