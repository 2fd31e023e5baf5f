"""Which format a config.json is of, and what is refused although it looks similar."""

import json
import re
from math import inf
from pathlib import Path
from typing import Any

import pytest
from support import DATA

from internvl_bridge.errors import CheckpointError, CompanionFileError, ConfigError, UnsupportedModelError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.file import detect_format, read_config, section
from internvl_bridge.metadata.json_files import JsonFile, read_json_file


def config_of(**values: Any) -> JsonFile:
    return JsonFile(Path("model/config.json"), json.dumps(values), values)


@pytest.mark.parametrize("directory", sorted((DATA / "custom").iterdir()), ids=lambda path: path.name)
def test_stored_custom_checkpoints_are_custom(directory: Path) -> None:
    assert detect_format(read_config(directory)) is Format.CUSTOM


@pytest.mark.parametrize("directory", sorted((DATA / "hf").iterdir()), ids=lambda path: path.name)
def test_stored_hf_checkpoints_are_hf(directory: Path) -> None:
    assert detect_format(read_config(directory)) is Format.HF


def test_what_is_not_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        read_config(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("base", "named"),
    [("OpenGVLab/InternVL3-8B", "an adapter of 'OpenGVLab/InternVL3-8B', not"), (None, "an adapter, not")],
)
def test_an_adapter_is_not_taken_for_a_checkpoint_without_a_config(base: Any, named: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    with pytest.raises(CheckpointError, match=named) as error:
        read_config(tmp_path)

    assert "internvl-bridge merge BASE OUTPUT --adapter" in error.value.remedy


@pytest.mark.parametrize("weights", ["model-00001-of-00002.safetensors", "pytorch_model.bin"])
def test_weights_without_a_config_lack_only_that(weights: str, tmp_path: Path) -> None:
    (tmp_path / weights).write_bytes(b"")
    (tmp_path / "global_step500").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json does not exist.*add --config DIR"):
        read_config(tmp_path)


def test_the_parent_of_checkpoints_is_answered_with_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-500").mkdir()
    with pytest.raises(CheckpointError, match=r"Give one of them: .*/checkpoint-500"):
        read_config(tmp_path)


def test_an_adapter_beside_a_checkpoint_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").symlink_to("nowhere")

    assert read_config(tmp_path).values == {}


@pytest.mark.parametrize("architectures", [None, []])
@pytest.mark.parametrize(("model_type", "found"), [("internvl_chat", Format.CUSTOM), ("internvl", Format.HF)])
def test_the_model_type_alone_decides_where_no_architecture_is_named(
    model_type: str, found: Format, architectures: Any
) -> None:
    assert detect_format(config_of(model_type=model_type)) is found
    assert detect_format(config_of(model_type=model_type, architectures=architectures)) is found


@pytest.mark.parametrize(
    ("model_type", "architectures"),
    [
        ("internvl_chat", ["MonoInternVLForConditionalGeneration"]),
        ("internvl_chat", ["InternVLUModel"]),
        ("internvl_chat", ["InternVLForConditionalGeneration"]),
        ("internvl_chat", ["InternVLChatModel", "InternVLChatModel"]),
        ("internvl_chat", "InternVLChatModel"),
        ("internvl", ["InternVLChatModel"]),
        ("internvl", [None]),
        ("internvl", {"0": "InternVLForConditionalGeneration"}),
        ("interns1", ["InternS1ForConditionalGeneration"]),
        ("eagle_chat", ["Eagle2ChatModel"]),
        ("qwen2_vl", ["Qwen2VLForConditionalGeneration"]),
        ("qwen2_vl", ["InternVLChatModel"]),
        (None, ["InternVLChatModel"]),
        (None, None),
        (["internvl"], None),
        ({}, []),
        (1, None),
        ("InternVL", None),
    ],
)
def test_relatives_and_oddities_are_refused_by_what_they_say(model_type: Any, architectures: Any) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        detect_format(config_of(model_type=model_type, architectures=architectures))

    assert f"model/config.json describes a model of type {model_type!r} with" in error.value.reason
    assert "Mono-InternVL, InternVL-U, Intern-S1 and Eagle are different models" in error.value.remedy
    if architectures:
        assert f"with architectures {architectures!r}. That is not" in error.value.reason


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"model_type": "internvl_chat", "llm_config": {}}, "vision_config"),
        ({"model_type": "internvl_chat", "vision_config": {}}, "llm_config"),
        ({"model_type": "internvl_chat", "vision_config": {}, "text_config": {}}, "llm_config"),
        ({"model_type": "internvl", "vision_config": {}}, "text_config"),
        ({"model_type": "internvl", "vision_config": {}, "llm_config": {}}, "text_config"),
        ({"model_type": "internvl", "vision_config": None, "text_config": {}}, "vision_config"),
        ({"model_type": "internvl", "vision_config": [], "text_config": {}}, "vision_config"),
        ({"model_type": "internvl", "vision_config": {}, "text_config": "qwen2"}, "text_config"),
    ],
)
def test_a_config_without_its_two_models_is_refused(values: dict[str, Any], missing: str) -> None:
    with pytest.raises(ConfigError, match=f"^model/config.json does not have an object '{missing}'"):
        describe(config_of(**values))


