"""Routes: what they start from, and that every way leads over the custom format's names."""

import pytest
from mapping.spelled_twins import SPELLINGS, every_spelling, route_of, specs_as
from mapping_enumerator import sample

from internvl_bridge.errors import ContradictionError, IncompleteGroupError, UnknownKeyError
from internvl_bridge.mapping.families import INTERNLM2, QWEN3_MOE, Experts
from internvl_bridge.mapping.plan import Recipe, Run, TensorSpec, identity
from internvl_bridge.mapping.routes import Route, plan_route, renamed
from internvl_bridge.mapping.spellings import CUSTOM, L1, L2, L3, MOST_COMPATIBLE, KeySpelling, spelled_table

TWIN = sample("qwen3_moe")
TEXT = TWIN.dims.text
LAYER = "language_model.model.layers.0.mlp.experts"
STACKED = KeySpelling(L1, Experts.FUSED)


def test_the_reverse_of_a_route_is_the_way_back() -> None:
    route = Route(QWEN3_MOE, TEXT, CUSTOM, STACKED)

    assert route.reverse == Route(QWEN3_MOE, TEXT, STACKED, CUSTOM)
    assert route.reverse.reverse == route


@every_spelling
@pytest.mark.parametrize("target", [CUSTOM, *SPELLINGS], ids=lambda keys: keys.name)
def test_hf_keys_enter_by_the_table_of_their_own_spelling(spelling: KeySpelling, target: KeySpelling) -> None:
    assert Route(QWEN3_MOE, TEXT, spelling, target).first_table == spelled_table(QWEN3_MOE, TEXT, spelling)


@every_spelling
def test_custom_keys_enter_by_the_table_of_the_spelling_that_they_shall_have(spelling: KeySpelling) -> None:
    assert Route(QWEN3_MOE, TEXT, CUSTOM, spelling).first_table == spelled_table(QWEN3_MOE, TEXT, spelling)


def test_custom_keys_that_stay_are_claimed_by_no_row() -> None:
    assert Route(QWEN3_MOE, TEXT, CUSTOM, CUSTOM).first_table == ()


def test_custom_keys_that_stay_are_not_even_looked_at() -> None:
    specs = {"anything": TensorSpec("F32", (3,))}

    assert plan_route(Route(INTERNLM2, TEXT, CUSTOM, CUSTOM), specs) == identity(specs)


def test_experts_are_stacked_on_the_way_between_hf_spellings() -> None:
    """Written by hand: 2 experts, M = 4, H = 5."""
    old, new = f"model.{LAYER}", LAYER.replace("language_model.model", "model.language_model")
    specs = specs_as(TWIN, KeySpelling(L3))

    plan = plan_route(route_of(TWIN, KeySpelling(L3), KeySpelling(L2, Experts.FUSED)), specs)

    assert plan.recipes[f"{new}.gate_up_proj"] == Recipe(
        TensorSpec("BF16", (2, 8, 5)),
        (
            Run(f"{old}.0.gate_proj.weight", 0, 20),
            Run(f"{old}.0.up_proj.weight", 0, 20),
            Run(f"{old}.1.gate_proj.weight", 0, 20),
            Run(f"{old}.1.up_proj.weight", 0, 20),
        ),
    )
    assert plan.recipes[f"{new}.down_proj"] == Recipe(
        TensorSpec("BF16", (2, 5, 4)),
        (Run(f"{old}.0.down_proj.weight", 0, 20), Run(f"{old}.1.down_proj.weight", 0, 20)),
    )


