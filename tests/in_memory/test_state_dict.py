"""The in-memory interpreter: torch state dicts in, torch state dicts out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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
    converted,
    custom_of,
    groups_of,
    hf_of,
    spelled,
    streamed,
)
from support import NAMES, load_all, same_bits
from thinning import each_value
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import internvl_bridge
from internvl_bridge.errors import (
    BridgeError,
    ContradictionError,
    IncompleteGroupError,
    MissingKeyError,
    MixedSpellingError,
    OptionError,
    UnknownKeyError,
    UnsupportedModelError,
)
from internvl_bridge.tools.internvl_hf2custom import compute_l2_distance

Custom = Callable[[str], Path]
EXPERTS = "language_model.model.layers.1.mlp.experts"

every_model = pytest.mark.parametrize("name", NAMES)
every_spelling = pytest.mark.parametrize(("name", "layout", "experts"), each_value(SPELLED))


@every_model
@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("experts", ["split", "fused"])
def test_to_hf_makes_every_spelling(experts: str, layout: str, name: str):
    made = converted(custom_of(name), "to-hf", config=config_of(name), layout=layout, experts=experts)
    assert_same(made, hf_of(name, layout, experts))


@every_spelling
def test_to_custom_reads_every_spelling(name: str, layout: str, experts: str):
    made = converted(hf_of(name, layout, experts), "to-custom", config=config_of(name), tied="keep")
    assert_same(made, custom_of(name))


@pytest.mark.parametrize(
    ("name", "layout", "experts"), each_value([case for case in SPELLED if case[0] not in NEEDS_CONFIG])
)
def test_without_config_the_keys_tell_the_family(name: str, layout: str, experts: str):
    if layout != "l3":
        made = internvl_bridge.convert_state_dict(custom_of(name), "to-hf", layout=layout, experts=experts)
        assert_same(made, hf_of(name, layout, experts))
    assert_same(internvl_bridge.convert_state_dict(hf_of(name, layout, experts), "to-custom"), custom_of(name))


@pytest.mark.parametrize("name", NEEDS_CONFIG)
def test_internlm2_needs_its_head_counts(name: str):
    with pytest.raises(OptionError, match="numbers of heads"):
        internvl_bridge.convert_state_dict(custom_of(name), "to-hf")
    with pytest.raises(OptionError, match="numbers of heads"):
        streamed(custom_of(name).items(), "to-hf")
    llama = converted(hf_of(name), "to-custom")
    assert "language_model.model.layers.1.self_attn.k_proj.weight" in llama


@every_model
def test_a_config_of_the_hf_format_serves_as_well(name: str, custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom(name), tmp_path / "hf")
    model = internvl_bridge.convert_state_dict(hf_of(name), "to-custom", config=config_at(tmp_path / "hf"), tied="keep")
    assert_same(model, streamed(hf_of(name).items(), "to-custom", config=config_at(tmp_path / "hf"), tied="keep"))
    if name not in NEEDS_CONFIG:  # an HF config calls an InternLM2 a Llama
        assert_same(model, custom_of(name))
        assert_same(converted(custom_of(name), "to-hf", config=config_at(tmp_path / "hf")), hf_of(name))


def config_at(directory: Path) -> dict[str, Any]:
    import json

    return json.loads((directory / "config.json").read_text())


def internlm3(name: str) -> dict[str, Any]:
    """The config of a Llama or an InternLM2, as that of an InternLM3."""
    config = config_of(name)
    config["llm_config"].update(architectures=["InternLM3ForCausalLM"], qkv_bias=False, bias=False)
    return config


@pytest.mark.parametrize("name", ["llama-6b", "internlm2-300m"])
@pytest.mark.parametrize("layout", ["l1", "l2"])
def test_internlm3_with_either_names_becomes_a_llama(layout: str, name: str):
    made = converted(custom_of(name), "to-hf", config=internlm3(name), layout=layout, experts="fused")
    assert_same(made, hf_of(name, layout))


@pytest.mark.parametrize("layout", ["l1", "l2", "l3"])
def test_internlm3_gets_the_names_of_its_own_class(layout: str):
    made = converted(hf_of("llama-6b", layout), "to-custom", config=internlm3("llama-6b"))
    assert_same(made, custom_of("llama-6b"))


def test_internlm3_of_both_kinds_of_names_is_refused():
    tensors = custom_of("internlm2-300m")
    wo = "language_model.model.layers.0.attention.wo.weight"
    tensors["language_model.model.layers.0.self_attn.o_proj.weight"] = tensors.pop(wo)
    refused(tensors, "to-hf", BridgeError, config=internlm3("internlm2-300m"))


def is_view(part: torch.Tensor, of: torch.Tensor) -> bool:
    return part.untyped_storage().data_ptr() == of.untyped_storage().data_ptr()


def one_run(group: Group) -> bool:
    """Whether every target's elements lie side by side in one source."""
    return not any(".attention.wqkv." in key for key in group.custom)


