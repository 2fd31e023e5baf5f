"""The HF spellings: what each looks like, how it is recognised, and whose names errors speak."""

import time
from itertools import permutations

import pytest
from mapping.spelled_twins import (
    SPELLINGS,
    Specs,
    every_language,
    every_layout,
    every_spelling,
    family_of,
    recognised,
    route_of,
    specs_as,
)
from mapping_enumerator import HEAD, Twin, laid_out, sample
from mapping_enumerator import LAYOUTS as ORACLE
from support import DATA

from internvl_bridge.checkpoint.byte_ranges import specs_of
from internvl_bridge.errors import ContradictionError, IncompleteGroupError, MixedSpellingError, UnknownKeyError
from internvl_bridge.mapping.dimensions import ExpertDims
from internvl_bridge.mapping.families import FAMILIES, GPT_OSS, QWEN2, QWEN3, QWEN3_MOE, Experts, Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import make_plan
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.spellings import (
    CUSTOM,
    L1,
    L1_BARE_HEAD,
    L2,
    L3,
    LAYOUTS,
    MOST_COMPATIBLE,
    KeyLayout,
    KeySpelling,
    chosen_spelling,
    layout_of,
    spelled,
    spelling_of,
)
from internvl_bridge.storage.source_shards import open_checkpoint

TWIN = sample("qwen2")
SPLIT, FUSED = Experts.SPLIT, Experts.FUSED
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
    "L1, bare head": (
        "language_model.model.embed_tokens.weight",
        "lm_head.weight",
        "vision_tower.embeddings.cls_token",
        "multi_modal_projector.linear_1.bias",
    ),
}
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@every_layout
def test_keys_are_spelled_as_transformers_writes_them(layout: KeyLayout) -> None:
    spec = TensorSpec("BF16", (1,))
    route = Route(QWEN2, TWIN.dims.text, MOST_COMPATIBLE, KeySpelling(layout))

    plan = plan_route(route, dict.fromkeys(EXAMPLES["L1"], spec))

    came_from = {key: recipe.runs[0].key for key, recipe in plan.recipes.items()}
    assert came_from == dict(zip(EXAMPLES[layout.name], EXAMPLES["L1"], strict=True))
    assert list(EXAMPLES[layout.name]) == [laid_out(key, layout.name) for key in EXAMPLES["L1"]]


def test_there_are_four_layouts_and_the_first_is_the_most_compatible() -> None:
    assert LAYOUTS == (L1, L2, L3, L1_BARE_HEAD)
    assert [layout.name for layout in LAYOUTS] == ["L1", "L2", "L3", "L1, bare head"] == list(ORACLE)
    assert KeySpelling(L1) == MOST_COMPATIBLE
    assert MOST_COMPATIBLE.experts is SPLIT


def test_spellings_have_names() -> None:
    assert [spelling.name for spelling in SPELLINGS] == [
        "L1",
        "L1 with fused experts",
        "L2",
        "L2 with fused experts",
        "L3",
        "L3 with fused experts",
        "L1, bare head",
        "L1, bare head with fused experts",
    ]


@every_layout
@pytest.mark.parametrize("tied", [False, True])
def test_a_layout_is_recognised_with_and_without_a_head(layout: KeyLayout, tied: bool) -> None:
    keys = [key for key in EXAMPLES[layout.name] if not (tied and key.endswith("lm_head.weight"))]

    found = L1 if layout is L1_BARE_HEAD and tied else layout
    assert layout_of(keys) is found
    assert spelling_of(keys, QWEN2) == KeySpelling(found)


@every_layout
@pytest.mark.parametrize("number", range(4))
def test_a_layout_explains_its_own_keys(layout: KeyLayout, number: int) -> None:
    key = EXAMPLES[layout.name][number]

    assert [other for other in LAYOUTS if other.explains(key)] == [
        other for other in LAYOUTS if EXAMPLES[other.name][number] == key
    ]


