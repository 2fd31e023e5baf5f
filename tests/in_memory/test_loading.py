"""A custom checkpoint opens as transformers' own model and processor, and nothing is written for it.

Runs in transformers 5 and in 4.57 (``make test-matrix``). What is expected is what transformers itself loads from the
directory that to_hf writes (which test_parity.py and test_loading.py judge), and the logits of upstream's own models.
"""

import gc
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from chunked_dumps import save_in_chunks
from PIL import Image
from safetensors.torch import load_file, save_file
from silence import in_silence
from support import DATA, NAMES, add_modules, copy_custom, edit_json, load_all, rewrite, same_bits, shard
from transformers import AutoConfig, AutoProcessor, GenerationConfig, InternVLForConditionalGeneration
from transformers.utils import logging as transformers_logging

import internvl_bridge
from internvl_bridge.in_memory import loading
from internvl_bridge.in_memory.mapped_tensors import mapped_tensors
from internvl_bridge.mapping.plan import identity
from internvl_bridge.places import hub
from internvl_bridge.storage.source_shards import open_checkpoint

# numpy asks tensors for a newer protocol than torch's, where transformers 4's InternVLProcessor adds up tiles.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")

transformers_logging.disable_progress_bar()

MAJOR = int(transformers.__version__.split(".")[0])
TOLERANCE = 2e-5  # as in test_parity.py
MOE, TIED = "qwen3moe-6b", "qwen3-300m-tied"
HEAD, EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A stored custom checkpoint and its HF twin, made once: not to be changed."""

    @cache
    def make(name: str) -> tuple[Path, Path]:
        directory = tmp_path_factory.mktemp("converted")
        internvl_bridge.to_hf(copy_custom(name, directory / "custom"), directory / "hf")
        return directory / "custom", directory / "hf"

    return make


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary directories are made; none may be left."""
    home = tmp_path / "temporary"
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    yield home
    assert list(home.iterdir()) == []


def theirs(directory: Path, **options: Any) -> Any:
    return InternVLForConditionalGeneration.from_pretrained(directory, **options)


def meaning(config: Any) -> dict[str, Any]:
    """What a config says, but for where it was read."""

    def without_name(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: without_name(value) for name, value in values.items() if name != "_name_or_path"}

    return without_name(config.to_dict())


def assert_same_tensors(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not same_bits(found[key], wanted[key])] == []


def assert_same_model(found: Any, wanted: Any) -> None:
    """The two models agree in everything that loading decides."""
    assert type(found) is type(wanted) is InternVLForConditionalGeneration
    assert_same_tensors(found.state_dict(), wanted.state_dict())
    assert_same_tensors(dict(found.named_buffers()), dict(wanted.named_buffers()))
    assert meaning(found.config) == meaning(wanted.config)
    assert found.generation_config.to_dict() == wanted.generation_config.to_dict()
    assert found.dtype == wanted.dtype
    assert found.training is wanted.training is False
    assert found.config._attn_implementation == wanted.config._attn_implementation
    text = [model.config.text_config._attn_implementation for model in (found, wanted)]
    assert text[0] == text[1]
    assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in wanted.parameters()]
    assert is_tied(found) is is_tied(wanted)


def is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def logits_of(model: Any, name: str) -> torch.Tensor:
    expected = load_file(DATA / "expected" / f"{name}.safetensors")
    with torch.no_grad():
        return model(pixel_values=expected["pixel_values"], input_ids=expected["input_ids"]).logits


# --- The model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_model_of_the_converted_directory(name: str, converted):
    custom, hf = converted(name)
    before = {path: path.read_bytes() for path in custom.iterdir()}
    with in_silence():
        model = internvl_bridge.load_pretrained(custom)
    assert_same_model(model, theirs(hf))
    assert is_tied(model) is (name == TIED)
    assert model.name_or_path == model.config.name_or_path == str(custom)
    assert model.generation_config.eos_token_id is not None
    assert {path: path.read_bytes() for path in custom.iterdir()} == before


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_upstreams_model_computed(name: str, converted):
    custom, hf = converted(name)
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    found = logits_of(internvl_bridge.load_pretrained(str(custom), **options), name)
    assert torch.equal(found, logits_of(theirs(hf, **options), name))
    expected = load_file(DATA / "expected" / f"{name}.safetensors")["logits"]
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= TOLERANCE


OPTIONS: tuple[dict[str, Any], ...] = (
    {"dtype": torch.bfloat16},
    {"dtype": torch.float16},
    {"dtype": torch.float32},
    {"dtype": "float32"},
    {"dtype": "auto"},
    {"torch_dtype": torch.bfloat16},
    {"attn_implementation": "eager"},
    {"attn_implementation": "sdpa", "dtype": "auto"},
    {"use_safetensors": True},
    {"trust_remote_code": True},
    {"low_cpu_mem_usage": True},
    {"token": None, "revision": "main", "local_files_only": True, "force_download": False, "cache_dir": None},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["qwen2-300m", TIED, MOE])
def test_options_mean_what_they_mean_to_transformers(name: str, options: dict[str, Any], converted):
    custom, hf = converted(name)
    assert_same_model(internvl_bridge.load_pretrained(custom, **options), theirs(hf, **options))


