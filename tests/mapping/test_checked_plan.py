"""A plan is made only for exactly the tensors that config.json describes, and only if it can be undone."""

from dataclasses import replace
from typing import Any

import pytest
from metadata.describing import CUSTOM, changed, described
from support import DATA

from internvl_bridge.byte_plan import specs_of
from internvl_bridge.checked_plan import CheckedPlan, checked_plan
from internvl_bridge.errors import (
    ContradictionError,
    IncompleteGroupError,
    MissingKeyError,
    ProofError,
    UnknownKeyError,
    UnsupportedModelError,
)
from internvl_bridge.mapping.families import INTERNLM3_GROUPED, Family
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.plan import Recipe, Run, TensorSpec, compose, is_identity
from internvl_bridge.mapping.planning import Direction
from internvl_bridge.mapping.spellings import L1, L2, L3, SPELLINGS, Spelling
from internvl_bridge.mapping.transforms import Rename
from internvl_bridge.metadata.described import Described
from internvl_bridge.metadata.translation import TensorFacts, TokenFacts, to_hf_config
from internvl_bridge.storage.checkpoint import open_checkpoint

TO_HF, TO_CUSTOM = Direction.TO_HF, Direction.TO_CUSTOM
Specs = dict[str, TensorSpec]

HEADS = {L1: "language_model.lm_head.weight", L2: "lm_head.weight", L3: "language_model.lm_head.weight"}
NORMS = {
    L1: "language_model.model.norm.weight",
    L2: "model.language_model.norm.weight",
    L3: "model.language_model.model.norm.weight",
}
TOWERS = {L1: "vision_tower", L2: "model.vision_tower", L3: "model.vision_tower"}
every_spelling = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.name)


def specs_at(name: str) -> Specs:
    return dict(specs_of(open_checkpoint(DATA / "custom" / name)))


def custom_of(name: str = "qwen2-300m", section: str | None = None, **values: Any) -> Described:
    return described(changed(CUSTOM[name].values, section, **values), specs_at(name))


def to_hf(model: Described, specs: Specs, spelling: Spelling = L1) -> CheckedPlan:
    return checked_plan(model, specs, TO_HF, spelling)


def hf_of(name: str = "qwen2-300m", spelling: Spelling = L1, **text: Any) -> tuple[Described, Specs]:
    """The HF twin of a stored checkpoint: its description and its tensors."""
    custom = custom_of(name)
    plan = to_hf(custom, specs_at(name), spelling)
    config = to_hf_config(custom, TensorFacts(plan.tied, plan.mxfp4, "bfloat16"), TokenFacts(590), None)
    return described(changed(config, "text_config", **text), twin=custom.family), plan.plan.targets


@every_spelling
@pytest.mark.parametrize("name", CUSTOM)
def test_every_stored_checkpoint_has_a_plan_and_a_way_back(name: str, spelling: Spelling) -> None:
    there = to_hf(custom_of(name), specs_at(name), spelling)
    hf, specs = hf_of(name, spelling)

    back = checked_plan(hf, specs, TO_CUSTOM, spelling)

    assert is_identity(compose(back.plan, there.plan))
    assert there.tied is back.tied is name.endswith("-tied")
    assert there.mxfp4 is back.mxfp4 is False