@every_spelling
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_what_is_one_run_is_no_copy_and_what_is_not_is_no_alias(
    direction: str, streams: bool, name: str, layout: str, experts: str
):
    if (direction, layout) == ("to-hf", "l3"):
        layout = "l1"
    groups = groups_of(name, layout, experts)
    sources = {key: tensor.clone() for group in groups for key, tensor in group.sources(direction).items()}
    options: dict[str, Any] = {"config": config_of(name), "tied": "keep"}
    if direction == "to-hf":
        options.update(layout=layout, experts=experts)
    if streams:
        made = streamed(sources.items(), direction, **options)
    else:
        made = internvl_bridge.convert_state_dict(sources, direction, **options)
    for group in groups:
        ours = [sources[key] for key in group.sources(direction)]
        theirs = [made[key] for key in group.targets(direction)]
        if len(ours) == len(theirs) == 1:
            assert theirs[0] is ours[0]
        elif len(ours) == 1 and one_run(group):
            assert all(is_view(part, ours[0]) for part in theirs)
            assert all(part.is_contiguous() for part in theirs)
        else:
            assert not any(is_view(part, whole) for part in theirs for whole in ours)


def test_parts_that_are_several_runs_are_no_views_even_of_a_fused_tensor_and_one_head_is_one_run():
    config = config_of("internlm2-6b")
    config["llm_config"].update(num_key_value_heads=1)
    tensors = custom_of("internlm2-6b")
    heads = config["llm_config"]["num_attention_heads"]
    size = config["llm_config"]["hidden_size"] // heads
    for layer in range(2):
        key = f"language_model.model.layers.{layer}.attention.wqkv.weight"
        tensors[key] = torch.arange((heads + 2) * size * heads * size, dtype=torch.float32).view(-1, heads * size)
    made = converted(tensors, "to-hf", config=config)
    for role, rows in (("q", slice(heads * size)), ("k", slice(heads * size, (heads + 1) * size))):
        part = made[f"language_model.model.layers.1.self_attn.{role}_proj.weight"]
        assert is_view(part, tensors[key])
        assert torch.equal(part, tensors[key][rows])