@pytest.mark.parametrize(
    "options",
    [{"vision_feature_layer": -2}, {"image_token_id": 3}, {"output_attentions": True}, {"config": None}],
    ids=str,
)
def test_fields_of_the_config_can_be_given_as_options(options: dict[str, Any], converted):
    """Only in config.json: transformers has some of them in generation_config.json too, by accident."""
    custom, hf = converted("qwen2-300m")
    found, wanted = internvl_bridge.load_pretrained(custom, **options), theirs(hf, **options)
    assert meaning(found.config) == meaning(wanted.config)
    assert_same_tensors(found.state_dict(), wanted.state_dict())


@pytest.mark.parametrize("place", [{"": "cpu"}, "cpu", "auto"], ids=str)
def test_a_device_map_does_or_fails_as_in_transformers(place: Any, converted):
    custom, hf = converted("qwen2-300m")
    if find_spec("accelerate"):
        assert_same_model(internvl_bridge.load_pretrained(custom, device_map=place), theirs(hf, device_map=place))
        return
    with pytest.raises(Exception, match="accelerate") as expected:
        theirs(hf, device_map=place)
    with pytest.raises(type(expected.value)) as found:
        internvl_bridge.load_pretrained(custom, device_map=place)
    assert type(found.value) is type(expected.value)
    assert str(found.value) == str(expected.value)
    assert not isinstance(found.value, internvl_bridge.BridgeError)


def test_an_option_that_nobody_knows_fails_as_in_transformers(converted):
    custom, hf = converted("qwen2-300m")
    with pytest.raises(TypeError, match="bogus") as expected:
        theirs(hf, bogus=1)
    with pytest.raises(TypeError) as found:
        internvl_bridge.load_pretrained(custom, bogus=1)
    assert str(found.value) == str(expected.value)


def test_loading_information_comes_back_where_it_is_asked_for(converted):
    custom, hf = converted(TIED)
    model, info = internvl_bridge.load_pretrained(custom, output_loading_info=True)
    expected, expected_info = theirs(hf, output_loading_info=True)
    assert_same_model(model, expected)
    assert info == expected_info
    assert not any(info.values())
    assert not isinstance(internvl_bridge.load_pretrained(custom, output_loading_info=False), tuple)


def test_a_subfolder_is_not_ignored(converted, tmp_path: Path):
    """It would be another model than the one that was asked for."""
    shutil.copytree(converted("qwen2-300m")[0], tmp_path / "home")
    shutil.copytree(converted("llama-6b")[0], tmp_path / "home" / "sub")
    try:
        model = internvl_bridge.load_pretrained(tmp_path / "home", subfolder="sub")
    except internvl_bridge.BridgeError:
        return
    assert model.config.text_config.model_type == "llama"


def test_a_config_of_ones_own_is_taken(converted):
    custom, hf = converted("qwen2-300m")
    config = AutoConfig.from_pretrained(hf)
    config.text_config.rms_norm_eps = 0.25
    config.vision_feature_layer = -2
    model = internvl_bridge.load_pretrained(custom, config=config)
    assert model.config.text_config.rms_norm_eps == 0.25
    assert_same_model(model, theirs(hf, config=config))
    assert config._name_or_path == str(hf)


def test_a_config_may_be_a_path(converted):
    custom, hf = converted("qwen2-300m")
    assert_same_model(internvl_bridge.load_pretrained(custom, config=str(hf)), theirs(hf))


def test_a_generation_config_of_ones_own_is_taken(converted):
    custom, hf = converted("qwen2-300m")
    own = GenerationConfig(max_new_tokens=7, eos_token_id=5)
    model = internvl_bridge.load_pretrained(custom, generation_config=own)
    assert (model.generation_config.max_new_tokens, model.generation_config.eos_token_id) == (7, 5)
    assert_same_model(model, theirs(hf, generation_config=own))