def test_experts_in_blocks_are_noticed() -> None:
    specs = specs_at("gptoss-300m")
    for key in [key for key in specs if key.endswith(("gate_up_proj", "down_proj"))]:
        count, inputs, outputs = specs.pop(key).shape
        specs[f"{key}_blocks"] = TensorSpec("U8", (count, outputs, inputs // 32, 16))
        specs[f"{key}_scales"] = TensorSpec("U8", (count, outputs, inputs // 32))

    assert to_hf(custom_of("gptoss-300m"), specs).mxfp4 is True


@pytest.mark.parametrize("shape", [(0,), (0, 64), (64, 0, 3)])
@pytest.mark.parametrize("key", ["language_model.model.norm.weight", "vision_model.encoder.layers.0.attn.qkv.weight"])
def test_a_tensor_without_elements_is_refused(key: str, shape: tuple[int, ...]) -> None:
    specs = specs_at("qwen2-300m") | {key: TensorSpec("BF16", shape)}

    with pytest.raises(ContradictionError) as error:
        to_hf(custom_of(), specs)

    assert error.value.reason == f"{key} has shape {list(shape)}, which holds nothing."


@pytest.mark.parametrize("count", [10_000, 2**31 - 1])
@pytest.mark.parametrize(
    ("section", "name", "said"),
    [
        ("llm_config", "num_hidden_layers", "num_hidden_layers"),
        ("vision_config", "num_hidden_layers", "vision_config's num_hidden_layers"),
        ("llm_config", "num_experts", "num_experts of all layers together"),
    ],
)
def test_a_count_beyond_the_number_of_tensors_is_refused_at_once(
    section: str, name: str, said: str, count: int
) -> None:
    model, specs = custom_of("qwen3moe-6b", section, **{name: count}), specs_at("qwen3moe-6b")
    total = 2 * count if name == "num_experts" else count

    with pytest.raises(ContradictionError) as error:
        to_hf(model, specs)

    assert f"says that {said} is {total}, but the checkpoint has only {len(specs)} tensors" in error.value.reason


@pytest.mark.parametrize(
    "dense",
    [{"mlp_only_layers": [2, 3]}, {"mlp_only_layers": [-1, -2]}, {"decoder_sparse_step": 2, "mlp_only_layers": [0]}],
    ids=["beyond", "negative", "dense anyway"],
)
def test_dense_layers_that_are_none_do_not_hide_an_absurd_number_of_experts(dense: dict[str, Any]) -> None:
    model = custom_of("qwen3moe-6b", "llm_config", num_experts=5_000, **dense)

    with pytest.raises(ContradictionError, match="says that num_experts of all layers together is"):
        to_hf(model, specs_at("qwen3moe-6b"))


def test_layers_without_experts_do_not_count() -> None:
    model = custom_of("qwen3moe-6b", "llm_config", num_experts=2**31 - 1, mlp_only_layers=[0, 1])

    with pytest.raises(MissingKeyError, match=r"describes language_model\.model\.layers\.0\.mlp\.down_proj\.weight"):
        to_hf(model, specs_at("qwen3moe-6b"))


def test_an_untied_model_must_have_a_head() -> None:
    specs = specs_at("qwen2-300m")
    del specs["language_model.lm_head.weight"]

    with pytest.raises(MissingKeyError, match=r"^config\.json describes language_model\.lm_head\.weight, but"):
        to_hf(custom_of(), specs)
    assert to_hf(custom_of(tie_word_embeddings=True), specs).tied is True
    assert to_hf(custom_of(section="llm_config", tie_word_embeddings=True), specs).tied is True


def test_the_missing_head_of_an_internlm2_is_named_as_its_owner_knows_it() -> None:
    specs = specs_at("internlm2-300m")
    del specs["language_model.output.weight"]

    with pytest.raises(MissingKeyError, match=r"describes language_model\.output\.weight, .* set tie_word_embeddings"):
        to_hf(custom_of("internlm2-300m"), specs)


def test_a_head_in_spite_of_a_tie_flag_is_a_head() -> None:
    assert to_hf(custom_of(tie_word_embeddings=True), specs_at("qwen2-300m")).tied is False


@every_spelling
def test_an_untied_hf_model_must_have_a_head_and_a_tied_one_need_not(spelling: Spelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    del specs[HEADS[spelling]]

    with pytest.raises(MissingKeyError) as error:
        checked_plan(hf, specs, TO_CUSTOM, spelling)

    assert error.value.reason.startswith(f"config.json describes {HEADS[spelling]}, but")
    tied, _ = hf_of(spelling=spelling, tie_word_embeddings=True)
    assert checked_plan(tied, specs, TO_CUSTOM, spelling).tied is True


@every_spelling
def test_a_missing_tensor_is_named_in_the_spelling_at_hand(spelling: Spelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    del specs[NORMS[spelling]]

    with pytest.raises(MissingKeyError) as error:
        checked_plan(hf, specs, TO_CUSTOM, spelling)

    assert error.value.reason.startswith(f"config.json describes {NORMS[spelling]}, but")


@every_spelling
def test_a_tensor_of_another_shape_is_named_in_the_spelling_at_hand(spelling: Spelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    specs[NORMS[spelling]] = TensorSpec("BF16", (65,))

    with pytest.raises(ContradictionError) as error:
        checked_plan(hf, specs, TO_CUSTOM, spelling)

    assert error.value.reason == f"{NORMS[spelling]} has shape [65], but config.json describes [64]."


@every_spelling
def test_a_missing_part_of_a_fused_tensor_is_named_in_the_spelling_at_hand(spelling: Spelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    key = f"{TOWERS[spelling]}.encoder.layer.1.attention.k_proj.bias"
    del specs[key]

    with pytest.raises(IncompleteGroupError) as error:
        checked_plan(hf, specs, TO_CUSTOM, spelling)

    assert error.value.reason.startswith(f"{key} is missing, but")


@every_spelling
def test_custom_tensors_are_named_as_they_are_whatever_is_written(spelling: Spelling) -> None:
    key = "vision_model.encoder.layers.1.attn.qkv.bias"
    specs = specs_at("qwen2-300m")
    missing = {name: spec for name, spec in specs.items() if name != key}
    odd = specs | {key: TensorSpec("BF16", (99,))}

    with pytest.raises(MissingKeyError, match=rf"^config\.json describes {key}, but"):
        to_hf(custom_of(), missing, spelling)
    with pytest.raises(ContradictionError, match=rf"^{key} has shape \[99\], but config\.json describes \[96\]\."):
        to_hf(custom_of(), odd, spelling)


def test_a_tensor_that_config_json_does_not_describe_is_refused() -> None:
    key = "vision_model.encoder.layers.0.attn.q_norm.weight"
    specs = specs_at("qwen2-300m") | {key: TensorSpec("BF16", (32,))}

    with pytest.raises(
        ContradictionError, match=f"^The checkpoint has {key}, but config.json describes a model without"
    ):
        to_hf(custom_of(), specs)


def test_a_foreign_tensor_is_refused() -> None:
    specs = specs_at("qwen2-300m") | {"mlp2.0.weight": TensorSpec("BF16", (32,))}

    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor mlp2\.0\.weight: "):
        to_hf(custom_of(), specs)


def test_an_internlm3_with_grouped_biases_is_refused_in_words_about_its_own_tensors() -> None:
    """Its MLP biases have no row: the keys of HF's Llama are none that its owner has ever seen."""
    model = replace(
        described(
            changed(
                CUSTOM["internlm2-300m"].values,
                "llm_config",
                architectures=["InternLM3ForCausalLM"],
                qkv_bias=True,
                bias=True,
            )
        ),
        family=INTERNLM3_GROUPED,
    )
    specs = specs_at("internlm2-300m")

    with pytest.raises((MissingKeyError, ContradictionError, UnsupportedModelError)) as error:
        to_hf(model, specs)

    assert "mlp.gate_proj" not in error.value.reason


def test_what_cannot_be_expressed_is_refused_first() -> None:
    with pytest.raises(UnsupportedModelError, match="has ps_version 'v1'"):
        to_hf(custom_of(ps_version="v1"), {})


class Turned(Rename):
    """Moves the first element to the end on the way there, and forgets to move it on the way back."""

    def forward(self, specs: Any) -> dict[str, Recipe]:
        return {
            key: Recipe(recipe.spec, (Run(run.key, 1, run.stop), Run(run.key, 0, 1)))
            for key, recipe in super().forward(specs).items()
            for run in recipe.runs
        }


class Halved(Rename):
    """Loses the second half of every tensor."""

    def forward(self, specs: Any) -> dict[str, Recipe]:
        return {
            key: Recipe(recipe.spec, (Run(run.key, 0, run.stop // 2),) * 2)
            for key, recipe in super().forward(specs).items()
            for run in recipe.runs
        }


@pytest.mark.parametrize(
    ("row", "direction", "said"),
    [
        (Turned, TO_HF, "Converting back would not restore language_model.model.norm.weight."),
        (Turned, TO_CUSTOM, "Converting back would not restore language_model.model.norm.weight."),
        (Halved, TO_HF, "Element 0 of language_model.model.norm.weight is used twice."),
    ],
)
def test_a_table_that_cannot_be_undone_is_refused(row: type[Rename], direction: Direction, said: str) -> None:
    custom, key = custom_of(), KeyPattern("language_model.model.norm.weight")
    family = custom.family

    def odd_table(dims: Any) -> tuple[Any, ...]:
        return tuple(row(key, key) if key in line.custom_patterns else line for line in family.language_table(dims))

    odd = Family(family.name, family.architecture, family.hf_model_type, odd_table)
    model, specs = (custom, specs_at("qwen2-300m")) if direction is TO_HF else hf_of()

    with pytest.raises(ProofError) as error:
        checked_plan(replace(model, family=odd), specs, direction, L1)

    assert error.value.reason == said
