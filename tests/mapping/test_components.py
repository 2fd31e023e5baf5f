"""Which part of a model a tensor belongs to."""

import pytest
from mapping.spelled_twins import SPELLINGS, route_of, specs_as
from mapping_enumerator import LANGUAGES, sample

from internvl_bridge.mapping.components import OTHER, Place, place_of
from internvl_bridge.mapping.routes import plan_route
from internvl_bridge.mapping.spellings import CUSTOM, MOST_COMPATIBLE


@pytest.mark.parametrize(
    ("key", "component", "group", "layer"),
    [
        ("vision_model.embeddings.class_embedding", "vision tower", "embeddings", None),
        ("vision_model.encoder.layers.11.attn.qkv.weight", "vision tower", "attention", 11),
        ("model.vision_tower.encoder.layer.3.attention.q_norm.weight", "vision tower", "norms, scales", 3),
        ("vision_tower.encoder.layer.0.lambda_1", "vision tower", "norms, scales", 0),
        ("mlp1.3.bias", "projector", "", None),
        ("language_model.model.tok_embeddings.weight", "language model", "embeddings", None),
        ("language_model.model.layers.7.feed_forward.w2.weight", "language model", "MLP", 7),
        ("language_model.model.layers.7.mlp.gate_proj.weight", "language model", "MLP", 7),
        ("language_model.model.layers.7.mlp.gate.weight", "language model", "router", 7),
        ("model.language_model.layers.7.mlp.experts.down_proj", "language model", "experts", 7),
        ("language_model.model.layers.7.attention_norm.weight", "language model", "norms, scales", 7),
        ("language_model.model.norm.weight", "language model", "norms, scales", None),
        ("language_model.output.weight", "output head", "", None),
        ("lm_head.weight", "output head", "", None),
        ("optimizer.state.layers.5.exp_avg", "other tensors", "", 5),
        ("language_model.model.layers.99999.mlp.up_proj.weight", "language model", "MLP", None),
        ("weight", "other tensors", "", None),
        ("layers", "other tensors", "", None),
    ],
)
def test_places_written_by_hand(key, component, group, layer):
    assert place_of(key) == Place(component, group, layer)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_a_tensor_stays_in_its_place_in_every_spelling(language):
    twin = sample(language)
    for spelling in SPELLINGS:
        plan = plan_route(route_of(twin, spelling, CUSTOM), specs_as(twin, spelling))
        for key, recipe in plan.recipes.items():
            assert {place_of(run.key) for run in recipe.runs} == {place_of(key)}
            assert place_of(key).component != OTHER


def test_a_plan_can_be_restricted_to_one_layer():
    twin = sample("internlm2")
    plan = plan_route(route_of(twin, CUSTOM, MOST_COMPATIBLE), specs_as(twin, CUSTOM))
    part = plan.restricted(lambda key: place_of(key).layer == 0)
    assert part.recipes
    assert part.recipes.items() < plan.recipes.items()
    assert {place_of(run.key).layer for recipe in part.recipes.values() for run in recipe.runs} == {0}