@every_spelling
@pytest.mark.parametrize("tied", [False, True])
@every_language
def test_the_spelling_of_every_family_is_recognised(language: str, tied: bool, spelling: KeySpelling) -> None:
    twin = sample(language, tied=tied)
    keys = list(specs_as(twin, spelling))

    found = recognised(twin, spelling)
    assert found.experts is (spelling.experts if language == "qwen3_moe" else SPLIT)
    assert spelling_of(keys, family_of(twin)) == spelling_of(keys[::-1], family_of(twin)) == found
    assert layout_of(keys) is found.layout


@every_layout
def test_gpt_oss_has_no_fused_experts_though_its_keys_look_so(layout: KeyLayout) -> None:
    keys = list(specs_as(sample("gpt_oss"), KeySpelling(layout)))

    assert any(key.endswith(".mlp.experts.gate_up_proj") for key in keys)
    assert spelling_of(keys, GPT_OSS) == KeySpelling(layout, SPLIT)
    assert spelling_of(keys, QWEN3_MOE) == KeySpelling(layout, FUSED)


@every_layout
@pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
def test_one_stack_is_enough_to_have_fused_experts(layout: KeyLayout, part: str) -> None:
    key = laid_out(f"language_model.model.layers.1.mlp.experts.{part}", layout.name)

    found = L1 if layout is L1_BARE_HEAD else layout
    assert spelling_of([key], QWEN3_MOE) == KeySpelling(found, FUSED)
    assert spelling_of([key], QWEN3) == KeySpelling(found, SPLIT)


@every_spelling
def test_a_mixture_of_experts_without_any_has_none_fused(spelling: KeySpelling) -> None:
    keys = [key for key in specs_as(sample("qwen3_moe"), spelling) if ".experts." not in key]

    assert spelling_of(keys, QWEN3_MOE) == KeySpelling(spelling.layout, SPLIT)


@every_family
def test_no_keys_at_all_have_the_most_compatible_spelling(family: Family) -> None:
    assert layout_of([]) is L1
    assert spelling_of([], family) == MOST_COMPATIBLE


def test_a_head_alone_that_two_layouts_have_is_the_most_compatibles() -> None:
    assert layout_of([HEAD]) is L1
    assert layout_of(["lm_head.weight"]) is L2


def test_a_tower_alone_that_two_layouts_have_is_the_first_ones() -> None:
    assert layout_of(["model.vision_tower.embeddings.cls_token"]) is L2
    assert layout_of(["model.vision_tower.embeddings.cls_token", HEAD]) is L3
    assert layout_of(["vision_tower.embeddings.cls_token"]) is L1


def test_the_layout_of_keys_is_the_one_that_explains_them_all() -> None:
    assert layout_of(["vision_tower.x", "language_model.model.norm.weight"]) is L1
    assert layout_of(["model.vision_tower.x", "model.language_model.norm.weight", "lm_head.weight"]) is L2
    assert layout_of(["model.vision_tower.x", "model.language_model.model.norm.weight"]) is L3


NORM = "language_model.model.norm.weight"


def in_two_layouts(twin: Twin, most: KeyLayout, few: KeyLayout, *odd: str) -> Specs:
    """A model laid out as ``most``, but for the tensors ``odd``."""
    return {laid_out(key, few.name if key in odd else most.name): spec for key, spec in twin.hf.items()}


