"""Tensors converted one by one as they come: in any order, promptly, and holding no more than open groups."""

from collections.abc import Iterator
from random import Random
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from state_dicts import (
    EMBEDDINGS,
    HEAD,
    MOE,
    NEEDS_CONFIG,
    SPELLED,
    TIED,
    Group,
    Tensors,
    assert_same,
    config_of,
    custom_of,
    groups_of,
    hf_of,
    spelled,
    streamed,
)
from support import NAMES, same_bits
from thinning import each_value

import internvl_bridge
from internvl_bridge.errors import (
    BridgeError,
    ContradictionError,
    DuplicateKeyError,
    IncompleteGroupError,
    MissingKeyError,
    MixedSpellingError,
    OptionError,
    UnknownKeyError,
    UnsupportedModelError,
)
from internvl_bridge.in_memory import streaming

every_model = pytest.mark.parametrize("name", NAMES)
every_spelling = pytest.mark.parametrize(("name", "layout", "experts"), each_value(SPELLED))
both_directions = pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
shuffles = given(random=st.randoms(use_true_random=False))


def shuffled(tensors: Tensors, random: Random) -> list[tuple[str, torch.Tensor]]:
    pairs = list(tensors.items())
    random.shuffle(pairs)
    return pairs


def source_of(groups: list[Group], direction: str) -> Tensors:
    return {key: tensor for group in groups for key, tensor in group.sources(direction).items()}


@every_spelling
@settings(max_examples=5)
@shuffles
def test_the_order_in_which_tensors_come_changes_nothing(name: str, layout: str, experts: str, random: Random):
    config = config_of(name)
    made = streamed(shuffled(hf_of(name, layout, experts), random), "to-custom", config=config, tied="keep")
    assert_same(made, custom_of(name))
    if layout != "l3":
        pairs = shuffled(custom_of(name), random)
        assert_same(
            streamed(pairs, "to-hf", config=config, layout=layout, experts=experts), hf_of(name, layout, experts)
        )


MOE_ONLY = (".q_norm.", ".k_norm.", ".mlp.gate.weight")
GPT_OSS_ONLY = (".sinks", ".router.", "_proj_bias")


@pytest.mark.parametrize(
    ("name", "layout", "experts"), each_value([case for case in SPELLED if case[0] not in NEEDS_CONFIG])
)
@settings(max_examples=5)
@shuffles
def test_without_config_too_unless_experts_come_before_what_tells_whose_they_are(
    name: str, layout: str, experts: str, random: Random
):
    pairs = shuffled(hf_of(name, layout, experts), random)
    language = [key for key, _ in pairs if "language_model." in key]
    telling = [n for n, key in enumerate(language) if any(word in key for word in (*MOE_ONLY, *GPT_OSS_ONLY))]
    doubtful = [n for n, key in enumerate(language) if key.endswith((".gate_up_proj", ".experts.down_proj"))]
    if doubtful and min(doubtful) < min(telling):
        with pytest.raises(OptionError, match="Qwen3-MoE or of GPT-OSS"):
            streamed(pairs, "to-custom")
    else:
        assert_same(streamed(pairs, "to-custom"), custom_of(name))
    if layout != "l3" and experts == "split":
        pairs = shuffled(custom_of(name), random)
        assert_same(streamed(pairs, "to-hf", layout=layout), hf_of(name, layout))


@pytest.mark.parametrize("name", ["gptoss-300m", MOE])
def test_in_the_order_of_a_model_the_family_is_told_in_time(name: str):
    def rank(key: str) -> tuple[str, bool]:
        layer, _, rest = key.partition(".layers.")
        return layer + rest[:1], ".experts." in key

    for layout in ("l1", "l2", "l3"):
        tensors = hf_of(name, layout, "fused")
        pairs = [(key, tensors[key]) for key in sorted(tensors, key=rank)]
        assert_same(streamed(pairs, "to-custom"), custom_of(name))


