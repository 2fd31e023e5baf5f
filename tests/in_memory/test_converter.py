"""A Converter replays one plan, notices what is not as it was planned, and holds no more than a stream needs."""

import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support import DATA, NAMES, load_all

import internvl_bridge
from internvl_bridge import Converter, TensorError

Tensors = dict[str, torch.Tensor]


def model(name: str) -> tuple[Tensors, dict[str, Any]]:
    directory = DATA / "custom" / name
    return load_all(directory), json.loads((directory / "config.json").read_text())


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def refilled(tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors one by one, in one buffer."""
    buffer = torch.empty(max(tensor.numel() for tensor in tensors.values()), dtype=torch.bfloat16)
    for key, tensor in tensors.items():
        yield key, buffer[: tensor.numel()].view(tensor.shape).copy_(tensor)


def on_meta(tensors: Tensors) -> Tensors:
    return {key: tensor.to("meta") for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_pass_gives_what_one_conversion_gives(name: str):
    custom, config = model(name)
    for layout, experts in (("l1", "split"), ("l2", "fused")):
        options: Any = {"config": config, "layout": layout, "experts": experts}
        hf = internvl_bridge.convert_state_dict(custom, "to-hf", **options)
        there, back = Converter("to-hf", specs=custom, **options), Converter("to-custom", specs=hf, config=config)
        for _ in range(2):
            assert same(there.convert(custom), hf)
            assert same(dict(there.stream(reversed(custom.items()))), hf)
            assert same(back.convert(hf), dict(back.stream(hf.items())))


def test_specs_on_meta_are_enough():
    custom, config = model("internlm2-300m")
    converter = Converter("to-hf", specs=on_meta(custom), config=config)
    assert same(converter.convert(custom), internvl_bridge.convert_state_dict(custom, "to-hf", config=config))


def test_a_buffer_can_be_filled_again_and_again():
    custom, config = model("qwen3moe-6b")
    converter = Converter("to-hf", specs=custom, config=config, experts="fused")
    found = {key: tensor.clone() for key, tensor in converter.stream(refilled(custom))}
    assert same(found, internvl_bridge.convert_state_dict(custom, "to-hf", config=config, experts="fused"))


def test_other_dtypes():
    custom, config = model("qwen3-300m")
    moments = {key: tensor.float() for key, tensor in custom.items()}
    weights = Converter("to-hf", specs=custom, config=config)
    converted = weights.of_dtype(torch.float32).convert(moments)
    assert same(converted, {key: tensor.float() for key, tensor in weights.convert(custom).items()})
    with pytest.raises(TensorError, match=r"is torch.float32 .*, but this Converter has planned torch.bfloat16"):
        weights.convert(moments)


KEY = "vision_model.encoder.layers.0.attn.qkv.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(another=t[KEY]), "another is not a tensor that this Converter has planned"),
        (lambda t: t.pop(KEY), f"{KEY} never came"),
        (lambda t: t.update({KEY: t[KEY][1:]}), f"{KEY} is .*, but this Converter has planned"),
        (lambda t: t.update({KEY: t[KEY].half()}), "torch.float16"),
    ],
)
def test_what_differs_from_the_plan_is_noticed(change: Callable[[Tensors], object], words: str):
    custom, config = model("qwen3-300m")
    converter = Converter("to-hf", specs=custom, config=config)
    changed = dict(custom)
    change(changed)
    with pytest.raises(TensorError, match=words):
        converter.convert(changed)
    with pytest.raises(TensorError, match=words):
        list(converter.stream(changed.items()))
    assert len(converter.convert(custom)) > 0


def test_a_tensor_that_comes_twice():
    custom, config = model("qwen3-300m")
    pairs = [*custom.items(), next(iter(custom.items()))]
    with pytest.raises(TensorError, match="came twice"):
        list(Converter("to-hf", specs=custom, config=config).stream(pairs))


def test_a_head_that_is_no_copy_any_more():
    custom, config = model("qwen3-300m-tied")
    head, embeddings = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    custom[head] = custom[embeddings].clone()
    converter = Converter("to-hf", specs=custom, config=config)
    assert head not in converter.convert(custom)
    assert head not in dict(converter.stream(custom.items()))
    trained = {**custom, head: custom[head] + 1}
    for attempt in (lambda: converter.convert(trained), lambda: list(converter.stream(trained.items()))):
        with pytest.raises(TensorError, match=r"differs from .*, but this Converter has planned it as a copy"):
            attempt()


def test_names_of_wrappers_and_buffers():
    custom, config = model("qwen3-300m")
    wrapped = {f"module.{key}": tensor for key, tensor in custom.items()}
    wrapped["module.language_model.model.rotary_emb.inv_freq"] = torch.ones(2)
    with pytest.warns(UserWarning, match="Left out"):
        converter = Converter("to-hf", specs=wrapped, config=config)
    assert same(converter.convert(wrapped), internvl_bridge.convert_state_dict(custom, "to-hf", config=config))
    assert same(dict(converter.stream(wrapped.items())), converter.convert(wrapped))


def test_a_converter_can_go_to_another_process():
    custom, config = model("qwen3-300m")
    converter = pickle.loads(pickle.dumps(Converter("to-hf", specs=on_meta(custom), config=config)))  # noqa: S301 (ours)
    assert same(converter.convert(custom), internvl_bridge.convert_state_dict(custom, "to-hf", config=config))


@pytest.mark.parametrize("name", NAMES)
def test_config_alone_is_enough(name: str):
    custom, config = model(name)
    for layout, experts in (("l1", "split"), ("l2", "fused")):
        options: Any = {"config": config, "layout": layout, "experts": experts}
        hf = internvl_bridge.convert_state_dict(custom, "to-hf", **options)
        there, back = Converter("to-hf", **options), Converter("to-custom", tied="keep", **options)
        assert same(there.convert(custom), hf)
        assert same(dict(there.stream(reversed(custom.items()))), hf)
        assert same(back.convert(hf), custom)
        assert same(dict(back.stream(reversed(hf.items()))), custom)


@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
def test_the_head_of_a_tied_model_may_come_if_it_is_a_copy(direction: Any):
    custom, config = model("qwen3-300m-tied")
    head, embeddings = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    converter = Converter(direction, config=config)
    source = custom if direction == "to-hf" else internvl_bridge.convert_state_dict(custom, "to-hf", config=config)
    made = converter.convert(source)
    assert (head in made) is (direction == "to-custom")
    for first in ({}, {head: source[embeddings].clone()}):
        with_head = {**first, **source, head: source[embeddings].clone()}
        assert same(converter.convert(with_head), made)
        assert same(dict(converter.stream(with_head.items())), made)
    trained = {**source, head: source[embeddings] + 1}
    for attempt in (lambda: converter.convert(trained), lambda: list(converter.stream(refilled(trained)))):
        with pytest.raises(TensorError, match=rf"{head} differs from {embeddings}.* Pass the config"):
            attempt()


def test_by_config_alone_dtypes_may_be_any_but_those_of_one_target_agree():
    custom, config = model("qwen3-300m")
    there, back = Converter("to-hf", config=config), Converter("to-custom", config=config)
    for dtype in (torch.float32, torch.bfloat16):
        tensors = {key: tensor.to(dtype) for key, tensor in custom.items()}
        assert same(back.convert(there.convert(tensors)), tensors)
    hf = there.convert(custom)
    query = "vision_tower.encoder.layer.0.attention.q_proj.weight"
    hf[query] = hf[query].float()
    for attempt in (lambda: back.convert(hf), lambda: list(back.stream(hf.items()))):
        with pytest.raises(TensorError, match=f"{query}.* are of torch.bfloat16 and torch.float32"):
            attempt()
    with pytest.raises(TensorError, match=rf"{KEY} is torch.bfloat16 .*has planned torch.float32"):
        there.of_dtype(torch.float32).convert({KEY: custom[KEY]})


def test_config_alone_does_not_guess():
    custom, config = model("qwen3-300m")
    raw = internvl_bridge.convert_state_dict(custom, "to-hf", config=config, layout="l2")
    with pytest.raises(TensorError, match=r"model\.language_model\S* is not .*layout and experts"):
        Converter("to-custom", config=config).convert(raw)
    raw["model.language_model.rotary_emb.inv_freq"] = torch.ones(2)
    assert same(Converter("to-custom", config=config, layout="l2").convert(raw), custom)
    with pytest.raises(internvl_bridge.OptionError, match="needs specs or config"):
        Converter("to-hf")