@pytest.mark.parametrize(("most", "few"), list(permutations((L1, L2, L3), 2)), ids=lambda layout: layout.name)
class TestMixturesOfLayoutsAreRefused:
    def refusal(self, specs: Specs) -> MixedSpellingError:
        with pytest.raises(MixedSpellingError) as error:
            layout_of(specs)
        with pytest.raises(MixedSpellingError) as again:
            spelling_of(specs, QWEN2)
        assert str(again.value) == str(error.value)
        assert error.value.remedy.startswith("It was merged from two saves, or renamed half-way: save it again")
        return error.value

    def test_one_odd_key_is_named(self, most: KeyLayout, few: KeyLayout) -> None:
        specs = in_two_layouts(TWIN, most, few, NORM)
        others = [key for key in specs if key != laid_out(NORM, few.name)]

        reason = self.refusal(specs).reason

        assert reason == (
            f"The checkpoint mixes spellings: {laid_out(NORM, few.name)} as {few.name}, but "
            f"{', '.join(others[:3])} and {len(others) - 3} more as {most.name}."
        )

    def test_a_small_model_half_renamed_is_told_by_the_fewer_keys(self, most: KeyLayout, few: KeyLayout) -> None:
        embeddings, norms = (
            "language_model.model.embed_tokens.weight",
            [f"language_model.model.layers.{layer}.input_layernorm.weight" for layer in range(2)],
        )
        fewer, more = laid_out(embeddings, few.name), [laid_out(norm, most.name) for norm in norms]

        for keys in ([fewer, *more], [*more, fewer], [more[0], fewer, more[1]]):
            with pytest.raises(MixedSpellingError) as error:
                layout_of(keys)

            assert error.value.reason == (
                f"The checkpoint mixes spellings: {fewer} as {few.name}, but {', '.join(more)} as {most.name}."
            )

    def test_a_language_model_of_another_save(self, most: KeyLayout, few: KeyLayout) -> None:
        language_model = [key for key in TWIN.hf if key.startswith("language_model.model.")]

        reason = self.refusal(in_two_layouts(TWIN, most, few, *language_model)).reason

        assert f" as {few.name}" in reason
        # Of L3, only the head is left that is not of L2, too: it could be L1's as well.
        assert f" as {'L1' if (most, few) == (L3, L2) else most.name}" in reason


@pytest.mark.parametrize("tie", [("L1", "L2"), ("L1", "L3"), ("L2", "L3")])
def test_half_and_half_is_refused_naming_both(tie: tuple[str, str]) -> None:
    one, other = (laid_out(f"language_model.model.layers.{n}.input_layernorm.weight", tie[n]) for n in range(2))

    with pytest.raises(MixedSpellingError) as error:
        layout_of([one, other])

    assert f"{one} as {tie[0]}" in error.value.reason
    assert f"{other} as {tie[1]}" in error.value.reason


@pytest.mark.parametrize(
    ("layout", "head", "other"),
    [(L2, HEAD, "L(1|3)"), (L3, "lm_head.weight", "L(2|1, bare head)")],
    ids=["L2", "L3"],
)
def test_a_head_of_another_layout_is_named(layout: KeyLayout, head: str, other: str) -> None:
    specs = [*specs_as(sample("qwen2", tied=True), KeySpelling(layout)), head]

    with pytest.raises(MixedSpellingError, match=rf"mixes spellings: {head} as {other}, but .* as {layout.name}\."):
        layout_of(specs)


@every_layout
def test_two_heads_are_of_two_layouts(layout: KeyLayout) -> None:
    keys = [*specs_as(sample("qwen2", tied=True), KeySpelling(layout)), HEAD, "lm_head.weight"]

    with pytest.raises(MixedSpellingError, match=r"mixes spellings: (language_model\.)?lm_head\.weight as L"):
        layout_of(keys)


def test_only_the_head_of_l1_may_be_bare() -> None:
    """As transformers 5.23 writes a head that it made up: FORMATS.md does not list it."""
    keys = ["vision_tower.x", "language_model.model.norm.weight", "multi_modal_projector.x", "lm_head.weight"]

    assert layout_of(keys) is L1_BARE_HEAD
    assert layout_of(keys[:3]) is L1
    assert layout_of(["model.vision_tower.x", "lm_head.weight"]) is L2