class Watched:
    """Feeds tensors that nobody else holds; knows which are alive, and what has been asked for when.

    Storage is watched, not tensor objects: a view keeps all of it alive. A copy counts as the tensor itself.
    """

    def __init__(self, pairs: list[tuple[str, torch.Tensor]]) -> None:
        self._pairs = pairs
        self._alive: list[tuple[str, ref[np.ndarray]]] = []
        self.fed: list[str] = []
        self.came: dict[str, int] = {}
        self.held: list[set[str]] = []

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for key, tensor in self._pairs:
            self.held.append(self.alive)
            self.fed.append(key)
            yield key, self._fresh(key, tensor)
        self.held.append(self.alive)

    def _fresh(self, key: str, tensor: torch.Tensor) -> torch.Tensor:
        memory = tensor.contiguous().view(-1).view(torch.uint8).numpy().copy()
        self._alive.append((key, ref(memory)))
        return torch.from_numpy(memory).view(tensor.dtype).view(tensor.shape)

    @property
    def alive(self) -> set[str]:
        return {key for key, memory in self._alive if memory() is not None}

    def consume(self, direction: str, **options: Any) -> None:
        """Take every target, note when it came, and drop it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streaming, "kept", lambda tensor: self._fresh(self.fed[-1], tensor))
            for key, _ in internvl_bridge.iter_converted(self, direction, **options):
                self.came[key] = len(self.fed)
                del _


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m", MOE, TIED])
@pytest.mark.parametrize(
    ("direction", "options"),
    [("to-custom", {"tied": "copy"}), ("to-hf", {"experts": "fused"}), ("to-hf", {"experts": "split"})],
)
@settings(max_examples=5)
@shuffles
def test_a_producer_may_fill_one_buffer_again_and_again(direction: str, options: dict, name: str, random: Random):
    pairs = shuffled(custom_of(name) if direction == "to-hf" else hf_of(name), random)
    buffer = torch.empty(max(tensor.nbytes for _, tensor in pairs), dtype=torch.uint8)

    def refilled() -> Iterator[tuple[str, torch.Tensor]]:
        for key, tensor in pairs:
            room = buffer[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            room.copy_(tensor)
            yield key, room
        buffer.zero_()

    def converted(stream: Iterator[tuple[str, torch.Tensor]]) -> Tensors:
        made = internvl_bridge.iter_converted(stream, direction, config=config_of(name), **options)
        return {key: tensor.clone() for key, tensor in made}

    assert_same(converted(refilled()), converted(iter(pairs)))


def test_what_leaves_at_once_is_not_copied():
    tensors = hf_of("qwen2-300m")
    key = "multi_modal_projector.linear_1.weight"
    [(_, made)] = internvl_bridge.iter_converted([(key, tensors[key])], "to-custom")
    assert made is tensors[key]


def watched(name: str, layout: str, experts: str, direction: str, random: Random, *, config: bool = True):
    groups = groups_of(name, layout, experts)
    watch = Watched(shuffled(source_of(groups, direction), random))
    options: dict[str, Any] = {"layout": layout, "experts": experts} if direction == "to-hf" else {"tied": "keep"}
    if config:
        options["config"] = config_of(name)
    watch.consume(direction, **options)
    return groups, watch


def open_keys(groups: list[Group], direction: str, fed: list[str]) -> set[str]:
    """The keys that have come of groups that are not complete."""
    sources = [group.sources(direction).keys() for group in groups]
    return {key for keys in sources if not keys <= {*fed} for key in keys & {*fed}}


@pytest.mark.parametrize(("name", "layout", "experts"), each_value([case for case in SPELLED if case[1] != "l3"]))
@both_directions
@settings(max_examples=4)
@shuffles
def test_targets_come_before_the_next_tensor_is_asked_for_and_closed_groups_are_let_go(
    direction: str, name: str, layout: str, experts: str, random: Random
):
    groups, watch = watched(name, layout, experts, direction, random)
    place = {key: number for number, key in enumerate(watch.fed, 1)}
    for group in groups:
        last = max(place[key] for key in group.sources(direction))
        assert {watch.came[key] for key in group.targets(direction)} == {last}
    for number, held in enumerate(watch.held):
        embeddings = {spelled(EMBEDDINGS, layout), EMBEDDINGS} if name == TIED else set()
        assert held - embeddings == open_keys(groups, direction, watch.fed[:number])
    assert watch.alive == set()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {*NEEDS_CONFIG, "gptoss-300m"}])
@both_directions
@settings(max_examples=2)
@shuffles
def test_without_config_closed_groups_are_let_go_as_well(direction: str, name: str, random: Random):
    groups, watch = watched(name, "l1", "split", direction, random, config=False)
    for number, held in enumerate(watch.held):
        assert held == open_keys(groups, direction, watch.fed[:number])


@every_model
def test_in_the_worst_order_queries_keys_and_values_are_all_that_is_held(name: str):
    tensors = hf_of(name)
    pairs = sorted(tensors.items(), key=lambda pair: ("v_proj" in pair[0], "k_proj" in pair[0], "q_proj" in pair[0]))
    watch = Watched(pairs)
    watch.consume("to-custom", config=config_of(name), tied="keep")
    open_sources = {key for group in groups_of(name) if len(group.hf) > 1 for key in group.hf}
    most = max(watch.held, key=len)
    assert most - {EMBEDDINGS} == {key for key in open_sources if "v_proj" not in key}


def test_in_a_models_own_order_one_layer_of_experts_is_all_that_is_held():
    tensors = custom_of(MOE)
    pairs = sorted(tensors.items(), key=lambda pair: pair[0].split(".")[:4])
    watch = Watched(pairs)
    watch.consume("to-hf", config=config_of(MOE), experts="fused")
    experts = config_of(MOE)["llm_config"]["num_experts"]
    assert max(map(len, watch.held)) <= 3 * experts - 1
    for held in watch.held:
        assert len({key.split(".")[3] for key in held}) <= 1


@pytest.mark.parametrize("tied", ["copy", "keep"])
@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("first", ["head", "embeddings"])
@both_directions
def test_of_a_tied_model_no_more_than_the_embeddings_are_held_and_the_head_until_they_come(
    direction: str, first: str, equal: bool, tied: str
):
    tensors = custom_of(TIED) if direction == "to-hf" else hf_of(TIED)
    head = tensors[EMBEDDINGS].clone()
    if not equal:
        head.view(torch.uint8)[0, 0] ^= 1
    rest = [(key, tensor) for key, tensor in tensors.items() if key != EMBEDDINGS and "qkv" not in key]
    rest = [(key, tensor) for key, tensor in rest if ".attention." not in key]
    groups = {key: tensor for key, tensor in tensors.items() if key not in dict(rest) and key != EMBEDDINGS}
    pair = [(HEAD, head), (EMBEDDINGS, tensors[EMBEDDINGS])]
    one, other = pair if first == "head" else reversed(pair)
    watch = Watched([*groups.items(), *rest[:3], one, *rest[3:6], other, *rest[6:]])
    watch.consume(direction, config=config_of(TIED), tied=tied)
    copies = direction == "to-custom" and tied == "copy"
    assert (HEAD in watch.came) is (copies or not equal)
    place = {key: number for number, key in enumerate(watch.fed, 1)}
    assert watch.came[EMBEDDINGS] == place[EMBEDDINGS]
    if HEAD in watch.came:
        assert watch.came[HEAD] == (place[HEAD] if copies else max(place[HEAD], place[EMBEDDINGS]))
    both = max(place[HEAD], place[EMBEDDINGS])
    for number, held in enumerate(watch.held):
        assert held & {key for key, _ in rest} == set()
        assert (HEAD in held) <= (place[HEAD] <= number < both and not copies)


@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_streams_of_a_tied_model_end_with_the_copy(direction: str):
    tensors = custom_of(TIED) if direction == "to-hf" else hf_of(TIED)
    watch = Watched(list(tensors.items()))
    watch.consume(direction, config=config_of(TIED))
    assert (list(watch.came)[-1] == HEAD) is (direction == "to-custom")
    assert watch.came.keys() == (tensors_with_head().keys() if direction == "to-custom" else hf_of(TIED).keys())


def tensors_with_head() -> Tensors:
    tensors = custom_of(TIED)
    return {**tensors, HEAD: tensors[EMBEDDINGS]}


@pytest.mark.parametrize("missing", [EMBEDDINGS, "language_model.model.norm.weight"])
@pytest.mark.parametrize("tied", ["copy", "keep"])
@both_directions
def test_partial_streams_of_a_tied_model_are_refused_at_the_end(direction: str, tied: str, missing: str):
    tensors = custom_of(TIED) if direction == "to-hf" else hf_of(TIED)
    tensors[HEAD] = tensors[EMBEDDINGS]
    del tensors[missing]
    watch = Watched(list(tensors.items()))
    with pytest.raises(MissingKeyError, match=missing.replace(".", r"\.")):
        watch.consume(direction, config=config_of(TIED), tied=tied)
    assert watch.fed == list(tensors)


def rejected(pairs: list[tuple[str, Any]], direction: str, error: type[BridgeError], **options: Any) -> Watched:
    """Refused with ``error`` when the last of ``pairs`` comes; nothing is asked for after it."""
    more = [("language_model.model.norm.weight", torch.zeros(1)) for _ in range(3)]
    watch = Watched([*pairs, *more])
    with pytest.raises(error, match=pairs[-1][0].replace(".", r"\.")):
        watch.consume(direction, **options)
    assert watch.fed == [key for key, _ in pairs]
    return watch


@pytest.mark.parametrize("config", [None, config_of("qwen2-300m")])
@both_directions
def test_unknown_keys_and_duplicates_are_refused_when_they_come(direction: str, config: dict[str, Any] | None):
    groups = groups_of("qwen2-300m")
    pairs = list(source_of(groups, direction).items())
    watch = rejected([*pairs[:9], ("language_model.odd", torch.zeros(1))], direction, UnknownKeyError, config=config)
    targets = [key for group in groups for key in group.targets(direction)]
    assert list(watch.came) == [key for key in targets if key in watch.came]
    assert len(watch.came) >= 7
    for again in (0, 4, 8):
        rejected([*pairs[:9], pairs[again]], direction, DuplicateKeyError, config=config)


def test_duplicates_of_tensors_that_wait_are_refused():
    config = config_of(MOE)
    expert = "language_model.model.layers.0.mlp.experts.0.up_proj.weight"
    pair = (expert, custom_of(MOE)[expert])
    rejected([pair, pair], "to-hf", DuplicateKeyError, config=config, experts="fused")
    query = "vision_tower.encoder.layer.0.attention.q_proj.weight"
    rejected([(query, hf_of(MOE)[query])] * 2, "to-custom", DuplicateKeyError)


@pytest.mark.parametrize("config", [None, config_of(MOE)])
@pytest.mark.parametrize(
    ("first", "second"),
    [(one, other) for one in ("l1", "l2", "l3") for other in ("l1", "l2", "l3") if one != other],
)
def test_the_first_key_of_another_layout_is_refused(first: str, second: str, config: dict[str, Any] | None):
    key = "language_model.model.layers.0.input_layernorm.weight"
    pairs = [
        (spelled(key.replace("0", layer), layout), torch.zeros(4)) for layer, layout in (("0", first), ("1", second))
    ]
    rejected(pairs, "to-custom", MixedSpellingError, config=config)


@pytest.mark.parametrize("config", [None, config_of(MOE)])
def test_keys_that_several_layouts_have_decide_nothing(config: dict[str, Any] | None):
    """A tower is spelled alike in L2 and L3, a head in L1 and L3."""
    tower = "vision_tower.encoder.layer.0.lambda_1"
    text = "language_model.model.norm.weight"
    zeros = torch.zeros(4)
    for keys in (
        (HEAD, spelled(tower, "l3"), spelled(text, "l2")),
        (HEAD, tower, spelled(text, "l3")),
        ("lm_head.weight", spelled(text, "l3")),
    ):
        rejected([(key, zeros) for key in keys], "to-custom", MixedSpellingError, config=config)
    if config is None:
        for layout in ("l1", "l2", "l3"):
            pairs = [(spelled(key, layout), zeros) for key in (HEAD, tower, text)]
            made = dict(internvl_bridge.iter_converted(pairs, "to-custom"))
            assert list(made) == [HEAD, "vision_model.encoder.layers.0.ls1", text]


@pytest.mark.parametrize("config", [None, config_of(MOE)])
@pytest.mark.parametrize("layout", ["l1", "l2", "l3"])
def test_split_and_fused_experts_do_not_come_in_one_stream(layout: str, config: dict[str, Any] | None):
    split = ("language_model.model.layers.0.mlp.experts.0.up_proj.weight", torch.zeros(2, 2))
    fused = ("language_model.model.layers.1.mlp.experts.gate_up_proj", torch.zeros(4, 4, 2))
    one, other = ((spelled(key, layout), tensor) for key, tensor in (split, fused))
    router = (spelled("language_model.model.layers.0.mlp.gate.weight", layout), torch.zeros(4, 2))
    rejected([router, one, other], "to-custom", MixedSpellingError, config=config)
    rejected([router, other, one], "to-custom", MixedSpellingError, config=config)


def test_what_cannot_be_decided_without_config_is_refused_when_it_comes():
    for name, key, direction, options in (
        (MOE, "language_model.model.layers.0.mlp.experts.0.up_proj.weight", "to-hf", {"experts": "fused"}),
        (MOE, "language_model.model.layers.0.mlp.experts.gate_up_proj", "to-custom", {}),
        ("gptoss-300m", "language_model.model.layers.0.mlp.experts.down_proj", "to-custom", {}),
        ("internlm2-6b", "language_model.model.layers.0.attention.wqkv.weight", "to-hf", {}),
    ):
        tensors = custom_of(name) if direction == "to-hf" else hf_of(name, "l1", "fused")
        pairs = [("language_model.model.norm.weight", torch.zeros(2)), (key, tensors[key])]
        pairs = [(EMBEDDINGS, torch.zeros(2)), pairs[1]] if name != "internlm2-6b" else pairs
        rejected(pairs, direction, OptionError, **options)


@pytest.mark.parametrize("config", [None, config_of("qwen2-300m")])
def test_incomplete_groups_are_refused_at_the_end_and_the_rest_has_come(config: dict[str, Any] | None):
    tensors = hf_of("qwen2-300m")
    gone = "vision_tower.encoder.layer.1.attention.v_proj.bias"
    del tensors[gone]
    watch = Watched(list(tensors.items()))
    with pytest.raises(IncompleteGroupError, match=gone.replace(".", r"\.")):
        watch.consume("to-custom", config=config)
    assert watch.came.keys() == custom_of("qwen2-300m").keys() - {"vision_model.encoder.layers.1.attn.qkv.bias"}


@every_model
@both_directions
def test_with_config_missing_tensors_are_refused_at_the_end(direction: str, name: str):
    groups = groups_of(name)
    whole = [group for group in groups if len(group.sources(direction)) == len(group.targets(direction)) == 1]
    for gone in whole[::9]:
        [key] = gone.sources(direction)
        tensors = {other: tensor for other, tensor in source_of(groups, direction).items() if other != key}
        watch = Watched(list(tensors.items()))
        with pytest.raises(BridgeError, match=key.replace(".", r"\.")):
            watch.consume(direction, config=config_of(name), tied="keep")
        assert watch.fed == list(tensors)
        targets = {target for group in groups if group is not gone for target in group.targets(direction)}
        assert watch.came.keys() == targets


@both_directions
def test_with_config_another_number_of_layers_is_refused(direction: str):
    config = config_of("qwen2-300m")
    config["vision_config"]["num_hidden_layers"] = 3
    tensors = source_of(groups_of("qwen2-300m"), direction)
    with pytest.raises(ContradictionError, match="num_hidden_layers"):
        streamed(tensors.items(), direction, config=config)


def test_what_config_alone_refuses_is_refused_before_anything_comes():
    """Not at the end, after hours."""
    config = config_of("qwen2-300m")
    config["ps_version"] = "v1"
    watch = Watched(list(custom_of("qwen2-300m").items()))
    with pytest.raises(UnsupportedModelError, match="v1"):
        watch.consume("to-hf", config=config)
    assert watch.came == {}


def test_an_absurd_number_of_experts_costs_nothing():
    config = config_of(MOE)
    config["llm_config"]["num_experts"] = 250_000
    watch = Watched(list(custom_of(MOE).items()))
    with pytest.raises(ContradictionError, match="num_experts"):
        watch.consume("to-hf", config=config, experts="fused")


@pytest.mark.parametrize("count", [3, 5])
def test_fused_experts_that_are_not_as_many_as_config_says_are_refused_when_they_come(count: int):
    config, key = config_of(MOE), "language_model.model.layers.0.mlp.experts.gate_up_proj"
    config["llm_config"]["num_experts"] = count
    pairs = [(EMBEDDINGS, custom_of(MOE)[EMBEDDINGS]), (key, hf_of(MOE, "l1", "fused")[key])]
    rejected(pairs, "to-custom", ContradictionError, config=config)


def test_a_stream_that_breaks_off_is_not_swallowed():
    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield from list(custom_of("qwen2-300m").items())[:3]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        dict(internvl_bridge.iter_converted(broken(), "to-hf", config=config_of("qwen2-300m")))


def test_a_consumer_may_stop_early_and_then_nothing_is_held():
    watch = Watched(list(hf_of(TIED).items()))
    stream = internvl_bridge.iter_converted(watch, "to-custom", config=config_of(TIED))
    for _ in range(20):
        next(stream)
    stream.close()
    del stream
    assert watch.alive == set()


def test_a_stream_reads_nothing_before_it_is_asked():
    watch = Watched(list(custom_of("qwen2-300m").items()))
    stream = internvl_bridge.iter_converted(watch, "to-hf", config=config_of("qwen2-300m"))
    assert watch.fed == []
    next(stream)
    assert len(watch.fed) == 1


def test_a_stream_converts_what_another_one_makes():
    for name in ("internlm2-6b", MOE, TIED):
        config = config_of(name)
        there = internvl_bridge.iter_converted(
            custom_of(name).items(), "to-hf", config=config, layout="l2", experts="fused"
        )
        back = dict(internvl_bridge.iter_converted(there, "to-custom", config=config, tied="keep"))
        assert_same(back, custom_of(name))
        assert all(same_bits(back[key], tensor) for key, tensor in custom_of(name).items())