def turned(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, stored in the opposite order of dimensions."""
    dims = tuple(reversed(range(tensor.dim())))
    return tensor.permute(dims).contiguous().permute(dims)


@every_spelling
def test_tensors_that_are_not_contiguous_keep_their_values(name: str, layout: str, experts: str):
    config = config_of(name)
    if layout != "l3":
        tensors = {key: turned(tensor) for key, tensor in custom_of(name).items()}
        assert any(not tensor.is_contiguous() for tensor in tensors.values())
        made = converted(tensors, "to-hf", config=config, layout=layout, experts=experts)
        assert_same(made, hf_of(name, layout, experts))
    tensors = {key: turned(tensor) for key, tensor in hf_of(name, layout, experts).items()}
    made = converted(tensors, "to-custom", config=config, tied="keep")
    assert_same(made, custom_of(name))
    assert all(made[key] is tensors[key] for key in made.keys() & tensors.keys())


class Operations(TorchDispatchMode):
    """Records everything that torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        self.names.append(function.overloadpacket._qualified_op_name.removeprefix("aten::"))
        assert not {"device", "dtype"} & (kwargs or {}).keys()
        return function(*args, **(kwargs or {}))


VIEWS = {"view", "slice", "reshape", "_unsafe_view", "detach", "alias", "narrow"}


@every_spelling
@pytest.mark.parametrize("streams", [False, True])
def test_torch_is_asked_for_views_and_concatenations_only(streams: bool, name: str, layout: str, experts: str):
    """So no value is computed, no tensor goes to another device, and no device is named."""

    def convert(tensors: Tensors, direction: str, **options: Any) -> tuple[Tensors, list[str]]:
        with Operations() as operations:
            if streams:
                made = streamed(tensors.items(), direction, config=config_of(name), **options)
            else:
                made = internvl_bridge.convert_state_dict(tensors, direction, config=config_of(name), **options)
        return made, operations.names

    groups = groups_of(name, layout, experts)
    fused = [group for group in groups if len(group.hf) > 1]
    _, names = convert(hf_of(name, layout, experts), "to-custom")
    allowed = {*VIEWS, "cat", "clone"} if streams else {*VIEWS, "cat"}  # in a stream, what waits is copied
    assert {*names} <= allowed
    assert names.count("cat") == len(fused)
    if layout != "l3":
        _, names = convert(custom_of(name), "to-hf", layout=layout, experts=experts)
        assert {*names} <= allowed
        grouped = 3 * sum(not one_run(group) for group in groups)
        stacked = sum(len(group.custom) > 1 for group in groups)
        assert names.count("cat") == grouped + stacked


@every_model
def test_what_is_only_renamed_is_not_copied_on_the_way_even_if_not_contiguous(name: str):
    tensors = {key: turned(tensor) for key, tensor in custom_of(name).items() if ".attn.qkv." not in key}
    tensors = {key: tensor for key, tensor in tensors.items() if ".attention.wqkv." not in key}
    with Operations() as operations:
        made = internvl_bridge.convert_state_dict(tensors, "to-hf")
        assert streamed(tensors.items(), "to-hf").keys() == made.keys()
    assert "clone" not in operations.names


@every_spelling
def test_meta_tensors_are_planned_without_data(name: str, layout: str, experts: str):
    config, options = config_of(name), {"layout": layout, "experts": experts}
    ours, theirs = on_meta(custom_of(name)), on_meta(hf_of(name, layout, experts))
    if layout != "l3":
        assert specs(converted(ours, "to-hf", config=config, **options)) == specs(theirs)
    assert specs(converted(theirs, "to-custom", config=config, tied="keep")) == specs(ours)


def on_meta(tensors: Tensors) -> Tensors:
    return {key: tensor.to("meta") for key, tensor in tensors.items()}


def specs(tensors: Tensors) -> dict[str, tuple[Any, ...]]:
    return {key: (tensor.dtype, tensor.shape, tensor.device) for key, tensor in tensors.items()}


@every_spelling
def test_tensors_stay_on_the_accelerator_that_they_are_on(name: str, layout: str, experts: str):
    """One that this machine does not have: torch only keeps the books of what would be done."""
    config, options = config_of(name), {"layout": layout, "experts": experts}
    stored = custom_of(name), hf_of(name, layout, experts)
    with FakeTensorMode():
        ours, theirs = (
            {key: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda:1") for key, tensor in tensors.items()}
            for tensors in stored
        )
        for convert in (internvl_bridge.convert_state_dict, streamed_dict):
            assert specs(convert(theirs, "to-custom", config=config, tied="keep")) == specs(ours)
            if layout != "l3":
                assert specs(convert(ours, "to-hf", config=config, **options)) == specs(theirs)


def streamed_dict(tensors: Tensors, direction: str, **options: Any) -> Tensors:
    return streamed(tensors.items(), direction, **options)


@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_devices_may_differ_between_groups(direction: str):
    groups = groups_of("internlm2-300m")
    tensors: Tensors = {}
    for number, group in enumerate(groups):
        tensors |= on_meta(group.sources(direction)) if number % 2 else group.sources(direction)
    made = converted(tensors, direction, config=config_of("internlm2-300m"))
    for number, group in enumerate(groups):
        for key, tensor in group.targets(direction).items():
            assert made[key].is_meta is bool(number % 2)
            assert number % 2 or same_bits(made[key], tensor)


def test_a_group_on_several_devices_is_refused_and_named():
    tensors = hf_of("qwen2-300m")
    key = "vision_tower.encoder.layer.1.attention.k_proj.weight"
    tensors[key] = tensors[key].to("meta")
    refused(tensors, "to-custom", BridgeError, match=r"layers?\.1\.att")


@every_model
def test_dtypes_pass_and_inputs_stay_as_they_are(name: str):
    tensors = custom_of(name)
    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.float32, torch.float8_e4m3fn)
    tensors = {key: tensor.to(dtypes[number % 5]) for number, (key, tensor) in enumerate(tensors.items())}
    config, before = config_of(name), dict(tensors)
    copies = {key: tensor.clone() for key, tensor in tensors.items()}
    made = converted(tensors, "to-hf", config=config)
    assert config == config_of(name)
    assert all(tensors[key] is before[key] for key in before)
    assert list(tensors) == list(before)
    assert_same(tensors, copies)
    assert_same(converted(made, "to-custom", config=config, tied="keep"), tensors)


def refused(tensors: Tensors, direction: str, error: type[BridgeError], *, match: str = ".", **options: Any) -> None:
    """Both functions refuse ``tensors``."""
    with pytest.raises(error, match=match):
        internvl_bridge.convert_state_dict(tensors, direction, **options)
    with pytest.raises(error, match=match):
        streamed(tensors.items(), direction, **options)


@pytest.mark.parametrize("direction", ["to_hf", "", "hf", "TO-HF", None, 0, ["to-hf"], {}])
def test_a_direction_that_there_is_not_is_refused(direction: Any):
    for function in (internvl_bridge.convert_state_dict, internvl_bridge.iter_converted):
        with pytest.raises(OptionError, match="is not a direction"):
            function({}, direction)


@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
@pytest.mark.parametrize("option", ["layout", "experts", "tied"])
@pytest.mark.parametrize("value", ["l3", "L1", "", 1, ["l1"], True])
def test_a_choice_that_there_is_not_is_refused_before_anything_is_read(value: Any, option: str, direction: str):
    for function in (internvl_bridge.convert_state_dict, internvl_bridge.iter_converted):
        with pytest.raises(OptionError, match=f"is not a choice for {option}"):
            function({}, direction, **{option: value})


@pytest.mark.parametrize("option", ["layout", "experts"])
def test_no_choice_is_none_either(option: str):
    for function in (internvl_bridge.convert_state_dict, internvl_bridge.iter_converted):
        with pytest.raises(OptionError, match=f"is not a choice for {option}"):
            function({}, "to-hf", **{option: None})


@pytest.mark.parametrize("config", [{}, {"model_type": "llama"}, {"model_type": "internvl_chat"}])
@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_a_config_of_something_else_is_refused(direction: str, config: dict[str, Any]):
    refused(custom_of("qwen2-300m"), direction, BridgeError, config=config)


def test_what_hf_cannot_express_is_refused():
    config = config_of("qwen2-300m")
    config["ps_version"] = "v1"
    refused(custom_of("qwen2-300m"), "to-hf", UnsupportedModelError, match="v1", config=config)


@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_nothing_becomes_nothing_unless_config_describes_something(direction: str):
    assert converted({}, direction) == {}
    refused({}, direction, BridgeError, match="0 tensors|does not have", config=config_of("qwen2-300m"))


@every_model
@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_with_config_no_tensor_may_be_missing(direction: str, name: str):
    tensors = custom_of(name) if direction == "to-hf" else hf_of(name)
    config = config_of(name)
    for key in list(tensors)[::7]:
        rest = {other: tensor for other, tensor in tensors.items() if other != key}
        refused(rest, direction, BridgeError, match=key.replace(".", r"\."), config=config)


@every_spelling
def test_with_config_no_tensor_may_have_another_shape(name: str, layout: str, experts: str):
    tensors, config = hf_of(name, layout, experts), config_of(name)
    for key in list(tensors)[::13]:
        odd = torch.cat([tensors[key]] * 2, dim=-1)
        refused({**tensors, key: odd}, "to-custom", ContradictionError, config=config)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("vision_tower.encoder.layer.0.attention.k_proj.weight", IncompleteGroupError),
        ("language_model.model.norm.weight", MissingKeyError),
    ],
)
def test_with_config_nothing_may_be_missing(key: str, error: type[BridgeError]):
    tensors = hf_of("qwen2-300m")
    del tensors[key]
    refused(tensors, "to-custom", error, match=key.replace(".", r"\."), config=config_of("qwen2-300m"))