def test_three_layouts_at_once_are_refused() -> None:
    keys = [laid_out(f"language_model.model.layers.{n}.input_layernorm.weight", f"L{n + 1}") for n in range(3)]

    with pytest.raises(MixedSpellingError, match="The checkpoint mixes spellings") as error:
        layout_of([*keys, "vision_tower.x", "multi_modal_projector.x"])

    assert all(key in error.value.reason for key in keys)


def test_refusing_a_mixture_of_a_large_model_takes_no_time() -> None:
    """Once it looked up every key in a set that it made anew for each."""
    keys = [f"vision_tower.encoder.layer.{number}.lambda_1" for number in range(15_000)]

    start = time.process_time()
    with pytest.raises(MixedSpellingError, match=r"model\.vision_tower\.x as L2, but .* and 14997 more as L1"):
        layout_of([*keys, "model.vision_tower.x"])

    assert time.process_time() - start < 2


class TestMixturesOfExpertsAreRefused:
    twin = sample("qwen3_moe")

    def keys(self, spelling: KeySpelling, *stacked_layers: int) -> list[str]:
        """Keys in which some layers have fused experts, the others split ones."""
        split, fused = (specs_as(self.twin, KeySpelling(spelling.layout, experts)) for experts in (SPLIT, FUSED))
        layers = tuple(f".layers.{layer}." for layer in stacked_layers)
        kept = [key for key in split if ".experts." not in key or not any(layer in key for layer in layers)]
        return kept + [key for key in fused if ".experts." in key and any(layer in key for layer in layers)]

    @every_layout
    @pytest.mark.parametrize("layer", [0, 1])
    def test_in_different_layers(self, layout: KeyLayout, layer: int) -> None:
        keys = self.keys(KeySpelling(layout), layer)
        stacks = [key for key in keys if key.endswith(("experts.gate_up_proj", "experts.down_proj"))]
        split = [key for key in keys if ".experts." in key and key not in stacks]

        with pytest.raises(MixedSpellingError) as error:
            spelling_of(keys, QWEN3_MOE)

        assert error.value.reason == (
            f"The checkpoint mixes spellings: {stacks[0]}, {stacks[1]} as fused experts, but "
            f"{', '.join(split[:3])} and {len(split) - 3} more as split experts."
        )

    @every_layout
    @pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
    def test_in_one_layer(self, layout: KeyLayout, part: str) -> None:
        stack = laid_out(f"language_model.model.layers.0.mlp.experts.{part}", layout.name)
        keys = [stack, *self.keys(KeySpelling(layout))]

        with pytest.raises(
            MixedSpellingError, match=rf"mixes spellings: {stack} as fused experts, but .* as split exp"
        ):
            spelling_of(keys, QWEN3_MOE)

    @every_layout
    def test_one_expert_among_stacks(self, layout: KeyLayout) -> None:
        odd = laid_out("language_model.model.layers.1.mlp.experts.1.up_proj.weight", layout.name)
        keys = [*self.keys(KeySpelling(layout), 0, 1), odd]

        with pytest.raises(MixedSpellingError, match=rf"mixes spellings: {odd} as split experts, but .* as fused exp"):
            spelling_of(keys, QWEN3_MOE)

    def test_layouts_before_experts(self) -> None:
        keys = [*self.keys(MOST_COMPATIBLE, 0), "model.vision_tower.x"]

        with pytest.raises(MixedSpellingError, match=r"model\.vision_tower\.x as L2, but .* as L1\."):
            spelling_of(keys, QWEN3_MOE)

    def test_other_families_have_no_such_choice(self) -> None:
        keys = self.keys(MOST_COMPATIBLE, 0)

        assert spelling_of(keys, QWEN3) == MOST_COMPATIBLE


def test_every_layer_counts_once_whatever_its_experts() -> None:
    """Dense layers, which the step and the list leave, hold none."""
    experts = ExpertDims(2, 4, 2, frozenset({1}))

    assert [experts.in_layer(layer) for layer in range(6)] == [False, False, False, True, False, True]
    assert experts.layers_of(6) == 2