def test_a_section_is_given_as_it_is() -> None:
    config = config_of(model_type="internvl", vision_config={"a": 1}, text_config={})

    assert section(config, "vision_config") == {"a": 1}


def test_the_formats_are_each_others_other() -> None:
    assert Format.CUSTOM.other is Format.HF
    assert Format.HF.other is Format.CUSTOM


def test_a_config_is_read_with_its_exact_text(tmp_path: Path) -> None:
    text = '{\r\n\t"b": 1,  "a": [1e-06, "\u00fc", null]}\n\n'
    (tmp_path / "config.json").write_bytes(text.encode())

    config = read_config(tmp_path)

    assert config.text == text
    assert config.values == {"b": 1, "a": [1e-06, "\u00fc", None]}
    assert config.path == tmp_path / "config.json"


def test_a_byte_order_mark_and_infinity_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": -Infinity}')
    config = read_config(tmp_path)
    assert config.values == {"a": -inf}
    assert config.text == '{"a": -Infinity}'


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "a JSON object was expected, not list"),
        (b"null", "a JSON object was expected, not NoneType"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -0}', "-0 is not a whole number"),
        (b'{"a": 1e999}', "1e999 is beyond all numbers"),
        (b'{"a": "\xff"}', "not valid Unicode"),
        (b'{"a": "\\ud800"}', "not valid Unicode"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_malformed_json_is_refused_with_its_path(tmp_path: Path, raw: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(raw)

    with pytest.raises(ConfigError, match=re.escape(reason)) as error:
        read_config(tmp_path)

    assert str(tmp_path / "config.json") in error.value.reason


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json does not exist\."):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("model_type", "architectures", "part"),
    [
        ("intern_vit_6b", ["InternVisionModel"], "a vision tower alone"),
        ("internvl_vision", ["InternVLVisionModel"], "a vision tower alone"),
        ("internvl", ["InternVLModel"], "a model without its output head"),
        ("qwen3", ["Qwen3ForCausalLM"], r"a language model alone \(qwen3\)"),
        ("internlm2", ["InternLM2ForCausalLM"], "a language model alone"),
    ],
)
def test_a_part_of_a_model_is_called_one(model_type: str, architectures: list[str], part: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": architectures}))
    with pytest.raises(UnsupportedModelError, match=f"describes {part}"):
        detect_format(read_config(tmp_path))


def test_a_config_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("../blobs/1")
    with pytest.raises(ConfigError, match=r"config\.json is a link to ../blobs/1, and nothing is there"):
        read_config(tmp_path)


def test_a_config_in_the_directory_above_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "weights").mkdir()
    with pytest.raises(ConfigError, match=f"add --config {tmp_path} .*: that is the directory above"):
        read_config(tmp_path / "weights")


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()

    with pytest.raises(ConfigError, match="does not exist, or is not a file"):
        read_config(tmp_path)


def test_an_enormous_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)

    with pytest.raises(CompanionFileError, match="it has more than 67108864 bytes"):
        read_json_file(path)