def test_without_config_a_partial_dict_is_fine_but_a_partial_group_is_not():
    tower = {key: tensor for key, tensor in hf_of("qwen2-300m").items() if key.startswith("vision_tower.")}
    assert len(converted(tower, "to-custom")) == 4 + 2 * 14
    del tower["vision_tower.encoder.layer.1.attention.v_proj.bias"]
    refused(tower, "to-custom", IncompleteGroupError, match=r"layer\.1\.attention\.v_proj\.bias")


@pytest.mark.parametrize("config", [None, config_of("qwen2-300m")])
@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_unknown_keys_are_refused(direction: str, config: dict[str, Any] | None):
    tensors = custom_of("qwen2-300m") if direction == "to-hf" else hf_of("qwen2-300m")
    tensors["language_model.model.layers.0.self_attn.extra.weight"] = torch.zeros(1)
    refused(tensors, direction, UnknownKeyError, match=r"self_attn\.extra\.weight", config=config)


@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_keys_of_the_wrong_format_are_refused(direction: str):
    tensors = hf_of("qwen2-300m") if direction == "to-hf" else custom_of("qwen2-300m")
    refused(tensors, direction, UnknownKeyError)
    refused(tensors, direction, UnknownKeyError, config=config_of("qwen2-300m"))


@pytest.mark.parametrize("config", [None, config_of("qwen2-300m")])
@pytest.mark.parametrize(("fewer", "more"), [("l1", "l2"), ("l2", "l1"), ("l2", "l3"), ("l3", "l1"), ("l1", "l3")])
def test_mixed_layouts_are_refused(fewer: str, more: str, config: dict[str, Any] | None):
    tensors = {}
    for number, (key, tensor) in enumerate(hf_of("qwen2-300m").items()):
        tensors[spelled(key, fewer if number % 5 == 0 else more)] = tensor
    refused(tensors, "to-custom", MixedSpellingError, config=config)