@pytest.mark.parametrize("keys", [["vision_model.embeddings.class_embedding"], ["language_model.output.weight"], [""]])
def test_foreign_keys_have_no_spelling(keys: list[str]) -> None:
    with pytest.raises(UnknownKeyError, match=f"^Unknown tensor {keys[0]}: "):
        layout_of(keys)


@pytest.mark.parametrize("odd", ["x", "lm_head.bias", "model.vision_tower", "language_model.lm_head.weight\n"])
@every_layout
def test_keys_that_no_layout_explains_are_named(layout: KeyLayout, odd: str) -> None:
    with pytest.raises(UnknownKeyError) as error:
        spelling_of([*EXAMPLES[layout.name], odd], QWEN2)

    assert error.value.reason.startswith(f"Unknown tensor {odd}: ")


def test_unknown_keys_are_named_rather_than_a_mixture() -> None:
    keys = ["vision_tower.x", "mlp2.0.weight", "model.vision_tower.x", "a", "b", "c"]

    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor mlp2\.0\.weight, a, b and 1 more: .*'Flash'"):
        layout_of(keys)


@pytest.mark.parametrize(
    ("keys", "odd"),
    [
        (["model.vision_tower.x", "model.language_model.norm.weight", "vision_tower.y"], "vision_tower.y as L1"),
        (["vision_tower.x", "vision_tower.y", "model.language_model.y"], r"model\.language_model\.y as L2"),
        (["vision_tower.x", "model.vision_tower.y", "model.vision_tower.z"], "vision_tower.x as L1"),
    ],
)
def test_keys_that_no_single_layout_explains_are_a_mixture(keys: list[str], odd: str) -> None:
    with pytest.raises(MixedSpellingError, match=f"^The checkpoint mixes spellings: {odd}, but "):
        layout_of(keys)


def test_the_language_model_of_l3_is_none_of_l2() -> None:
    """It once was: L2's pattern had room for L3's names."""
    specs = in_two_layouts(TWIN, L2, L3, NORM)

    assert not L2.explains("model.language_model.model.norm.weight")
    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor model\.language_model\.model\.norm\.weight: "):
        make_plan(spelled(QWEN2.table(TWIN.dims.text), L2), specs, Format.CUSTOM)


@every_spelling
def test_respelling_into_the_same_spelling_changes_nothing(spelling: KeySpelling) -> None:
    specs = specs_as(TWIN, spelling)

    assert plan_route(route_of(TWIN, spelling, spelling), specs).targets == specs


@pytest.mark.parametrize("target", [CUSTOM, *SPELLINGS], ids=lambda keys: keys.name)
def test_respelling_names_the_key_that_is_not_of_the_spelling(target: KeySpelling) -> None:
    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor vision_tower\.x: "):
        plan_route(route_of(TWIN, KeySpelling(L2), target), {"vision_tower.x": TensorSpec("BF16", (1,))})


