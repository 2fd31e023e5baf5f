"""The output head that is a copy of the input embeddings: its names, and plans with and without it."""

import pytest
from mapping.spelled_twins import ALL_KEYS, every_language, family_of, route_of, specs_as
from mapping_enumerator import HEAD, laid_out, sample

from internvl_bridge.errors import ProofError
from internvl_bridge.mapping.families import FAMILIES, INTERNLM2, INTERNLM3_GROUPED, Family
from internvl_bridge.mapping.plan import Recipe, Run, TensorSpec, identity, invert
from internvl_bridge.mapping.routes import KeySpelling, plan_route
from internvl_bridge.mapping.spellings import CUSTOM
from internvl_bridge.mapping.tied_head import TiedHead, tied_head

EMBEDDINGS = "language_model.model.embed_tokens.weight"
TEXT = sample("qwen3_moe").dims.text
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
all_keys = pytest.mark.parametrize("keys", ALL_KEYS, ids=lambda keys: keys.name if keys else "custom")


def names(keys: KeySpelling, family: Family) -> TiedHead:
    """Both names, from the format description."""
    if keys != CUSTOM:
        return TiedHead(laid_out(EMBEDDINGS, keys.layout.name), laid_out(HEAD, keys.layout.name))
    if family in (INTERNLM2, INTERNLM3_GROUPED):
        return TiedHead("language_model.model.tok_embeddings.weight", "language_model.output.weight")
    return TiedHead(EMBEDDINGS, HEAD)


@every_family
@all_keys
def test_both_tensors_have_the_names_of_their_spelling(family: Family, keys: KeySpelling) -> None:
    assert tied_head(family, TEXT, keys) == names(keys, family)


@every_language
@all_keys
def test_both_tensors_are_those_of_the_model(language: str, keys: KeySpelling) -> None:
    twin = sample(language)
    tie = tied_head(family_of(twin), twin.dims.text, keys)
    specs = specs_as(twin, keys)

    assert specs[tie.head] == specs[tie.embeddings] == TensorSpec("BF16", (7, twin.dims.text.hidden))


@every_language
@all_keys
def test_a_model_without_the_copy_is_a_tied_one(language: str, keys: KeySpelling) -> None:
    twin = sample(language)
    tie, specs = tied_head(family_of(twin), twin.dims.text, keys), specs_as(twin, keys)
    before = dict(specs)

    assert tie.dropped(specs) == specs_as(sample(language, tied=True), keys)
    assert list(tie.dropped(specs)) == [key for key in specs if key != tie.head]
    assert specs == before
    assert tie.dropped(tie.dropped(specs)) == tie.dropped(specs)


@every_language
@pytest.mark.parametrize("source", ALL_KEYS, ids=lambda keys: keys.name if keys else "custom")
def test_a_copied_head_is_the_whole_embeddings(language: str, source: KeySpelling) -> None:
    tied, whole = sample(language, tied=True), sample(language)
    tie = tied_head(family_of(tied), tied.dims.text, CUSTOM)
    here = tied_head(family_of(tied), tied.dims.text, source)
    plan = plan_route(route_of(tied, source, CUSTOM), specs_as(tied, source))

    copied = tie.copied(plan)

    spec = TensorSpec("BF16", (7, tied.dims.text.hidden))
    assert copied.recipes == plan.recipes | {tie.head: Recipe(spec, (Run(here.embeddings, 0, spec.elements),))}
    assert copied.targets == whole.custom
    assert copied.sources == plan.sources
    assert tie.head not in plan.recipes
    with pytest.raises(ProofError, match=rf"^Element 0 of {here.embeddings} is used twice\."):
        invert(copied)


def test_a_head_that_is_there_is_replaced_by_the_copy() -> None:
    spec = TensorSpec("F16", (2, 3))
    specs = {"in": spec, "out": spec, "other": TensorSpec("F16", (1,))}

    plan = TiedHead("in", "out").copied(identity(specs))

    assert plan.targets == specs
    assert plan.recipes["out"] == plan.recipes["in"] == Recipe(spec, (Run("in", 0, 6),))
    assert plan.recipes["other"] == identity(specs).recipes["other"]


def test_nothing_to_drop_drops_nothing() -> None:
    specs = {"in": TensorSpec("F16", (2, 3))}

    assert TiedHead("in", "out").dropped(specs) == specs