@pytest.mark.parametrize("config", [None, config_of(MOE)])
@pytest.mark.parametrize("layout", ["l1", "l2", "l3"])
def test_split_and_fused_experts_side_by_side_are_refused(layout: str, config: dict[str, Any] | None):
    half = {key: tensor for key, tensor in hf_of(MOE, layout).items() if ".layers.1." not in key}
    fused = {key: tensor for key, tensor in hf_of(MOE, layout, "fused").items() if ".layers.1." in key}
    with pytest.raises(BridgeError):
        internvl_bridge.convert_state_dict(half | fused, "to-custom", config=config)
    with pytest.raises(MixedSpellingError):
        streamed((half | fused).items(), "to-custom", config=config)


@pytest.mark.parametrize("layout", ["l1", "l2"])
def test_fused_experts_alone_need_a_config(layout: str):
    fused = {key: tensor for key, tensor in hf_of(MOE, layout, "fused").items() if ".experts." in key}
    refused(fused, "to-custom", OptionError, match="Qwen3-MoE or of GPT-OSS")


@pytest.mark.parametrize("config", [None, config_of(MOE)])
@pytest.mark.parametrize("key", [f"{EXPERTS}.3.up_proj.weight", f"{EXPERTS}.0.gate_proj.weight"])
def test_incomplete_experts_are_refused(key: str, config: dict[str, Any] | None):
    tensors = custom_of(MOE)
    del tensors[key]
    with pytest.raises((IncompleteGroupError, MissingKeyError), match=key.replace(".", r"\.")):
        internvl_bridge.convert_state_dict(tensors, "to-hf", config=config, experts="fused")
    if config is not None:
        with pytest.raises(IncompleteGroupError, match=key.replace(".", r"\.")):
            streamed(tensors.items(), "to-hf", config=config, experts="fused")


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_experts_are_as_many_as_config_says(direction: str, count: int):
    config = config_of(MOE)
    config["llm_config"]["num_experts"] = count
    tensors = custom_of(MOE) if direction == "to-hf" else hf_of(MOE, "l2", "fused")
    refused(tensors, direction, BridgeError, config=config, experts="fused")


def test_experts_of_different_shapes_or_dtypes_are_refused():
    key, config = f"{EXPERTS}.2.up_proj.weight", config_of(MOE)
    for odd in (custom_of(MOE)[key].double(), custom_of(MOE)[key][1:]):
        for name, other in ((key, odd), (key.replace("up_proj", "down_proj"), odd)):
            tensors = custom_of(MOE) | {name: other}
            refused(tensors, "to-hf", ContradictionError, config=config, experts="fused")


def test_qkv_of_different_dtypes_is_refused():
    tensors = hf_of("qwen2-300m")
    key = "vision_tower.encoder.layer.1.attention.k_proj.weight"
    tensors[key] = tensors[key].double()
    refused(tensors, "to-custom", ContradictionError, match="dtypes")