@pytest.mark.parametrize("target", [CUSTOM, *SPELLINGS], ids=lambda keys: keys.name)
@pytest.mark.parametrize("layout", [L2, L3], ids=lambda layout: layout.name)
class TestRefusalsNameTheKeysOfTheCheckpoint:
    """Not those of the most compatible spelling, which the user's files do not have; whatever is made of them."""

    def specs(self, layout: KeyLayout) -> dict[str, TensorSpec]:
        return specs_as(TWIN, KeySpelling(layout))

    def plan(self, specs: dict[str, TensorSpec], layout: KeyLayout, target: KeySpelling) -> None:
        plan_route(route_of(TWIN, KeySpelling(layout), target), specs)

    def refused(self, specs: dict[str, TensorSpec], layout: KeyLayout, target: KeySpelling) -> bool:
        """Whether groups of tensors count on this way: renaming keys joins none, and the schema names what is wrong."""
        if target.format is Format.HF and target.experts is Experts.SPLIT:
            self.plan(specs, layout, target)
            return False
        return True

    def test_an_unknown_key(self, layout: KeyLayout, target: KeySpelling) -> None:
        key = "model.vision_tower.encoder.layer.0.odd"
        specs = {**self.specs(layout), key: TensorSpec("BF16", (1,))}

        with pytest.raises(UnknownKeyError, match=rf"^Unknown tensor {key}: "):
            self.plan(specs, layout, target)

    def test_a_missing_part(self, layout: KeyLayout, target: KeySpelling) -> None:
        specs = self.specs(layout)
        key = "model.vision_tower.encoder.layer.0.attention.k_proj.weight"
        del specs[key]

        if self.refused(specs, layout, target):
            with pytest.raises(IncompleteGroupError, match=rf"(^|\s){key} is missing"):
                self.plan(specs, layout, target)

    def test_parts_of_different_dtypes(self, layout: KeyLayout, target: KeySpelling) -> None:
        specs = self.specs(layout)
        key = "model.vision_tower.encoder.layer.0.attention.k_proj.weight"
        specs[key] = TensorSpec("F32", specs[key].shape)

        if self.refused(specs, layout, target):
            with pytest.raises(ContradictionError, match=rf"\s{key} F32"):
                self.plan(specs, layout, target)

    def test_a_stack_of_an_odd_shape(self, layout: KeyLayout, target: KeySpelling) -> None:
        twin, source = sample("qwen3_moe"), KeySpelling(layout, FUSED)
        key = laid_out("language_model.model.layers.1.mlp.experts.gate_up_proj", layout.name)
        specs = {**specs_as(twin, source), key: TensorSpec("BF16", (3, 8, 5))}

        if target.format is Format.HF and target.experts is FUSED:
            assert len(plan_route(route_of(twin, source, target), specs).targets) == len(specs)
            return
        with pytest.raises(ContradictionError, match=rf"^{key} has shape \[3, 8, 5\], which is not"):
            plan_route(route_of(twin, source, target), specs)


def test_the_head_is_an_ordinary_tensor_of_every_layout() -> None:
    assert HEAD in TWIN.hf
    heads = {
        layout.name: [
            key
            for key in plan_route(route_of(TWIN, MOST_COMPATIBLE, KeySpelling(layout)), TWIN.hf).targets
            if "lm_head" in key
        ]
        for layout in LAYOUTS
    }
    assert heads == {"L1": [HEAD], "L2": ["lm_head.weight"], "L3": [HEAD], "L1, bare head": ["lm_head.weight"]}


@pytest.mark.parametrize(
    ("name", "family", "spelling"),
    [
        ("qwen2-300m@state-dict", QWEN2, KeySpelling(L2)),
        ("qwen3-300m-tied@5.0.0", QWEN3, MOST_COMPATIBLE),
        ("qwen3-300m-tied@5.4.0", QWEN3, KeySpelling(L3)),
        ("qwen3moe-6b@5.0.0", QWEN3_MOE, KeySpelling(L1, FUSED)),
        ("qwen3moe-6b@5.4.0", QWEN3_MOE, KeySpelling(L3)),
    ],
)
def test_the_spelling_of_what_transformers_wrote_is_recognised(
    name: str, family: Family, spelling: KeySpelling
) -> None:
    specs = specs_of(open_checkpoint(DATA / "hf" / name))

    assert spelling_of(specs, family) == spelling


@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("experts", ["split", "fused"])
def test_the_custom_format_has_one_spelling_and_hf_those_that_are_chosen(experts: str, layout: str) -> None:
    chosen = chosen_spelling(Format.HF, layout, experts)

    assert chosen_spelling(Format.CUSTOM, layout, experts) == CUSTOM
    assert (chosen.layout, chosen.experts) == ({"l1": L1, "l2": L2}[layout], Experts(experts))
