"""The HF spellings: what each looks like, how it is recognised, and whose names errors speak."""

import pytest
from mapping_enumerator import HEAD, sample

from internvl_bridge.errors import ContradictionError, IncompleteGroupError, UnknownKeyError
from internvl_bridge.mapping.families import QWEN2
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.planning import Direction, make_plan
from internvl_bridge.mapping.spellings import (
    L1,
    L2,
    L3,
    SPELLINGS,
    Spelling,
    detect_spelling,
    respell,
    spelled,
    spelling_of,
)

TWIN = sample("qwen2")
EXAMPLES = {
    "L1": (
        "language_model.model.embed_tokens.weight",
        "language_model.lm_head.weight",
        "vision_tower.embeddings.cls_token",
        "multi_modal_projector.linear_1.bias",
    ),
    "L2": (
        "model.language_model.embed_tokens.weight",
        "lm_head.weight",
        "model.vision_tower.embeddings.cls_token",
        "model.multi_modal_projector.linear_1.bias",
    ),
    "L3": (
        "model.language_model.model.embed_tokens.weight",
        "language_model.lm_head.weight",
        "model.vision_tower.embeddings.cls_token",
        "model.multi_modal_projector.linear_1.bias",
    ),
}
every_spelling = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.name)


@every_spelling
def test_keys_are_spelled_as_transformers_writes_them(spelling: Spelling) -> None:
    spec = TensorSpec("BF16", (1,))

    plan = respell(dict.fromkeys(EXAMPLES["L1"], spec), L1, spelling)

    came_from = {key: recipe.runs[0].key for key, recipe in plan.recipes.items()}
    assert came_from == dict(zip(EXAMPLES[spelling.name], EXAMPLES["L1"], strict=True))


@every_spelling
@pytest.mark.parametrize("tied", [False, True])
def test_a_spelling_is_recognised_with_and_without_a_head(spelling: Spelling, tied: bool) -> None:
    keys = [key for key in EXAMPLES[spelling.name] if not (tied and key.endswith("lm_head.weight"))]

    assert detect_spelling(keys) is spelling


def test_no_keys_at_all_have_the_portable_spelling() -> None:
    assert detect_spelling([]) is L1


def in_two_spellings(most: Spelling, norm: Spelling) -> dict[str, TensorSpec]:
    """A model spelled as ``most``, but for one norm of the language model."""
    key = "language_model.model.norm.weight"
    rest = {name: spec for name, spec in TWIN.hf.items() if name != key}
    return respell(rest, L1, most).targets | respell({key: TWIN.hf[key]}, L1, norm).targets


@pytest.mark.parametrize(
    ("most", "norm"), [(L1, L2), (L1, L3), (L2, L1), (L3, L1), (L3, L2)], ids=lambda spelling: spelling.name
)
def test_a_mixture_of_spellings_is_none(most: Spelling, norm: Spelling) -> None:
    assert detect_spelling(in_two_spellings(most, norm)) is None


def test_the_mixture_that_passes_for_l2_is_refused_by_the_table() -> None:
    """L2's pattern for the language model has room for L3's names, but no row has."""
    specs = in_two_spellings(L2, L3)

    assert detect_spelling(specs) is L2
    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor model\.language_model\.model\.norm\.weight: "):
        make_plan(spelled(QWEN2.table(TWIN.dims.text), L2), specs, Direction.TO_CUSTOM)


def test_foreign_keys_have_no_spelling() -> None:
    assert detect_spelling(["vision_model.embeddings.class_embedding"]) is None
    assert detect_spelling([*EXAMPLES["L1"], "x"]) is None


@every_spelling
def test_respelling_into_the_same_spelling_changes_nothing(spelling: Spelling) -> None:
    specs = respell(TWIN.hf, L1, spelling).targets

    assert respell(specs, spelling, spelling).targets == specs


def test_respelling_names_the_key_that_is_not_of_the_spelling() -> None:
    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor vision_tower\.x: "):
        respell({"vision_tower.x": TensorSpec("BF16", (1,))}, L2, L1)


@pytest.mark.parametrize("spelling", [L2, L3], ids=lambda spelling: spelling.name)
class TestRefusalsNameTheKeysOfTheCheckpoint:
    """Not those of the portable spelling, which the user's files do not have."""

    def specs(self, spelling: Spelling) -> dict[str, TensorSpec]:
        return respell(TWIN.hf, L1, spelling).targets

    def plan(self, specs: dict[str, TensorSpec], spelling: Spelling) -> None:
        make_plan(spelled(QWEN2.table(TWIN.dims.text), spelling), specs, Direction.TO_CUSTOM)

    def test_an_unknown_key(self, spelling: Spelling) -> None:
        key = "model.vision_tower.encoder.layer.0.odd"
        specs = {**self.specs(spelling), key: TensorSpec("BF16", (1,))}

        with pytest.raises(UnknownKeyError, match=rf"^Unknown tensor {key}: "):
            self.plan(specs, spelling)

    def test_a_missing_part(self, spelling: Spelling) -> None:
        specs = self.specs(spelling)
        key = "model.vision_tower.encoder.layer.0.attention.k_proj.weight"
        del specs[key]

        with pytest.raises(IncompleteGroupError, match=rf"(^|\s){key} is missing"):
            self.plan(specs, spelling)

    def test_parts_of_different_dtypes(self, spelling: Spelling) -> None:
        specs = self.specs(spelling)
        key = "model.vision_tower.encoder.layer.0.attention.k_proj.weight"
        specs[key] = TensorSpec("F32", specs[key].shape)

        with pytest.raises(ContradictionError, match=rf"\s{key} F32"):
            self.plan(specs, spelling)


def test_the_head_is_an_ordinary_tensor_of_every_spelling() -> None:
    assert HEAD in TWIN.hf
    assert "lm_head.weight" in respell(TWIN.hf, L1, L2).targets
    assert HEAD in respell(TWIN.hf, L1, L3).targets


def test_the_spelling_of_keys_is_the_one_that_explains_them_all() -> None:
    assert spelling_of(["vision_tower.x", "language_model.model.norm.weight"]) is L1
    assert spelling_of(["model.vision_tower.x", "model.language_model.norm.weight", "lm_head.weight"]) is L2
    assert spelling_of(["model.vision_tower.x", "model.language_model.model.norm.weight"]) is L3


@pytest.mark.parametrize(
    ("keys", "odd"),
    [
        (["vision_tower.x", "multi_modal_projector.x", "mlp2.0.weight"], "mlp2.0.weight"),
        (["model.vision_tower.x", "model.language_model.norm.weight", "vision_tower.y"], "vision_tower.y"),
        (["vision_tower.x", "vision_tower.y", "lm_head.weight"], "lm_head.weight"),
    ],
)
def test_keys_that_no_spelling_explains_are_refused_by_the_nearest_one(keys: list[str], odd: str) -> None:
    with pytest.raises(UnknownKeyError, match=f"^Unknown tensor {odd}: "):
        spelling_of(keys)