@pytest.mark.parametrize("shape", [(), (0,), (0, 8), (3,), (4, 0)])
@pytest.mark.parametrize("key", ["attn.qkv.weight", "attn.qkv.bias", "embed_tokens.weight", "norm1.weight"])
def test_absurd_shapes_are_refused_and_do_not_crash(key: str, shape: tuple[int, ...]):
    for name in ("qwen2-300m", TIED):
        tensors = custom_of(name)
        [key] = [whole for whole in tensors if whole.endswith(key) and ".layers.1." not in whole]
        tensors[key] = torch.zeros(shape)
        refused(tensors, "to-hf", ContradictionError, config=config_of(name))


@pytest.mark.parametrize("shape", [(), (0,), (4, 0)])
def test_tied_tensors_of_absurd_shapes_are_refused_and_do_not_crash(shape: tuple[int, ...]):
    tensors = custom_of(TIED) | {EMBEDDINGS: torch.zeros(shape), HEAD: torch.zeros(shape)}
    refused(tensors, "to-hf", ContradictionError, config=config_of(TIED))


TIED_HEADS = {
    "equal": lambda embeddings: embeddings.clone(),
    "the same object": lambda embeddings: embeddings,
    "one bit off": lambda embeddings: off_by_one_bit(embeddings, -1),
    "first bit off": lambda embeddings: off_by_one_bit(embeddings, 0),
    "another dtype": lambda embeddings: embeddings.double(),
    "the same bits of another dtype": lambda embeddings: embeddings.view(
        getattr(torch, f"int{8 * embeddings.itemsize}")
    ),
    "turned": turned,
}


def off_by_one_bit(tensor: torch.Tensor, where: int) -> torch.Tensor:
    copy = tensor.clone()
    copy.view(torch.uint8).view(-1)[where] ^= 1
    return copy


def special(embeddings: torch.Tensor) -> torch.Tensor:
    """Embeddings with a NaN and zeros of both signs."""
    copy = embeddings.clone()
    copy[0, :3] = torch.tensor([float("nan"), 0.0, -0.0])
    return copy


@pytest.mark.parametrize("where", ["top", "text", "both", "none"])
@pytest.mark.parametrize("head", [None, *TIED_HEADS])
@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
@pytest.mark.parametrize(("tied", "layout"), [("copy", "l1"), ("keep", "l2")])
def test_a_head_that_config_calls_tied(layout: str, tied: str, direction: str, head: str | None, where: str):
    config = config_of(TIED)
    config["tie_word_embeddings"] = where in {"top", "both"}
    config["llm_config"]["tie_word_embeddings"] = where in {"text", "both"}
    tensors = custom_of(TIED) if direction == "to-hf" else hf_of(TIED, layout)
    expected = hf_of(TIED, layout) if direction == "to-hf" else custom_of(TIED)
    (source_embeddings, source_head), (target_embeddings, target_head) = names(direction, layout)
    embeddings = tensors[source_embeddings] = expected[target_embeddings] = special(tensors[source_embeddings])
    if head is not None:
        tensors[source_head] = TIED_HEADS[head](embeddings)
    options: dict[str, Any] = {"config": config, "tied": tied, "layout": layout}
    if where == "none" and head is None:
        refused(tensors, direction, MissingKeyError, match="lm_head", **options)
        return
    made = converted(tensors, direction, **options)
    copies = direction == "to-custom" and tied == "copy"
    shared = head in {None, "equal", "the same object", "turned"} and where != "none"
    if not shared:
        assert made.pop(target_head) is tensors[source_head]
    elif copies:
        assert made.pop(target_head) is (embeddings if head is None else tensors[source_head])
    assert made[target_embeddings] is embeddings
    assert_same(made, expected)