def test_experts_are_split_on_the_way_between_hf_spellings() -> None:
    specs = specs_as(TWIN, STACKED)

    plan = plan_route(route_of(TWIN, STACKED, MOST_COMPATIBLE), specs)

    assert [plan.recipes[f"{LAYER}.1.{role}_proj.weight"] for role in ("gate", "up", "down")] == [
        Recipe(TensorSpec("BF16", (4, 5)), (Run(f"{LAYER}.gate_up_proj", 40, 60),)),
        Recipe(TensorSpec("BF16", (4, 5)), (Run(f"{LAYER}.gate_up_proj", 60, 80),)),
        Recipe(TensorSpec("BF16", (5, 4)), (Run(f"{LAYER}.down_proj", 20, 40),)),
    ]


def test_stacks_that_are_only_renamed_stay_whole() -> None:
    target = KeySpelling(L3, Experts.FUSED)

    plan = plan_route(route_of(TWIN, STACKED, target), specs_as(TWIN, STACKED))

    assert plan.recipes[f"model.{LAYER}.gate_up_proj"] == Recipe(
        TensorSpec("BF16", (2, 8, 5)), (Run(f"{LAYER}.gate_up_proj", 0, 80),)
    )


@every_spelling
def test_a_part_of_a_model_may_be_on_the_way(spelling: KeySpelling) -> None:
    towers = {key: spec for key, spec in TWIN.custom.items() if not key.startswith("language_model.")}

    plan = plan_route(route_of(TWIN, CUSTOM, spelling), towers)

    assert plan.targets == {
        key: spec for key, spec in specs_as(TWIN, spelling).items() if "vision_tower" in key or "projector" in key
    }


@every_spelling
def test_keys_of_the_custom_format_are_none_of_hf_and_the_other_way_round(spelling: KeySpelling) -> None:
    custom = {key: spec for key, spec in TWIN.custom.items() if key.startswith("vision_model.")}
    hf = {key: spec for key, spec in specs_as(TWIN, spelling).items() if "vision_tower." in key}

    with pytest.raises(UnknownKeyError, match=rf"^Unknown tensor {next(iter(custom))}, "):
        plan_route(route_of(TWIN, spelling, CUSTOM), custom)
    with pytest.raises(UnknownKeyError, match=rf"^Unknown tensor {next(iter(hf))}, "):
        plan_route(route_of(TWIN, CUSTOM, spelling), hf)


@pytest.mark.parametrize("layout", [L1, L2, L3], ids=lambda layout: layout.name)
def test_on_the_way_to_stacks_errors_name_experts_as_the_custom_format_does(layout) -> None:
    specs = specs_as(TWIN, KeySpelling(L2))
    route = route_of(TWIN, KeySpelling(L2), KeySpelling(layout, Experts.FUSED))
    key = "model.language_model.layers.1.mlp.experts.1.gate_proj.weight"
    odd = specs | {key: TensorSpec("F32", specs[key].shape)}
    missing = {name: spec for name, spec in specs.items() if name != key}
    custom = key.replace("model.language_model.", "language_model.model.")

    with pytest.raises(IncompleteGroupError, match=rf"^{custom} is missing"):
        plan_route(route, missing)
    with pytest.raises(ContradictionError, match=rf"{custom} F32"):
        plan_route(route, odd)


@pytest.mark.parametrize(
    ("source", "target", "old", "new"),
    [
        (MOST_COMPATIBLE, CUSTOM, "language_model.lm_head.weight", "language_model.output.weight"),
        (CUSTOM, MOST_COMPATIBLE, "language_model.output.weight", "language_model.lm_head.weight"),
        (CUSTOM, KeySpelling(L2), "language_model.output.weight", "lm_head.weight"),
        (KeySpelling(L2), KeySpelling(L3), "lm_head.weight", "language_model.lm_head.weight"),
        (KeySpelling(L3), STACKED, "model.vision_tower.embeddings.cls_token", "vision_tower.embeddings.cls_token"),
        (CUSTOM, CUSTOM, "anything", "anything"),
    ],
)
def test_one_tensor_has_a_name_at_each_end(source: KeySpelling, target: KeySpelling, old: str, new: str) -> None:
    assert renamed(Route(INTERNLM2, TEXT, source, target), old) == new