def test_what_the_source_says_about_generation_holds(tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    (custom / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.25, "eos_token_id": [3, 474]}')
    model = internvl_bridge.load_pretrained(custom)
    assert (model.generation_config.temperature, model.generation_config.eos_token_id) == (0.25, [3, 474])


def test_without_a_generation_config_generation_ends_with_a_turn(tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    (custom / "generation_config.json").unlink()
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    model = internvl_bridge.load_pretrained(custom)
    assert model.generation_config.eos_token_id == [474, 2]  # <|im_end|>, and what config.json says
    assert_same_model(model, theirs(tmp_path / "hf"))


def test_it_generates_and_trains(converted):
    custom, hf = converted("qwen2-300m")
    expected = load_file(DATA / "expected" / "qwen2-300m.safetensors")
    inputs = {"pixel_values": expected["pixel_values"], "input_ids": expected["input_ids"]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    models = [
        model.train(mode=False)
        for model in (internvl_bridge.load_pretrained(custom, dtype=torch.float32), theirs(hf, dtype=torch.float32))
    ]
    found, wanted = (model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=474) for model in models)
    assert found.tolist() == wanted.tolist()
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
    assert_same_tensors(models[0].state_dict(), models[1].state_dict())
    assert not same_bits(models[0].get_input_embeddings().weight, theirs(hf).get_input_embeddings().weight)


# --- Wherever the tensors are -------------------------------------------------------------------------------------


def scatter(directory: Path) -> None:
    """Three shards in which neighbours, such as a projection's weight and bias, do not lie together."""
    numbers = {key: number for number, key in enumerate(sorted(load_all(directory)))}
    shard(directory, lambda key: numbers[key] % 3)


def pickle(directory: Path) -> None:
    torch.save(load_all(directory), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def pickle_in_shards(directory: Path) -> None:
    tensors = load_all(directory)
    names = {key: f"pytorch_model-{1 + number % 2:05d}-of-00002.bin" for number, key in enumerate(tensors)}
    for name in set(names.values()):
        torch.save({key: tensor for key, tensor in tensors.items() if names[key] == name}, directory / name)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (directory / "model.safetensors").unlink()


def chunk(directory: Path) -> None:
    save_in_chunks(directory, load_all(directory))
    (directory / "model.safetensors").unlink()


def misalign(directory: Path) -> None:
    """A header of odd length, behind which no element of two bytes lies where a processor expects it."""
    path = directory / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes((length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[8 + length :])


@pytest.mark.parametrize("keep", [scatter, pickle, pickle_in_shards, chunk, misalign], ids=lambda keep: keep.__name__)
@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-6b", TIED, MOE])
def test_weights_may_be_kept_in_any_way(name: str, keep: Callable[[Path], None], converted, tmp_path: Path):
    custom = copy_custom(name, tmp_path / "custom")
    keep(custom)
    model = internvl_bridge.load_pretrained(custom, dtype="auto")
    assert_same_model(model, theirs(converted(name)[1], dtype="auto"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_weights_of_other_dtypes_keep_them_if_that_is_asked_for(dtype: torch.dtype, tmp_path: Path):
    custom = copy_custom("internlm2-300m", tmp_path / "custom")
    rewrite(custom, lambda tensors: tensors.update({key: tensor.to(dtype) for key, tensor in tensors.items()}))
    edit_json(custom / "config.json", lambda config: config.pop("torch_dtype", None))
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    model = internvl_bridge.load_pretrained(custom, dtype="auto")
    assert model.dtype == dtype
    assert_same_model(model, theirs(tmp_path / "hf", dtype="auto"))


@pytest.mark.parametrize("experts", ["split", "fused"])
@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("name", ["qwen2-300m", TIED, MOE])
def test_an_hf_checkpoint_opens_in_any_spelling(name: str, layout: str, experts: str, converted, tmp_path: Path):
    custom, hf = converted(name)
    internvl_bridge.to_hf(custom, tmp_path / "spelled", layout=layout, experts=experts)
    with in_silence():
        model = internvl_bridge.load_pretrained(tmp_path / "spelled")
    assert_same_model(model, theirs(hf))
    assert_same_model(internvl_bridge.load_pretrained(hf, dtype="auto"), theirs(hf, dtype="auto"))


@pytest.mark.parametrize("sample", sorted(path.name for path in (DATA / "hf").iterdir()))
def test_what_other_versions_wrote_opens(sample: str):
    name = sample.partition("@")[0]
    model = internvl_bridge.load_pretrained(
        DATA / "hf" / sample, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    )
    expected = load_file(DATA / "expected" / f"{name}.safetensors")["logits"]
    assert (logits_of(model, name) - expected).abs().max().item() <= TOLERANCE
    assert is_tied(model) is (name == TIED)


@pytest.mark.parametrize("of_hf", [False, True])
def test_a_head_that_copies_the_embeddings_of_a_tied_model_is_tied(of_hf: bool, converted, tmp_path: Path):
    custom, hf = converted(TIED)
    source = tmp_path / "source"
    if of_hf:
        shutil.copytree(hf, source)
        (source / "internvl_bridge.json").unlink()
    else:
        internvl_bridge.to_custom(hf, source, tied="copy")
    rewrite(source, lambda tensors: tensors.update({HEAD: tensors[EMBEDDINGS].clone()}))
    model = internvl_bridge.load_pretrained(source)
    assert is_tied(model)
    assert_same_tensors(model.state_dict(), theirs(hf).state_dict())
    assert len(list(model.parameters())) == len(load_all(DATA / "custom" / TIED)) + qkv_parts(custom)


def qkv_parts(custom: Path) -> int:
    """How many more tensors q, k and v are than the fused qkv of the vision tower."""
    return 2 * sum(".attn.qkv." in key for key in load_all(custom))


def test_a_head_of_its_own_stays_one_whatever_config_json_says(tmp_path: Path):
    custom = copy_custom("qwen3-300m", tmp_path / "custom")
    edit_json(custom / "config.json", lambda config: config.update(tie_word_embeddings=True))
    edit_json(custom / "config.json", lambda config: config["llm_config"].update(tie_word_embeddings=True))
    model = internvl_bridge.load_pretrained(custom)
    assert not is_tied(model)
    assert model.config.tie_word_embeddings is model.config.text_config.tie_word_embeddings is False
    assert same_bits(model.get_output_embeddings().weight.bfloat16(), load_all(custom)[HEAD])


def test_remote_code_is_not_run(tmp_path: Path, converted):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    add_modules(custom)
    edit_json(
        custom / "config.json",
        lambda config: config.update(
            auto_map={
                "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
                "AutoModel": "modeling_internvl_chat.InternVLChatModel",
            }
        ),
    )
    for trust in ({}, {"trust_remote_code": True}):
        model = internvl_bridge.load_pretrained(custom, **trust)
        assert type(model).__module__ == "transformers.models.internvl.modeling_internvl"
        assert type(model.config).__module__ == "transformers.models.internvl.configuration_internvl"
        processor = internvl_bridge.load_processor(custom, **trust)
        assert type(processor).__module__ == "transformers.models.internvl.processing_internvl"
    assert_same_model(model, theirs(converted("qwen2-300m")[1]))


def test_relative_paths_and_strings_are_paths(converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    custom, _ = converted("qwen2-300m")
    monkeypatch.chdir(custom.parent)
    for path in ("custom", Path("custom"), "./custom/"):
        assert internvl_bridge.load_pretrained(path).name_or_path == str(path)
    (tmp_path / "link").symlink_to(custom)
    assert internvl_bridge.load_pretrained(tmp_path / "link").name_or_path == str(tmp_path / "link")


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m", TIED, MOE])
def test_what_is_saved_afterwards_loads_as_the_same_model(name: str, converted, tmp_path: Path):
    custom, hf = converted(name)
    model = internvl_bridge.load_pretrained(custom, dtype="auto")
    model.save_pretrained(tmp_path / "saved")
    assert_same_model(theirs(tmp_path / "saved", dtype="auto"), theirs(hf, dtype="auto"))
    again = internvl_bridge.load_pretrained(tmp_path / "saved", dtype="auto")
    assert_same_tensors(again.state_dict(), model.state_dict())
    written = [path.read_text() for path in (tmp_path / "saved").glob("*.json")]
    assert all("internvl-bridge-" not in text and str(custom) not in text for text in written)
    report = internvl_bridge.to_custom(tmp_path / "saved", tmp_path / "back", reference=custom)
    assert report.reference is not None
    assert report.reference.identical or name == TIED


def test_a_model_can_be_saved_over_its_source(converted, tmp_path: Path):
    """In a process of its own, which writing into a mapped file could end."""
    for directory in converted("qwen2-300m"):
        shutil.copytree(directory, tmp_path / directory.name)
    run_python(
        """
        for path in (source / "custom", source / "hf"):
            model = internvl_bridge.load_pretrained(path, dtype="auto")
            for parameter in model.parameters():
                parameter.data.add_(1)
            before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
            model.save_pretrained(path)
            after = transformers.InternVLForConditionalGeneration.from_pretrained(path, dtype="auto").state_dict()
            assert all(torch.equal(before[key], after[key]) for key in before)
            assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
        """,
        tmp_path,
    )


# --- Memory -------------------------------------------------------------------------------------------------------


PRELUDE = """
import sys, torch
from pathlib import Path
operators = torch.library.Library("torchvision", "FRAGMENT")  # as in conftest.py
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import transformers, internvl_bridge
transformers.utils.logging.disable_progress_bar()
source = Path(sys.argv[1])
"""


def run_python(code: str, source: Path) -> str:
    """What a process prints that runs ``code`` with ``source``."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def mapped_files(model: Any) -> dict[str, str | None]:
    """The file whose mapping each parameter lies in, or None."""
    maps = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, stop = (int(number, 16) for number in fields[0].split("-"))
        maps.append((start, stop, fields[5] if len(fields) > 5 else ""))
    found: dict[str, str | None] = {}
    for key, parameter in model.named_parameters():
        paths = [path for start, stop, path in maps if start <= parameter.data_ptr() < stop]
        found[key] = next((path for path in paths if path.endswith((".safetensors", ".bin"))), None)
    return found


COPIED = {  # tensors that are put together of several runs, here or (fused experts) by transformers 5
    "qwen2-300m": r"$^",
    TIED: r"$^",
    "gptoss-300m": r"$^",
    "internlm2-300m": r"language_model\..*\.self_attn\.[qkv]_proj\.weight",
    MOE: r"\.mlp\.experts\." if MAJOR >= 5 else r"$^",
}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
@pytest.mark.parametrize("keep", [None, scatter, pickle])
@pytest.mark.parametrize("name", COPIED)
def test_parameters_are_views_of_the_mapped_files(name: str, keep: Callable[[Path], None] | None, tmp_path: Path):
    custom = copy_custom(name, tmp_path / "custom")
    if keep is not None:
        keep(custom)
    model = internvl_bridge.load_pretrained(custom, dtype="auto")
    found = mapped_files(model)
    assert [key for key, path in found.items() if not path] == [key for key in found if re.search(COPIED[name], key)]
    assert {Path(path).parent for path in found.values() if path} == {custom}


def test_tensors_that_a_processor_could_not_address_are_copied(tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    misalign(custom)
    model = internvl_bridge.load_pretrained(custom, dtype="auto")
    assert not any(mapped_files(model).values())
    assert all(parameter.data_ptr() % parameter.element_size() == 0 for parameter in model.parameters())


def test_writing_to_parameters_changes_no_file(tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in custom.iterdir()}
    model = internvl_bridge.load_pretrained(custom, dtype="auto")
    for parameter in model.parameters():
        parameter.data.fill_(0.5)
    assert all(bool((parameter == 0.5).all()) for parameter in model.parameters())
    unchanged = internvl_bridge.load_pretrained(custom, dtype="auto")
    assert not bool((unchanged.get_input_embeddings().weight == 0.5).all())
    del model, parameter
    gc.collect()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in custom.iterdir()} == before


def test_a_checkpoint_may_be_read_only(tmp_path: Path, converted):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    for path in custom.iterdir():
        path.chmod(0o444)
    custom.chmod(0o555)
    try:
        model = internvl_bridge.load_pretrained(custom, dtype="auto")
        model.get_input_embeddings().weight.data.zero_()
        assert_same_model(internvl_bridge.load_pretrained(custom), theirs(converted("qwen2-300m")[1]))
    finally:
        custom.chmod(0o755)


def test_tensors_outlive_the_names_of_their_files(tmp_path: Path, converted):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    model = internvl_bridge.load_pretrained(custom, dtype="auto")
    shutil.rmtree(custom)
    gc.collect()
    assert_same_tensors(model.state_dict(), theirs(converted("qwen2-300m")[1], dtype="auto").state_dict())


LARGE = 160 << 20  # bytes of the embeddings, and of the head


def enlarge(directory: Path) -> int:
    """Let a checkpoint have a vocabulary of a million tokens, whose tensors lie in holes of the file: its size."""
    tensors = load_all(directory)
    hidden = tensors[EMBEDDINGS].shape[1]
    vocabulary = LARGE // hidden // 2
    large = {EMBEDDINGS: [vocabulary, hidden], HEAD: [vocabulary, hidden]}
    header, position = {}, 0
    small = {key: tensor.clone() for key, tensor in tensors.items() if key not in large}  # not in the file any more
    for key, shape in [*((key, list(tensor.shape)) for key, tensor in small.items()), *large.items()]:
        size = 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in small.values():
            file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        file.truncate(8 + len(raw) + position)
    edit_json(directory / "config.json", lambda config: config["llm_config"].update(vocab_size=vocabulary))
    return position


# RssAnon does not count clean pages of mapped files. The thread sees what is allocated only for a while.
MEASURE = """
        import threading, time
        def anonymous():
            [line] = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon")]
            return int(line.split()[1]) * 1024
        small = internvl_bridge.load_pretrained(source / "small", dtype="auto")
        before, peak, done = anonymous(), 0, False
        def watch():
            global peak
            while not done:
                peak = max(peak, anonymous())
                time.sleep(0.001)
        thread = threading.Thread(target=watch)
        thread.start()
        model = {LOAD}
        done = True
        thread.join()
        loaded = anonymous()
        weight = model.get_input_embeddings().weight
        total = float(weight.sum())
        read = anonymous()
        weight.data[::2].fill_(1)
        print(peak - before, loaded - before, read - before, anonymous() - read)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_loading_takes_no_memory_for_the_weights(tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    shutil.copytree(custom, tmp_path / "small")
    size = enlarge(custom)
    assert size >= 256 << 20
    ours = MEASURE.replace("{LOAD}", "internvl_bridge.load_pretrained(source / 'custom', dtype='auto')")
    peak, loaded, read, written = map(int, run_python(ours, tmp_path).split())
    assert peak < 48 << 20
    assert loaded < 48 << 20
    assert read < 64 << 20  # adding up takes some
    assert LARGE - (16 << 20) < written < LARGE + (32 << 20)  # the private pages


# --- The files themselves -----------------------------------------------------------------------------------------


def test_mapped_tensors_are_those_of_the_file(tmp_path: Path):
    tensors = {
        "matrix": torch.arange(12, dtype=torch.float32).view(3, 4),
        "double": torch.tensor([2.5], dtype=torch.float64),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "half": torch.tensor([1.5, float("nan"), -0.0], dtype=torch.float16),
        "brain": torch.randn(2, 3, 5).to(torch.bfloat16),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    model = SimpleNamespace(checkpoint=open_checkpoint(tmp_path))
    found = mapped_tensors(identity(specs_in(model.checkpoint)), model.checkpoint)
    assert_same_tensors(found, tensors)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())


def specs_in(checkpoint: Any) -> Any:
    from internvl_bridge.checkpoint.byte_ranges import specs_of

    return specs_of(checkpoint)


# --- What is refused ----------------------------------------------------------------------------------------------


def refusal(action: Callable[[], Any], kind: type[Exception] = internvl_bridge.BridgeError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert isinstance(caught.value, internvl_bridge.BridgeError)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert caught.value.remedy.endswith(".")
    return message


def test_tensors_of_ones_own_are_refused(converted):
    custom, _ = converted("qwen2-300m")
    message = refusal(lambda: internvl_bridge.load_pretrained(custom, state_dict={}))
    assert "Leave out state_dict" in message


def spoil_with(key: str) -> Callable[[Path], None]:
    return lambda custom: rewrite(custom, lambda tensors: tensors.update({key: torch.zeros(2, 2)}))


def configured(**fields: Any) -> Callable[[Path], None]:
    return lambda custom: edit_json(custom / "config.json", lambda config: config.update(fields))


SPOILED: dict[str, Callable[[Path], object]] = {
    "LoRA": spoil_with("language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"),
    "Flash": spoil_with("mlp2.0.weight"),
    "quantised": spoil_with("language_model.lm_head.qweight"),
    "neither checkpoint format": spoil_with("vision_model.encoder.layers.0.attn.gate.weight"),
    "ps_version": configured(ps_version="v1"),
    "norm1": lambda custom: rewrite(custom, lambda tensors: tensors.pop("vision_model.encoder.layers.0.norm1.weight")),
    "config.json": lambda custom: (custom / "config.json").unlink(),
    "model.safetensors": lambda custom: (custom / "model.safetensors").unlink(),
    "tokenizer": lambda custom: [(custom / name).unlink() for name in ("tokenizer.json", "vocab.json")],
    "does not belong": lambda custom: shutil.copy(
        custom / "model.safetensors", custom / "model-00001-of-2.safetensors"
    ),
}


@pytest.mark.parametrize("words", SPOILED)
def test_it_is_refused_as_a_conversion_is(words: str, tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    SPOILED[words](custom)
    expected = refusal(lambda: internvl_bridge.to_hf(custom, tmp_path / "hf"))
    assert words in expected
    assert refusal(lambda: internvl_bridge.load_pretrained(custom)) == expected
    assert refusal(lambda: internvl_bridge.load_processor(custom)) == expected


@pytest.mark.parametrize("load", [internvl_bridge.load_pretrained, internvl_bridge.load_processor])
def test_a_directory_that_is_no_checkpoint_is_refused(load: Callable[..., Any], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "config.json" in refusal(lambda: load(tmp_path / "empty"))


NOWHERE = [
    "OpenGVLab/InternVL3_5-8B",
    "no-organisation",
    "/no/such/directory",
    "../nowhere",
    "a/b/c/d",
    "with space/x",
    "",
]


@pytest.mark.parametrize("name", NOWHERE)
@pytest.mark.parametrize("load", [internvl_bridge.load_pretrained, internvl_bridge.load_processor])
def test_what_is_neither_a_directory_nor_in_reach_is_refused(load: Callable[..., Any], name: str, tmp_path: Path):
    message = refusal(lambda: load(name, cache_dir=tmp_path / "cache"))
    if name:
        assert name in message
        assert "Give the directory of a checkpoint" in message


def test_a_file_is_no_directory(converted, tmp_path: Path):
    custom, _ = converted("qwen2-300m")
    for file in (custom / "model.safetensors", tmp_path / "gone"):
        assert str(file) in refusal(lambda file=file: internvl_bridge.load_pretrained(file))


def test_an_error_of_the_hub_without_words_is_refused_too(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(hub, "snapshot_download", fail)
    message = refusal(lambda: internvl_bridge.load_pretrained("org/name"))
    assert "org/name" in message
    assert "ConnectionError" in message


def losing(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[..., Any]:
    """transformers' own loading, to which something happens on the way."""
    load = InternVLForConditionalGeneration.from_pretrained

    def from_pretrained(*arguments: Any, state_dict: dict[str, torch.Tensor], **options: Any) -> Any:
        tensors = dict(state_dict)
        change(tensors)
        return load(*arguments, state_dict=tensors, ignore_mismatched_sizes=True, **options)

    return from_pretrained


NORM = "language_model.model.norm.weight"
CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "missing": lambda tensors: tensors.pop(NORM),
    "unexpected": lambda tensors: tensors.update({f"{NORM}.more": tensors[NORM]}),
    "mismatched": lambda tensors: tensors.update({NORM: torch.zeros(3)}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("asks", [False, True])
def test_what_transformers_would_only_report_is_an_error(what: str, asks: bool, converted, monkeypatch):
    custom, _ = converted("qwen2-300m")
    monkeypatch.setattr(InternVLForConditionalGeneration, "from_pretrained", losing(CHANGES[what]))
    message = refusal(
        lambda: internvl_bridge.load_pretrained(custom, output_loading_info=asks), internvl_bridge.DifferenceError
    )
    assert "norm.weight" in message
    assert str(custom) in message
    assert transformers.__version__ in message


def test_errors_of_transformers_leave_no_directory_behind(converted, monkeypatch, temporary: Path):
    custom, _ = converted("qwen2-300m")
    seen = []

    def fail(directory: Path, **_: Any) -> None:
        seen.append(sorted(path.name for path in Path(directory).iterdir()))
        assert Path(directory).parent == temporary
        raise RuntimeError("no")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", fail)
    for load in (internvl_bridge.load_pretrained, internvl_bridge.load_processor):
        with pytest.raises(RuntimeError, match="no"):
            load(custom)
    assert len(seen) == 2
    assert all("config.json" in names and "tokenizer.json" in names for names in seen)
    assert not any(name.endswith((".safetensors", ".bin")) for names in seen for name in names)


# --- Which experts are handed over --------------------------------------------------------------------------------


class Caught(Exception):  # noqa: N818 (no error: it ends loading where the tensors are known)
    """Carries the tensors that transformers would have been given."""


def handed_over(source: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    def catch(name: None, *, state_dict: dict[str, torch.Tensor], **_: Any) -> None:
        assert name is None
        raise Caught(state_dict)

    with monkeypatch.context() as patch:
        patch.setattr(loading.transformers, "__version__", version)
        patch.setattr(InternVLForConditionalGeneration, "from_pretrained", catch)
        with pytest.raises(Caught) as caught:
            internvl_bridge.load_pretrained(source)
    return caught.value.args[0]


VERSIONS = {
    "4.52.4": "split",
    "4.57.6": "split",
    "4.99": "split",
    "5.0.0": "fused",
    "5.0.0rc1": "fused",
    "5.3.1": "fused",
    "5.4.0": "split",
    "5.23.0": "split",
    "5.30.0.dev0": "split",
    "6.0.0": "split",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("of_hf", [False, True])
def test_experts_are_handed_over_as_the_version_reads_them(
    version: str, of_hf: bool, converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    custom, hf = converted(MOE)
    internvl_bridge.to_hf(custom, tmp_path / "there", experts=VERSIONS[version])
    found = handed_over(hf if of_hf else custom, version, monkeypatch)
    assert_same_tensors(found, load_all(tmp_path / "there"))
    assert any(key.endswith(".experts.gate_up_proj") for key in found) is (VERSIONS[version] == "fused")


@pytest.mark.parametrize("name", sorted({*NAMES} - {MOE}))
def test_other_models_have_one_spelling(name: str, converted, monkeypatch: pytest.MonkeyPatch):
    custom, hf = converted(name)
    for version in ("4.57.6", "5.0.0", "5.23.0"):
        assert_same_tensors(handed_over(custom, version, monkeypatch), load_all(hf))


# --- From the hub -------------------------------------------------------------------------------------------------


def cached(
    cache_dir: Path, source: Path, revision: str = "main", commit: str = "0123456789abcdef" * 2 + "01234567"
) -> Path:
    """Put ``source`` into a hub cache as the revision ``revision`` of org/name: links into blobs."""
    home = cache_dir / "models--org--name"
    for name in ("refs", "blobs", f"snapshots/{commit}"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text(commit)
    for number, path in enumerate(sorted(source.iterdir())):
        blob = home / "blobs" / f"{commit[:8]}{number}"
        shutil.copy(path, blob)
        (home / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{blob.name}")
    return home / "snapshots" / commit


@pytest.mark.parametrize("options", [{}, {"local_files_only": True}], ids=str)
@pytest.mark.parametrize("name", ["internlm2-6b", TIED])
def test_a_repository_opens_from_the_cache(name: str, options: dict[str, Any], converted, tmp_path: Path):
    custom, hf = converted(name)
    cached(tmp_path / "cache", custom)
    options = {**options, "cache_dir": tmp_path / "cache"}
    model = internvl_bridge.load_pretrained("org/name", **options)
    assert_same_model(model, theirs(hf))
    assert model.name_or_path == model.config.name_or_path == "org/name"
    processor = internvl_bridge.load_processor("org/name", **options)
    assert processor.tokenizer.name_or_path == "org/name"
    assert ask(processor, words="Hello") == ask(AutoProcessor.from_pretrained(hf), words="Hello")


def test_a_revision_is_the_one_that_was_asked_for(converted, tmp_path: Path):
    (first, first_hf), (second, second_hf) = converted("qwen2-300m"), converted("llama-6b")
    cached(tmp_path, first)
    cached(tmp_path, second, "other", "f" * 40)
    assert_same_model(internvl_bridge.load_pretrained("org/name", cache_dir=tmp_path), theirs(first_hf))
    for revision in ("other", "f" * 40):
        model = internvl_bridge.load_pretrained("org/name", cache_dir=tmp_path, revision=revision)
        assert_same_model(model, theirs(second_hf))
    message = refusal(lambda: internvl_bridge.load_pretrained("org/name", cache_dir=tmp_path, revision="gone"))
    assert "org/name" in message


def test_a_repository_that_is_incomplete_in_the_cache_is_refused(converted, tmp_path: Path):
    snapshot = cached(tmp_path, converted("qwen2-300m")[0])
    (snapshot / "model.safetensors").unlink()
    message = refusal(lambda: internvl_bridge.load_pretrained("org/name", cache_dir=tmp_path))
    assert "model.safetensors" in message


def test_only_what_is_needed_is_downloaded(converted, monkeypatch: pytest.MonkeyPatch):
    custom, hf = converted("qwen2-300m")
    asked: list[tuple[str, dict[str, Any]]] = []

    def download(repo: str, **options: Any) -> str:
        asked.append((repo, options))
        return str(custom)

    monkeypatch.setattr(hub, "snapshot_download", download)
    options = {"revision": "r", "token": "t", "cache_dir": "c", "local_files_only": True, "force_download": True}
    assert_same_model(internvl_bridge.load_pretrained("org/name", **options), theirs(hf))
    internvl_bridge.load_processor("org/name", **options)
    internvl_bridge.load_pretrained("org/name")
    patterns = [call.pop("allow_patterns") for _, call in asked]
    assert [call.pop("ignore_patterns") for _, call in asked] == [["*/*"]] * 3
    assert asked == [("org/name", options), ("org/name", options), ("org/name", {})]
    for allowed in patterns:
        offered = {path.name for name in ("qwen2-300m", "internlm2-300m") for path in converted(name)[0].iterdir()}
        offered |= {"model.safetensors.index.json", "model-00001-of-00004.safetensors", "chat_template.jinja"}
        assert {name for name in offered if any(fnmatch(name, pattern) for pattern in allowed)} == offered
        others = ["modeling_internvl_chat.py", "pytorch_model.bin", "training_args.bin", "optimizer.pt", "cat.png"]
        assert not [name for name in others if any(fnmatch(name, pattern) for pattern in allowed)]


# --- The processor ------------------------------------------------------------------------------------------------


def picture(width: int, height: int) -> Image.Image:
    """An image in which no two rows, columns or channels are alike."""
    y, x = np.mgrid[:height, :width]
    channels = np.stack([(5 * x + y) % 256, (3 * y + 2 * x) % 256, (x * y + 7) % 256], axis=-1)
    return Image.fromarray(channels.astype(np.uint8))


def ask(processor: Any, *images: Image.Image, words: str) -> dict[str, Any]:
    """Everything that the processor makes of a conversation, tensors as lists."""
    content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": words}]
    messages = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return {"prompt": prompt, **{name: tensor.tolist() for name, tensor in inputs.items()}}


def files_saved_by(processor: Any, directory: Path) -> dict[str, bytes]:
    processor.save_pretrained(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_processor_of_the_converted_directory(name: str, converted, tmp_path: Path):
    custom, hf = converted(name)
    with in_silence():
        processor = internvl_bridge.load_processor(custom)
    wanted = AutoProcessor.from_pretrained(hf)
    assert type(processor) is type(wanted)
    assert ask(processor, picture(140, 60), picture(30, 90), words="两 <image> tiles?") == ask(
        wanted, picture(140, 60), picture(30, 90), words="两 <image> tiles?"
    )
    assert ask(processor, words="no image") == ask(wanted, words="no image")
    assert processor.chat_template == wanted.chat_template
    assert processor.image_processor.to_dict() == wanted.image_processor.to_dict()
    assert processor.tokenizer.get_vocab() == wanted.tokenizer.get_vocab()
    assert processor.tokenizer.name_or_path == str(custom)
    assert files_saved_by(processor, tmp_path / "found") == files_saved_by(wanted, tmp_path / "expected")
    again = AutoProcessor.from_pretrained(tmp_path / "found")
    assert ask(again, picture(140, 60), words="again") == ask(wanted, picture(140, 60), words="again")


@pytest.mark.parametrize(
    "options", [{"padding_side": "right"}, {"min_patches": 2, "max_patches": 3}, {"model_max_length": 77}], ids=str
)
def test_options_go_to_the_processor(options: dict[str, Any], converted):
    custom, hf = converted("qwen2-300m")
    processor, wanted = internvl_bridge.load_processor(custom, **options), AutoProcessor.from_pretrained(hf, **options)
    assert processor.tokenizer.padding_side == wanted.tokenizer.padding_side
    assert processor.tokenizer.model_max_length == wanted.tokenizer.model_max_length
    assert processor.image_processor.to_dict() == wanted.image_processor.to_dict()
    assert ask(processor, picture(200, 60), words="?") == ask(wanted, picture(200, 60), words="?")
    name, value = next(iter(options.items()))
    holder = processor.image_processor if "patches" in name else processor.tokenizer
    assert getattr(holder, name) == value


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-6b"])
def test_the_processor_of_an_hf_checkpoint_opens_alike(name: str, converted):
    custom, hf = converted(name)
    found, wanted = internvl_bridge.load_processor(hf), internvl_bridge.load_processor(custom)
    assert ask(found, picture(90, 50), words="Hi") == ask(wanted, picture(90, 50), words="Hi")


def test_processor_and_model_go_together(converted):
    custom, _ = converted("qwen2-300m")
    model = internvl_bridge.load_pretrained(custom, dtype=torch.float32)
    processor = internvl_bridge.load_processor(custom)
    messages = [
        {"role": "user", "content": [{"type": "image", "image": picture(56, 56)}, {"type": "text", "text": "?"}]}
    ]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**inputs, max_new_tokens=2, do_sample=False, pad_token_id=474)
    assert tokens.shape[1] > inputs["input_ids"].shape[1]
    picked = io.BytesIO()
    torch.save(model.state_dict(), picked)
    picked.seek(0)
    assert_same_tensors(torch.load(picked), model.state_dict())


def test_the_names_of_the_package_are_these_functions():
    assert internvl_bridge.load_pretrained is loading.load_pretrained
    assert internvl_bridge.load_processor is loading.load_processor