def names(direction: str, layout: str) -> tuple[tuple[str, str], tuple[str, str]]:
    ours, theirs = (EMBEDDINGS, HEAD), (spelled(EMBEDDINGS, layout), spelled(HEAD, layout))
    return (ours, theirs) if direction == "to-hf" else (theirs, ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("left", "right", "alike"),
    [
        (0x7FC1, 0x7FC1, True),  # a NaN, and others, in bits that are a NaN in every dtype
        (0x7FC1, 0x7FC2, False),
        (0x7FC1, -0x7FC1, False),
        (0, 0, True),
        (0, -0x8000, False),  # 0.0 and -0.0
    ],
)
def test_bits_decide_whether_a_head_is_a_copy(left: int, right: int, alike: bool, dtype: torch.dtype):
    tensors = custom_of(TIED)
    for key, bits in ((EMBEDDINGS, left), (HEAD, right)):
        tensors[key] = custom_of(TIED)[EMBEDDINGS].to(dtype).clone()
        tensors[key].view(torch.int16)[3, -1] = bits
    made = converted(tensors, "to-hf", config=config_of(TIED))
    assert (HEAD not in made) is alike
    made = converted(made | {HEAD: tensors[HEAD]}, "to-custom", tied="keep", config=config_of(TIED))
    assert (HEAD not in made) is alike


def test_heads_of_meta_tensors_are_copies_only_if_they_are_the_embeddings():
    tensors = on_meta(custom_of(TIED))
    for head, kept in ((tensors[EMBEDDINGS], False), (tensors[EMBEDDINGS].clone(), True)):
        made = converted({**tensors, HEAD: head}, "to-hf", config=config_of(TIED))
        assert (HEAD in made) is kept
        made = converted({**on_meta(hf_of(TIED)), EMBEDDINGS: tensors[EMBEDDINGS], HEAD: head}, "to-custom")
        assert made[HEAD] is head
    mixed = {**custom_of(TIED), HEAD: tensors[EMBEDDINGS]}
    assert converted(mixed, "to-hf", config=config_of(TIED))[HEAD] is tensors[EMBEDDINGS]


def test_without_config_nothing_is_tied():
    tensors = custom_of(TIED)
    assert HEAD not in converted(tensors, "to-hf")
    assert HEAD not in converted(hf_of(TIED), "to-custom")
    tensors[HEAD] = tensors[EMBEDDINGS].clone()
    assert converted(tensors, "to-hf")[HEAD] is tensors[HEAD]


def test_an_untied_model_keeps_a_head_that_equals_its_embeddings():
    tensors = custom_of("qwen2-300m")
    tensors[HEAD] = tensors[EMBEDDINGS].clone()
    made = converted(tensors, "to-hf", config=config_of("qwen2-300m"))
    assert made[HEAD] is tensors[HEAD]
    assert HEAD in converted(made, "to-custom", config=config_of("qwen2-300m"), tied="keep")


@pytest.mark.parametrize("tied", ["copy", "keep"])
def test_a_tied_internlm2_has_its_own_names(tied: str):
    config = config_of("internlm2-6b")
    config["llm_config"]["tie_word_embeddings"] = True
    tensors = hf_of("internlm2-6b")
    tensors[HEAD] = tensors[EMBEDDINGS].clone()
    made = converted(tensors, "to-custom", config=config, tied=tied)
    assert ("language_model.output.weight" in made) is (tied == "copy")
    del tensors[HEAD]
    made = converted(tensors, "to-custom", config=config, tied=tied)
    assert made.get("language_model.output.weight") is (tensors[EMBEDDINGS] if tied == "copy" else None)
    assert made["language_model.model.tok_embeddings.weight"] is tensors[EMBEDDINGS]
    assert HEAD not in converted(made, "to-hf", config=config)


