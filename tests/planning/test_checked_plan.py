"""A plan is made only for exactly the tensors that config.json describes, and only if it can be undone."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from mapping.spelled_twins import ALL_KEYS, SPELLINGS, Specs, every_spelling
from metadata.describing import CUSTOM as STORED_CUSTOM
from metadata.describing import changed, description
from plans import is_identity
from support import DATA

from internvl_bridge.checkpoint.byte_ranges import specs_of
from internvl_bridge.errors import (
    ContradictionError,
    IncompleteGroupError,
    MissingKeyError,
    ProofError,
    UnknownKeyError,
    UnsupportedModelError,
)
from internvl_bridge.mapping.families import INTERNLM3_GROUPED, Experts, Family
from internvl_bridge.mapping.packing import MXFP4, Packing
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.plan import Recipe, Run, TensorSpec, compose
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.spellings import CUSTOM, L2, L3, MOST_COMPATIBLE, KeySpelling
from internvl_bridge.mapping.transforms import Rename, Stack
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_hf_config
from internvl_bridge.planning.checked_plan import CheckedPlan, check_config, checked_plan, described_specs
from internvl_bridge.storage.source_shards import open_checkpoint

HEADS = {
    "L1": "language_model.lm_head.weight",
    "L2": "lm_head.weight",
    "L3": "language_model.lm_head.weight",
    "L1, bare head": "lm_head.weight",
}
NORMS = {
    "L1": "language_model.model.norm.weight",
    "L2": "model.language_model.norm.weight",
    "L3": "model.language_model.model.norm.weight",
    "L1, bare head": "language_model.model.norm.weight",
}
TOWERS = {
    "L1": "vision_tower",
    "L2": "model.vision_tower",
    "L3": "model.vision_tower",
    "L1, bare head": "vision_tower",
}
LAYERS = {
    "L1": "language_model.model.layers",
    "L2": "model.language_model.layers",
    "L3": "model.language_model.model.layers",
    "L1, bare head": "language_model.model.layers",
}
FUSED = tuple(spelling for spelling in SPELLINGS if spelling.experts is Experts.FUSED)
every_fused = pytest.mark.parametrize("spelling", FUSED, ids=lambda spelling: spelling.name)
every_split_source = pytest.mark.parametrize(
    "source",
    [keys for keys in ALL_KEYS if keys not in FUSED],
    ids=lambda keys: f"from {keys.name if keys else 'custom'}",
)
every_target = pytest.mark.parametrize("target", ALL_KEYS, ids=lambda keys: keys.name if keys else "custom")


@cache
def stored(name: str) -> Mapping[str, TensorSpec]:
    return specs_of(open_checkpoint(DATA / "custom" / name))


def is_tied(made: CheckedPlan) -> bool:
    """Whether the output has no head of its own."""
    return not any(key.endswith(("lm_head.weight", "output.weight")) for key in made.plan.targets)


def specs_at(name: str) -> Specs:
    return dict(stored(name))


def experts_of(count: int) -> dict[str, int]:
    """How an HF config.json says it, for every version of transformers."""
    return {"num_experts": count, "num_local_experts": count}


def custom_of(name: str = "qwen2-300m", section: str | None = None, **values: Any) -> ModelDescription:
    return description(changed(STORED_CUSTOM[name].values, section, **values), specs_at(name))


def packing_of(plan: CheckedPlan) -> Packing | None:
    return None if plan.packed is None else plan.packed.packing


def to_hf(model: ModelDescription, specs: Specs, spelling: KeySpelling = MOST_COMPATIBLE) -> CheckedPlan:
    return checked_plan(model, specs, CUSTOM, spelling)


def hf_of(
    name: str = "qwen2-300m", spelling: KeySpelling = MOST_COMPATIBLE, **text: Any
) -> tuple[ModelDescription, Specs]:
    """The HF twin of a stored checkpoint: its description and its tensors."""
    custom = custom_of(name)
    plan = to_hf(custom, specs_at(name), spelling)
    config = to_hf_config(custom, TensorFacts(is_tied(plan), plan.packed, "bfloat16"), TokenFacts(590), None)
    return description(changed(config, "text_config", **text), twin=custom.family), plan.plan.targets


@every_spelling
@pytest.mark.parametrize("name", STORED_CUSTOM)
def test_every_stored_checkpoint_has_a_plan_and_a_way_back(name: str, spelling: KeySpelling) -> None:
    there = to_hf(custom_of(name), specs_at(name), spelling)
    hf, specs = hf_of(name, spelling)

    back = checked_plan(hf, specs, spelling, CUSTOM)

    assert is_identity(compose(back.plan, there.plan))
    assert is_tied(there) is is_tied(back) is name.endswith("-tied")
    assert there.packed is back.packed is None


@every_spelling
@pytest.mark.parametrize("name", STORED_CUSTOM)
def test_config_describes_the_tensors_of_every_stored_checkpoint(name: str, spelling: KeySpelling) -> None:
    for (model, specs), keys in (((custom_of(name), specs_at(name)), CUSTOM), (hf_of(name, spelling), spelling)):
        shapes = {key: spec.shape for key, spec in described_specs(model, keys).items()}
        assert shapes == {key: spec.shape for key, spec in specs.items()}


@pytest.mark.parametrize("section", ["llm_config", "vision_config"])
def test_an_absurd_number_of_layers_is_not_enumerated(section: str) -> None:
    with pytest.raises(ContradictionError, match="says that num_hidden_layers is 10001: no model has so many"):
        described_specs(custom_of("llama-6b", section, num_hidden_layers=10_001), CUSTOM)


def test_experts_in_blocks_are_noticed() -> None:
    specs = specs_at("gptoss-300m")
    for key in [key for key in specs if key.endswith(("gate_up_proj", "down_proj"))]:
        count, inputs, outputs = specs.pop(key).shape
        specs[f"{key}_blocks"] = TensorSpec("U8", (count, outputs, inputs // 32, 16))
        specs[f"{key}_scales"] = TensorSpec("U8", (count, outputs, inputs // 32))

    assert packing_of(to_hf(custom_of("gptoss-300m"), specs)) is MXFP4


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
    assert is_tied(to_hf(custom_of(tie_word_embeddings=True), specs)) is True
    assert is_tied(to_hf(custom_of(section="llm_config", tie_word_embeddings=True), specs)) is True


def test_the_missing_head_of_an_internlm2_is_named_as_its_owner_knows_it() -> None:
    specs = specs_at("internlm2-300m")
    del specs["language_model.output.weight"]

    with pytest.raises(MissingKeyError, match=r"describes language_model\.output\.weight, .* set tie_word_embeddings"):
        to_hf(custom_of("internlm2-300m"), specs)


def test_a_head_in_spite_of_a_tie_flag_is_a_head() -> None:
    assert is_tied(to_hf(custom_of(tie_word_embeddings=True), specs_at("qwen2-300m"))) is False


@every_spelling
def test_an_untied_hf_model_must_have_a_head_and_a_tied_one_need_not(spelling: KeySpelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    del specs[HEADS[spelling.layout.name]]

    with pytest.raises(MissingKeyError) as error:
        checked_plan(hf, specs, spelling, CUSTOM)

    assert error.value.reason.startswith(f"config.json describes {HEADS[spelling.layout.name]}, but")
    tied, _ = hf_of(spelling=spelling, tie_word_embeddings=True)
    assert is_tied(checked_plan(tied, specs, spelling, CUSTOM)) is True


@every_spelling
def test_a_missing_tensor_is_named_in_the_spelling_at_hand(spelling: KeySpelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    del specs[NORMS[spelling.layout.name]]

    with pytest.raises(MissingKeyError) as error:
        checked_plan(hf, specs, spelling, CUSTOM)

    assert error.value.reason.startswith(f"config.json describes {NORMS[spelling.layout.name]}, but")


@every_spelling
def test_a_tensor_of_another_shape_is_named_in_the_spelling_at_hand(spelling: KeySpelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    specs[NORMS[spelling.layout.name]] = TensorSpec("BF16", (65,))

    with pytest.raises(ContradictionError) as error:
        checked_plan(hf, specs, spelling, CUSTOM)

    assert error.value.reason == f"{NORMS[spelling.layout.name]} has shape [65], but config.json describes [64]."


@every_spelling
def test_a_missing_part_of_a_fused_tensor_is_named_in_the_spelling_at_hand(spelling: KeySpelling) -> None:
    hf, specs = hf_of(spelling=spelling)
    key = f"{TOWERS[spelling.layout.name]}.encoder.layer.1.attention.k_proj.bias"
    del specs[key]

    with pytest.raises((IncompleteGroupError, MissingKeyError)) as error:
        checked_plan(hf, specs, spelling, CUSTOM)

    assert f" {key}" in f" {error.value.reason}"


@every_spelling
def test_custom_tensors_are_named_as_they_are_whatever_is_written(spelling: KeySpelling) -> None:
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
        description(
            changed(
                STORED_CUSTOM["internlm2-300m"].values,
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


def with_odd_rows(family: Family, row: type[Rename]) -> Family:
    key = KeyPattern("language_model.model.norm.weight")

    def odd_table(dims: Any) -> tuple[Any, ...]:
        return tuple(row(key, key) if key in line.custom_patterns else line for line in family.language_table(dims))

    return replace(family, language_table=odd_table)


def source_of(keys: KeySpelling, name: str = "qwen2-300m") -> tuple[ModelDescription, Specs]:
    return (custom_of(name), specs_at(name)) if keys == CUSTOM else hf_of(name, keys)


@pytest.mark.parametrize(
    ("row", "source", "target", "said"),
    [
        (Turned, CUSTOM, MOST_COMPATIBLE, "Converting back would not restore language_model.model.norm.weight."),
        (Turned, CUSTOM, KeySpelling(L2), "Converting back would not restore language_model.model.norm.weight."),
        (Turned, MOST_COMPATIBLE, CUSTOM, "Converting back would not restore language_model.model.norm.weight."),
        (Turned, KeySpelling(L2), CUSTOM, "Converting back would not restore model.language_model.norm.weight."),
        (Halved, CUSTOM, MOST_COMPATIBLE, "Element 0 of language_model.model.norm.weight is used twice."),
        (Halved, CUSTOM, KeySpelling(L3), "Element 0 of language_model.model.norm.weight is used twice."),
    ],
)
def test_a_table_that_cannot_be_undone_is_refused(
    row: type[Rename], source: KeySpelling, target: KeySpelling, said: str
) -> None:
    model, specs = source_of(source)

    with pytest.raises(ProofError) as error:
        checked_plan(replace(model, family=with_odd_rows(model.family, row)), specs, source, target)

    assert error.value.reason == said


class Crossed(Stack):
    """Stacks the experts of a layer the other way round, but takes the first one first on the way back."""

    def forward(self, specs: Any) -> dict[str, Recipe]:
        made = Stack(self.parts, self.stacked, self.experts).forward(specs)
        return {key: Recipe(recipe.spec, recipe.runs[::-1]) for key, recipe in made.items()}


@pytest.mark.parametrize("source", [CUSTOM, MOST_COMPATIBLE, FUSED[0]])
def test_stacks_that_cannot_be_undone_are_refused(source: KeySpelling) -> None:
    model, specs = source_of(source, "qwen3moe-6b")

    def crossed(count: int | None) -> tuple[Any, ...]:
        return tuple(
            Crossed(row.parts, row.stacked, row.experts)
            for row in model.family.fused_experts(count)
            if isinstance(row, Stack)
        )

    odd = replace(model, family=replace(model.family, fused_experts=crossed))
    target = MOST_COMPATIBLE if source == FUSED[0] else FUSED[0]

    with pytest.raises(
        ProofError, match=r"^Converting back would not restore language_model\.model\.layers\.0\.mlp\.exp"
    ):
        checked_plan(odd, specs, source, target)


@every_spelling
@every_target
@pytest.mark.parametrize("name", ["qwen3moe-6b", "qwen3-300m-tied", "gptoss-300m", "internlm2-300m"])
def test_every_spelling_becomes_every_other(name: str, spelling: KeySpelling, target: KeySpelling) -> None:
    hf, specs = hf_of(name, spelling)

    there = checked_plan(hf, specs, spelling, target)

    assert there.plan.sources == specs
    assert there.plan.targets == source_of(target, name)[1]
    assert is_tied(there) is name.endswith("-tied")
    assert there.packed is None
    back = checked_plan(hf, there.plan.targets, target, spelling)
    assert is_identity(compose(back.plan, there.plan))
    assert is_tied(back) is is_tied(there)


@every_spelling
@pytest.mark.parametrize("target", SPELLINGS, ids=lambda spelling: f"to {spelling.name}")
def test_experts_in_blocks_are_noticed_in_every_spelling(spelling: KeySpelling, target: KeySpelling) -> None:
    name = "gptoss-300m"
    hf, specs = hf_of(name, spelling)
    for key in [key for key in specs if key.endswith(("gate_up_proj", "down_proj"))]:
        count, inputs, outputs = specs.pop(key).shape
        specs[f"{key}_blocks"] = TensorSpec("U8", (count, outputs, inputs // 32, 16))
        specs[f"{key}_scales"] = TensorSpec("U8", (count, outputs, inputs // 32))

    assert packing_of(checked_plan(hf, specs, spelling, target)) is MXFP4
    assert packing_of(checked_plan(hf, specs, spelling, CUSTOM)) is MXFP4


@every_spelling
@every_target
class TestWhatIsWrongIsNamedInTheSpellingAtHand:
    """Whatever is made of it: the files that a user has at hand are the source's."""

    def model(self, spelling: KeySpelling) -> tuple[ModelDescription, Specs]:
        return hf_of("qwen3moe-6b", spelling)

    def test_a_missing_tensor(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = self.model(spelling)
        key = NORMS[spelling.layout.name]
        del specs[key]

        with pytest.raises(MissingKeyError) as error:
            checked_plan(hf, specs, spelling, target)

        assert error.value.reason == f"config.json describes {key}, but the checkpoint does not have it."

    def test_a_missing_head(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = self.model(spelling)
        key = HEADS[spelling.layout.name]
        del specs[key]

        with pytest.raises(MissingKeyError) as error:
            checked_plan(hf, specs, spelling, target)

        assert error.value.reason == f"config.json describes {key}, but the checkpoint does not have it."
        assert "set tie_word_embeddings to true" in error.value.remedy

    def test_a_tensor_of_another_shape(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = self.model(spelling)
        key = NORMS[spelling.layout.name]
        specs[key] = TensorSpec("BF16", (65,))

        with pytest.raises(ContradictionError, match=rf"^{key} has shape \[65\], but config\.json describes \[64\]\."):
            checked_plan(hf, specs, spelling, target)

    def test_a_tensor_too_many(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = self.model(spelling)
        key = f"{LAYERS[spelling.layout.name]}.0.self_attn.q_proj.bias"
        specs[key] = TensorSpec("BF16", (64,))

        with pytest.raises(ContradictionError, match=rf"^The checkpoint has {key}, but config\.json describes a model"):
            checked_plan(hf, specs, spelling, target)

    def test_a_tensor_without_elements(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = self.model(spelling)
        key = NORMS[spelling.layout.name]
        specs[key] = TensorSpec("BF16", (0,))

        with pytest.raises(ContradictionError, match=rf"^{key} has shape \[0\], which holds nothing\."):
            checked_plan(hf, specs, spelling, target)

    def test_a_layer_too_many(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = self.model(spelling)
        layers = LAYERS[spelling.layout.name]
        specs |= {
            key.replace(f"{layers}.0.", f"{layers}.2."): spec
            for key, spec in specs.items()
            if key.startswith(f"{layers}.0.")
        }

        with pytest.raises(ContradictionError) as error:
            checked_plan(hf, specs, spelling, target)

        assert error.value.reason == (
            f"The checkpoint has 3 layers {layers}.*, but config.json says num_hidden_layers is 2."
        )


@every_fused
@every_target
class TestWhatIsWrongWithStacksIsNamed:
    def model(self, spelling: KeySpelling) -> tuple[ModelDescription, Specs]:
        return hf_of("qwen3moe-6b", spelling)

    @pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
    def test_a_missing_stack(self, spelling: KeySpelling, target: KeySpelling, part: str) -> None:
        hf, specs = self.model(spelling)
        key = f"{LAYERS[spelling.layout.name]}.1.mlp.experts.{part}"
        del specs[key]

        with pytest.raises(MissingKeyError) as error:
            checked_plan(hf, specs, spelling, target)

        assert error.value.reason == f"config.json describes {key}, but the checkpoint does not have it."

    def test_all_stacks(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = self.model(spelling)
        stacks = [key for key in specs if key.endswith((".gate_up_proj", ".down_proj"))]
        rest = {key: spec for key, spec in specs.items() if key not in stacks}

        with pytest.raises(MissingKeyError) as error:
            checked_plan(hf, rest, spelling, target)

        assert len(stacks) == 4
        assert error.value.reason.startswith(f"config.json describes {', '.join(sorted(stacks)[:3])} and 1 more tens")

    @pytest.mark.parametrize(
        ("part", "place", "change"),
        [("gate_up_proj", 1, -2), ("gate_up_proj", 2, 1), ("down_proj", 1, 1), ("down_proj", 2, -1)],
    )
    def test_a_stack_of_another_shape(
        self, spelling: KeySpelling, target: KeySpelling, part: str, place: int, change: int
    ) -> None:
        hf, specs = self.model(spelling)
        key = f"{LAYERS[spelling.layout.name]}.1.mlp.experts.{part}"
        described_shape = list(specs[key].shape)
        shape = [size + change * (number == place) for number, size in enumerate(described_shape)]
        specs[key] = TensorSpec("BF16", tuple(shape))

        with pytest.raises(ContradictionError) as error:
            checked_plan(hf, specs, spelling, target)

        assert error.value.reason == f"{key} has shape {shape}, but config.json describes {described_shape}."

    @pytest.mark.parametrize("change", [-1, 1])
    def test_a_stack_of_another_number_of_experts(
        self, spelling: KeySpelling, target: KeySpelling, change: int
    ) -> None:
        hf, specs = self.model(spelling)
        key = f"{LAYERS[spelling.layout.name]}.1.mlp.experts.down_proj"
        experts, *matrix = specs[key].shape
        specs[key] = TensorSpec("BF16", (experts + change, *matrix))

        with pytest.raises(ContradictionError) as error:
            checked_plan(hf, specs, spelling, target)

        assert error.value.reason == (
            f"{key} has shape {[experts + change, *matrix]}, which is not that of 1 matrices for each of {experts} "
            f"experts."
        )
        assert "num_experts" in error.value.remedy

    def test_config_json_with_another_number_of_experts(self, spelling: KeySpelling, target: KeySpelling) -> None:
        hf, specs = hf_of("qwen3moe-6b", spelling, **experts_of(3))

        with pytest.raises(ContradictionError, match="matrices for each of 3 experts"):
            checked_plan(hf, specs, spelling, target)

    @pytest.mark.parametrize("count", [100_001, 300_000, 2**31 - 1])
    def test_an_absurd_number_of_experts_at_once(self, spelling: KeySpelling, target: KeySpelling, count: int) -> None:
        hf, specs = hf_of("qwen3moe-6b", spelling, **experts_of(count))

        start = time.process_time()
        with pytest.raises(ContradictionError) as error:
            checked_plan(hf, specs, spelling, target)

        assert time.process_time() - start < 1
        assert error.value.reason == (
            f"config.json says that num_experts of all layers together is {2 * count}: no model has so many."
        )

    def test_as_many_experts_as_are_allowed(self, spelling: KeySpelling, target: KeySpelling) -> None:
        """Twelve times those of the largest release; of 2 layers."""
        hf, specs = hf_of("qwen3moe-6b", spelling, **experts_of(100_000))

        start = time.process_time()
        with pytest.raises(ContradictionError, match="matrices for each of 100000 experts"):
            checked_plan(hf, specs, spelling, target)

        assert time.process_time() - start < 1


def test_fused_experts_may_outnumber_the_tensors() -> None:
    """The 2 x 16 experts of a small model are 4 tensors."""
    count = 64
    hf, specs = hf_of("qwen3moe-6b", FUSED[0], **experts_of(count))
    for key, spec in specs.items():
        if key.endswith((".mlp.gate.weight", ".experts.gate_up_proj", ".experts.down_proj")):
            specs[key] = TensorSpec(spec.dtype, (count, *spec.shape[1:]))

    made = checked_plan(hf, specs, FUSED[0], CUSTOM).plan.targets

    assert 2 * count > len(specs)
    assert sum(".experts." in key for key in made) == 3 * 2 * count


def test_experts_of_gpt_oss_may_outnumber_the_tensors() -> None:
    """They never have a tensor each."""
    count, name = 200, "gptoss-300m"
    specs = specs_at(name)
    for key, spec in specs.items():
        if ".mlp." in key and key.startswith("language_model."):
            specs[key] = TensorSpec(spec.dtype, (count, *spec.shape[1:]))

    plan = to_hf(custom_of(name, "llm_config", num_local_experts=count), specs).plan

    assert count > len(specs)
    assert plan.targets.keys() == source_of(MOST_COMPATIBLE, name)[1].keys()


@every_split_source
@every_target
def test_split_experts_are_never_more_than_tensors(source: KeySpelling, target: KeySpelling) -> None:
    if source == CUSTOM:
        if target == CUSTOM:
            return
        model, specs = custom_of("qwen3moe-6b", "llm_config", num_experts=300), specs_at("qwen3moe-6b")
    else:
        model, specs = hf_of("qwen3moe-6b", source, **experts_of(300))

    with pytest.raises(ContradictionError, match="num_experts of all layers together is 600, but the checkpoint has"):
        checked_plan(model, specs, source, target)


@pytest.mark.parametrize("part", ["gate", "down"])
@every_split_source
@every_target
def test_a_missing_expert_is_named_before_it_is_stacked(source: KeySpelling, target: KeySpelling, part: str) -> None:
    model, specs = source_of(source, "qwen3moe-6b")
    key = f"{LAYERS[source.layout.name if source != CUSTOM else 'L1']}.1.mlp.experts.0.{part}_proj.weight"
    del specs[key]

    if (source, target) != (CUSTOM, CUSTOM):
        with pytest.raises((MissingKeyError, IncompleteGroupError)) as error:
            checked_plan(model, specs, source, target)

        assert error.value.reason.startswith(
            (f"{key} is missing; ", f"config.json describes {key}, but the checkpoint")
        )


@every_fused
def test_an_expert_too_many_is_named_before_they_are_stacked(spelling: KeySpelling) -> None:
    specs = specs_at("qwen3moe-6b")
    key = "language_model.model.layers.1.mlp.experts.{}.down_proj.weight"
    experts = sum(key.format(number) in specs for number in range(100))
    specs[key.format(experts)] = specs[key.format(0)]

    with pytest.raises(ContradictionError, match=rf"{key.format(experts)}"):
        to_hf(custom_of("qwen3moe-6b"), specs, spelling)


@pytest.mark.parametrize("source", SPELLINGS, ids=lambda spelling: spelling.name)
@every_target
@pytest.mark.parametrize("value", ["relu", "gelu_new"])
def test_what_only_the_custom_format_cannot_express_may_stay_in_hf(
    source: KeySpelling, target: KeySpelling, value: str
) -> None:
    hf, specs = hf_of(spelling=source)
    odd = description(changed(hf.values, None, projector_hidden_act=value))

    if target == CUSTOM:
        with pytest.raises(UnsupportedModelError, match=f"has projector_hidden_act '{value}'; the custom format knows"):
            checked_plan(odd, specs, source, target)
    else:
        assert checked_plan(odd, specs, source, target) == checked_plan(hf, specs, source, target)


@every_spelling
def test_what_cannot_be_expressed_is_refused_in_every_spelling(spelling: KeySpelling) -> None:
    with pytest.raises(UnsupportedModelError, match="has ps_version 'v1'"):
        to_hf(custom_of(ps_version="v1"), {}, spelling)


@every_spelling
def test_a_model_described_by_the_other_format_is_checked_alike(spelling: KeySpelling) -> None:
    """Which config.json says it does not matter: a model in memory may come with either."""
    custom, hf = custom_of("qwen3moe-6b"), hf_of("qwen3moe-6b", spelling)[0]
    there, back = specs_at("qwen3moe-6b"), hf_of("qwen3moe-6b", spelling)[1]

    assert checked_plan(hf, there, CUSTOM, spelling) == checked_plan(custom, there, CUSTOM, spelling)
    assert checked_plan(custom, back, spelling, CUSTOM) == checked_plan(hf, back, spelling, CUSTOM)


def test_no_more_is_planned_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of all tensors is the most expensive step: one there, one back, and one for the check if need be."""
    planned: list[tuple[KeySpelling, KeySpelling]] = []

    def counting(route: Route, specs: Any) -> Any:
        planned.append((route.source, route.target))
        return plan_route(route, specs)

    monkeypatch.setattr("internvl_bridge.planning.checked_plan.plan_route", counting)
    l2 = KeySpelling(L2)

    to_hf(custom_of(), specs_at("qwen2-300m"))
    assert planned == [(CUSTOM, MOST_COMPATIBLE), (MOST_COMPATIBLE, CUSTOM)]
    planned.clear()
    to_hf(custom_of(), specs_at("qwen2-300m"), l2)
    assert planned == [(CUSTOM, MOST_COMPATIBLE), (CUSTOM, l2), (l2, CUSTOM)]
    planned.clear()
    model, specs = hf_of(spelling=l2)
    planned.clear()
    checked_plan(model, specs, l2, MOST_COMPATIBLE)
    assert planned == [(l2, MOST_COMPATIBLE), (MOST_COMPATIBLE, l2)]
    planned.clear()
    checked_plan(model, specs, l2, CUSTOM)
    assert planned == [(l2, MOST_COMPATIBLE), (l2, CUSTOM), (CUSTOM, l2)]
    model, specs = hf_of()
    planned.clear()
    checked_plan(model, specs, MOST_COMPATIBLE, l2)
    assert planned == [(MOST_COMPATIBLE, l2), (l2, MOST_COMPATIBLE)]


def test_a_config_alone_can_be_enough_to_refuse() -> None:
    check_config(custom_of("qwen3moe-6b"))
    with pytest.raises(ContradictionError, match="no model has so many"):
        check_config(custom_of("qwen3moe-6b", "llm_config", num_experts=2**31 - 1))
    with pytest.raises(UnsupportedModelError, match="pixel shuffle of v1"):
        check_config(custom_of("qwen2-300m", ps_version="v1"))