def build(name: str, custom: Custom, tmp_path: Path) -> torch.nn.Module:
    """An untrained model of the installed transformers, with the config that to_hf writes."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    internvl_bridge.to_hf(custom(name), tmp_path / "hf")
    return InternVLForConditionalGeneration(InternVLConfig.from_pretrained(tmp_path / "hf"))


@every_model
def test_transformers_takes_and_gives_state_dicts_of_l2_with_fused_experts(name: str, custom: Custom, tmp_path: Path):
    model = build(name, custom, tmp_path)
    tensors, config = custom_of(name), config_of(name)
    options: dict[str, Any] = {"config": config, "layout": "l2", "experts": "fused"}
    there = internvl_bridge.convert_state_dict(tensors, "to-hf", **options)
    done = model.load_state_dict(there, strict=name != TIED)
    assert done.unexpected_keys == []
    assert done.missing_keys == (["lm_head.weight"] if name == TIED else [])
    kept = {key: tensor.to(there[key].dtype) for key, tensor in model.state_dict().items() if key in there}
    assert_same(kept, there)
    model = model.to(next(iter(there.values())).dtype)
    raw = {key: tensor.to(there[key].dtype) if key in there else tensor for key, tensor in model.state_dict().items()}
    assert_same(converted(raw, "to-custom", config=config, tied="keep"), tensors)
    head = converted(raw, "to-custom", config=config).keys() - tensors.keys()
    assert head == ({HEAD} if name == TIED else set())


def test_transformers_streams_its_weights_and_takes_streams(custom: Custom, tmp_path: Path):
    model, config = build(MOE, custom, tmp_path), config_of(MOE)
    expected = streamed(custom_of(MOE).items(), "to-hf", config=config, layout="l2", experts="fused")
    model.load_state_dict(expected, strict=True)
    with torch.no_grad():
        pairs = ((name, tensor.to(expected[name].dtype)) for name, tensor in model.named_parameters())
        assert_same(streamed(pairs, "to-custom", config=config), custom_of(MOE))


def test_the_other_experts_do_not_load(custom: Custom, tmp_path: Path):
    model = build(MOE, custom, tmp_path)
    split = internvl_bridge.convert_state_dict(custom_of(MOE), "to-hf", config=config_of(MOE), layout="l2")
    with pytest.raises(RuntimeError, match=r"experts\.gate_up_proj"):
        model.load_state_dict(split, strict=True)


def test_models_on_the_meta_device_are_planned(custom: Custom, tmp_path: Path):
    with torch.device("meta"):
        model = build(MOE, custom, tmp_path)
        made = converted(model.state_dict(), "to-custom", config=config_of(MOE))
    assert {key: tensor.shape for key, tensor in made.items()} == {
        key: tensor.shape for key, tensor in custom_of(MOE).items()
    }
    assert all(tensor.is_meta for tensor in made.values())


def test_the_distance_is_euclidean_and_skips_nothing():
    left = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[0.0]])}
    right = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([[4.0]])}
    assert compute_l2_distance(left, right) == 5.0
    with pytest.raises(ContradictionError, match="b is missing"):
        compute_l2_distance(left, {"a": right["a"]})
    with pytest.raises(ContradictionError, match="b is missing"):
        compute_l2_distance(left, right | {"b": torch.zeros(1)})
    assert math.isnan(compute_l2_distance(left, right | {"b": torch.tensor([[float("nan")]])}))


def test_the_distance_is_summed_in_float64():
    left, right = torch.full((1 << 20,), 1e-4), torch.zeros(1 << 20)
    exact = (float(left[0].double()) ** 2 * (1 << 20)) ** 0.5
    assert compute_l2_distance({"a": left}, {"a": right}) == pytest.approx(exact, rel=1e-12)


def test_modules_can_be_compared():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert compute_l2_distance(one, other) == 0.0
    with torch.no_grad():
        other.bias[0] += 2
    assert compute_l2_distance(one, other) == pytest.approx(2.0, rel=1e-6)


def test_equal_infinities_are_no_distance_apart():
    left = {"a": torch.tensor([float("inf"), -float("inf"), 3.0])}
    assert compute_l2_distance(left, {"a": torch.tensor([float("inf"), -float("inf"), 0.0])}) == 3.0
    assert compute_l2_distance(left, {"a": -left["a"]}) == float("inf")


def test_parts_of_parameters_are_plain_tensors(custom: Custom):
    tensors = {key: torch.nn.Parameter(tensor) for key, tensor in load_all(custom("qwen2-300m")).items()}
    there = internvl_bridge.convert_state_dict(tensors, "to-hf")
    part = there["vision_tower.encoder.layer.0.attention.q_proj.weight"]
    assert not part.requires_grad
    assert part.data_ptr() == tensors["vision_model.encoder.layers.0.attn.qkv.weight"].data_ptr()
    back = internvl_bridge.convert_state_dict(there, "to-custom")
    assert all(same_bits(back[key].detach(), tensors[key].detach()) for key in tensors)


@pytest.mark.parametrize("convert", [internvl_bridge.convert_state_dict, internvl_bridge.iter_converted])
def test_a_config_object_is_no_contents_of_a_config_json(convert):
    from transformers import InternVLConfig

    with pytest.raises(OptionError, match=r"config is a InternVLConfig.*Pass model\.config\.to_dict\(\)"):
        dict(convert({}, "to-hf", config=InternVLConfig()))
