"""The sidecar keeps what the output's format cannot hold, and is not believed blindly."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from metadata.describing import changed, custom_config, hf_config
from support import DATA, copy_custom

import internvl_bridge
from internvl_bridge.errors import BridgeError, CompanionFileError, OptionError, UnsupportedModelError
from internvl_bridge.mapping.families import INTERNLM2, INTERNLM3, INTERNLM3_GROUPED, LLAMA, QWEN2
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.files import small_texts
from internvl_bridge.metadata.other_format import OtherFormat, read_sidecar, reference_as_other_format
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, Manifest, sidecar_contents, sidecar_text

CUSTOM_TEXT = (DATA / "custom" / "qwen2-300m" / "config.json").read_text()
HF_TEXT = (DATA / "hf" / "qwen2-300m@state-dict" / "config.json").read_text()


def contents(**changes: Any) -> dict[str, Any]:
    valid = {
        "version": 2,
        "source_format": "custom",
        "family": "Qwen2",
        "files": {"config.json": CUSTOM_TEXT},
        "written": {},
    }
    return {key: value for key, value in (valid | changes).items() if value is not ...}


def written_text(*arguments: Any) -> str:
    """A sidecar as a conversion writes it."""
    return sidecar_text(sidecar_contents(*arguments), Manifest("xxh3_128", {"config.json": "0" * 32}), str.upper)


def write(directory: Path, values: Any) -> Path:
    text = values if isinstance(values, str) else json.dumps(values)
    (directory / SIDECAR_FILE).write_text(text)
    return directory


def test_a_custom_source_comes_back_verbatim(tmp_path: Path) -> None:
    source = copy_custom("qwen2-300m", tmp_path / "source")
    kept = small_texts(source, without={"tokenizer.json", "vocab.json"})
    made = {"chat_template.jinja": "{{ \u00fc }}\r\n", "generation_config.json": "{}"}
    text = written_text(Format.CUSTOM, "Qwen2", kept, made)

    other_format = read_sidecar(write(tmp_path, text), Format.CUSTOM)

    assert other_format.description.family is QWEN2
    assert other_format.origin == tmp_path / SIDECAR_FILE
    assert other_format.files == {
        name: (source / name).read_bytes().decode()
        for name in (
            *("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer_config.json"),
            *("added_tokens.json", "special_tokens_map.json", "merges.txt"),
        )
    }
    assert other_format.written == {name: sha256(content.encode()).hexdigest() for name, content in made.items()}
    assert other_format.description.values == read_config(source).values
    assert other_format.description.format is Format.CUSTOM


def test_an_hf_source_comes_back_verbatim(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    odd_text = '{\r\n  "processor_class" : "InternVLProcessor\u00fc"\r\n}'
    (source / "config.json").write_text(HF_TEXT)
    for name in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        (source / name).write_bytes(odd_text.encode())
    (source / "generation_config.json").write_text("{}")

    text = written_text(Format.HF, "Qwen2", small_texts(source, without=()), {})
    other_format = read_sidecar(write(tmp_path, text), Format.HF)

    assert other_format.files == {path.name: path.read_bytes().decode() for path in source.iterdir()}
    assert other_format.files["processor_config.json"] == odd_text
    assert other_format.written == {}
    assert text.endswith("}\n")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_source_whose_files_are_malformed_makes_no_sidecar(tmp_path: Path, text: str) -> None:
    source = copy_custom("qwen2-300m", tmp_path / "source")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    (source / "preprocessor_config.json").write_text(text)
    (tmp_path / "hf" / "processor_config.json").write_text(text)

    with pytest.raises(CompanionFileError, match=r"source/preprocessor_config\.json cannot be used"):
        internvl_bridge.to_hf(source, tmp_path / "output")
    with pytest.raises(CompanionFileError, match=r"hf/processor_config\.json cannot be used"):
        internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "output")

    assert not (tmp_path / "output").exists()


def other_format_of(directory: Path, files: dict[str, str], written: dict[str, str]) -> Any:
    text = written_text(Format.CUSTOM, "Qwen2", {"config.json": CUSTOM_TEXT, **files}, written)
    return read_sidecar(write(directory, text), Format.CUSTOM)


SPOKEN = ("tokenizer_config.json", "chat_template.jinja")


def test_files_whose_successors_are_untouched_are_restored(tmp_path: Path) -> None:
    kept = {"tokenizer_config.json": '{"old": 1}', "README.md": "words"}
    other_format = other_format_of(tmp_path, kept, {"tokenizer_config.json": "{}", "chat_template.jinja": "{{ 1 }}"})
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ 1 }}")

    assert other_format.restored(tmp_path, SPOKEN, SPOKEN) == {"tokenizer_config.json": '{"old": 1}'}
    assert other_format.restored(tmp_path, ["chat_template.jinja"], ["chat_template.jinja"]) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "tokenizer_config.json").write_text("{} "),
        lambda path: (path / "tokenizer_config.json").unlink(),
        lambda path: (path / "chat_template.jinja").write_text(""),
    ],
    ids=["changed", "removed", "added"],
)
def test_files_whose_successors_were_touched_are_not_restored(tmp_path: Path, change: Any) -> None:
    other_format = other_format_of(tmp_path, {"tokenizer_config.json": '{"old": 1}'}, {"tokenizer_config.json": "{}"})
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert other_format.restored(tmp_path, SPOKEN, SPOKEN) == {"tokenizer_config.json": '{"old": 1}'}

    change(tmp_path)

    assert other_format.restored(tmp_path, SPOKEN, SPOKEN) is None


def test_files_that_have_no_successor_are_not_restored(tmp_path: Path) -> None:
    other_format = other_format_of(tmp_path, {"tokenizer_config.json": "{}"}, {"generation_config.json": "{}"})

    assert other_format.restored(tmp_path, SPOKEN, SPOKEN) is None


def test_without_a_sidecar_nothing_is_known_of_the_other_format(tmp_path: Path) -> None:
    assert read_sidecar(tmp_path, Format.CUSTOM) is None


def test_a_directory_in_the_place_of_the_sidecar_is_refused(tmp_path: Path) -> None:
    (tmp_path / SIDECAR_FILE).mkdir()
    with pytest.raises(CompanionFileError, match=f"{SIDECAR_FILE} exists, but is not a file"):
        read_sidecar(tmp_path, Format.CUSTOM)


def test_a_kept_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    files = {"config.json": CUSTOM_TEXT, "preprocessor_config.json": ""}
    with pytest.raises(CompanionFileError, match=r"preprocessor_config\.json in it is not JSON"):
        read_sidecar(write(tmp_path, contents(files=files)), Format.CUSTOM)


@pytest.mark.parametrize(
    "name", ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
)
@pytest.mark.parametrize("text", ["[]", "{", '{"a": NaN}', '{"a": 1, "a": 1}'])
def test_a_processor_s_file_that_is_no_object_is_refused(tmp_path: Path, name: str, text: str) -> None:
    files = {"config.json": HF_TEXT, name: text}

    with pytest.raises(CompanionFileError, match=f"{SIDECAR_FILE} cannot be used: the {name} in it is"):
        read_sidecar(write(tmp_path, contents(source_format="hf", files=files)), Format.HF)


def test_a_sidecar_of_the_format_at_hand_says_nothing_of_the_other_format(tmp_path: Path) -> None:
    """It was copied along, from a directory that had been converted the other way."""
    assert read_sidecar(write(tmp_path, contents()), Format.HF) is None


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "../../evil.sh",
        "/etc/passwd.txt",
        "folder/file.json",
        "folder\\file.json",
        "..",
        "",
        ".json",
        ".profile.py",
        "null\0.json",
        "run.sh",
        "README",
        "README.MD",
        "model.safetensors",
        "model.safetensors.index.json",
        "model.json\n",
        "x" * 196 + ".json",
        SIDECAR_FILE,
    ],
)
def test_a_name_that_no_text_file_of_a_model_has_is_refused(tmp_path: Path, name: str) -> None:
    """What a sidecar holds is written to disk under its name."""
    files = {"config.json": CUSTOM_TEXT, name: "{}"}

    with pytest.raises(
        CompanionFileError, match=f"{SIDECAR_FILE} cannot be used: it holds .*not the name of a text file"
    ):
        read_sidecar(write(tmp_path, contents(files=files)), Format.CUSTOM)


@pytest.mark.parametrize("name", ["modeling.py", "README.md", "a..b.txt", "x" * 95 + ".json", "\u00fc ber.yml"])
def test_a_plain_name_of_a_text_file_is_accepted(tmp_path: Path, name: str) -> None:
    files = {"config.json": CUSTOM_TEXT, name: "{}"}

    assert read_sidecar(write(tmp_path, contents(files=files)), Format.CUSTOM).files == files


@pytest.mark.parametrize("version", [1, 3, 0, None, "2", ..., [2], True, 2.0])
def test_another_version_is_refused(tmp_path: Path, version: Any) -> None:
    said = None if version is ... else version

    with pytest.raises(CompanionFileError) as error:
        read_sidecar(write(tmp_path, contents(version=version)), Format.CUSTOM)

    assert f"it has version {said!r}, this program knows 2" in error.value.reason
    assert "Remove it to convert without it" in error.value.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"source_format": ...},
        {"source_format": 1},
        {"family": ...},
        {"family": None},
        {"files": ...},
        {"files": []},
        {"files": {}},
        {"files": {"config.json": {}}},
        {"files": {"preprocessor_config.json": "{}"}},
        {"written": ...},
        {"written": None},
        {"written": []},
        {"written": ["tokenizer_config.json"]},
    ],
)
def test_an_incomplete_sidecar_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CompanionFileError, match="it lacks its source_format, family, files or written"):
        read_sidecar(write(tmp_path, contents(**changes)), Format.CUSTOM)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    files = {"config.json": CUSTOM_TEXT, "preprocessor_config.json": {"a": 1}}

    with pytest.raises(CompanionFileError, match="its files are not texts"):
        read_sidecar(write(tmp_path, contents(files=files)), Format.CUSTOM)


@pytest.mark.parametrize("digest", [None, 1, ["0" * 64], {}])
def test_a_digest_that_is_no_text_is_refused(tmp_path: Path, digest: Any) -> None:
    with pytest.raises(CompanionFileError, match="its files are not texts"):
        read_sidecar(write(tmp_path, contents(written={"tokenizer_config.json": digest})), Format.CUSTOM)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 2, "version": 2}'])
def test_a_malformed_sidecar_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CompanionFileError, match=f"{SIDECAR_FILE} cannot be used"):
        read_sidecar(write(tmp_path, text), Format.CUSTOM)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}'])
def test_a_malformed_config_inside_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CompanionFileError, match=f"{SIDECAR_FILE} cannot be used"):
        read_sidecar(write(tmp_path, contents(files={"config.json": text})), Format.CUSTOM)


def test_a_config_that_contradicts_the_stated_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompanionFileError, match=r"its config\.json is not of the custom format"):
        read_sidecar(write(tmp_path, contents(files={"config.json": HF_TEXT})), Format.CUSTOM)
    stated = contents(source_format="hf")
    with pytest.raises(CompanionFileError, match=r"its config\.json is not of the hf format"):
        read_sidecar(write(tmp_path, stated), Format.HF)


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "internvl_chat"}, {"model_type": "qwen2_vl", "vision_config": {}}]
)
def test_a_config_of_no_internvl_model_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    files = {"config.json": json.dumps(config)}

    with pytest.raises(BridgeError) as error:
        read_sidecar(write(tmp_path, contents(files=files)), Format.CUSTOM)

    assert str(tmp_path / SIDECAR_FILE) in error.value.reason


LLAMA_HF = json.loads(HF_TEXT)
LLAMA_HF["text_config"]["model_type"] = "llama"


@pytest.mark.parametrize("family", [LLAMA, INTERNLM2, INTERNLM3, INTERNLM3_GROUPED], ids=lambda family: family.name)
def test_an_hf_llama_is_of_the_recorded_family(tmp_path: Path, family: Any) -> None:
    stated = contents(source_format="hf", family=family.name, files={"config.json": json.dumps(LLAMA_HF)})

    assert read_sidecar(write(tmp_path, stated), Format.HF).description.family is family


@pytest.mark.parametrize("family", [INTERNLM3, INTERNLM3_GROUPED], ids=lambda family: family.name)
def test_a_recorded_family_tells_the_two_tables_of_internlm3_apart(tmp_path: Path, family: Any) -> None:
    custom = json.loads(CUSTOM_TEXT)
    custom["llm_config"]["architectures"] = ["InternLM3ForCausalLM"]
    stated = contents(family=family.name, files={"config.json": json.dumps(custom)})

    assert read_sidecar(write(tmp_path, stated), Format.CUSTOM).description.family is family


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CompanionFileError, match=f"{SIDECAR_FILE} cannot be used: it records the unknown family 'Gemma'"
    ):
        read_sidecar(write(tmp_path, contents(family="Gemma")), Format.CUSTOM)


def test_a_custom_config_of_another_family_than_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompanionFileError, match=r"records the family InternLM2, but its config\.json is of Qwen2"):
        read_sidecar(write(tmp_path, contents(family="InternLM2")), Format.CUSTOM)


def test_an_hf_config_of_another_type_than_recorded_is_refused(tmp_path: Path) -> None:
    stated = contents(source_format="hf", family="InternLM2", files={"config.json": HF_TEXT})

    with pytest.raises(
        CompanionFileError, match=f"{SIDECAR_FILE} has a text model of type 'qwen2', but .* an InternLM2 model"
    ):
        read_sidecar(write(tmp_path, stated), Format.HF)


@pytest.mark.parametrize("format_", Format)
def test_a_config_that_cannot_have_been_converted_is_refused(tmp_path: Path, format_: Format) -> None:
    values = json.loads(CUSTOM_TEXT if format_ is Format.CUSTOM else HF_TEXT)
    values |= {"ps_version": "v1", "projector_hidden_act": "relu"}
    stated = contents(source_format=format_.value, files={"config.json": json.dumps(values)})

    with pytest.raises(CompanionFileError, match=r"(ps_version 'v1'|projector_hidden_act 'relu').* Remove it"):
        read_sidecar(write(tmp_path, stated), format_)


def test_a_config_with_a_value_that_no_model_has_is_refused(tmp_path: Path) -> None:
    values = json.loads(CUSTOM_TEXT) | {"select_layer": "-1"}
    stated = contents(files={"config.json": json.dumps(values)})

    with pytest.raises(
        CompanionFileError, match=f"{SIDECAR_FILE} has select_layer '-1', a value that no model has there"
    ):
        read_sidecar(write(tmp_path, stated), Format.CUSTOM)


@pytest.mark.parametrize(
    ("directory", "wanted"),
    [(DATA / "custom" / "qwen2-300m", Format.CUSTOM), (DATA / "hf" / "qwen2-300m@state-dict", Format.HF)],
    ids=["custom", "hf"],
)
def test_a_reference_without_a_processor_provides_its_config_and_nothing_else(directory: Path, wanted: Format) -> None:
    config = read_config(directory)

    other_format = reference_as_other_format(config, wanted, ())

    assert other_format.origin == directory
    assert other_format.files == {"config.json": config.text}
    assert other_format.written == {}
    assert other_format.description.file is config
    assert other_format.description.format is wanted
    assert other_format.description.family is QWEN2


def test_a_reference_provides_its_processor_s_files_too(tmp_path: Path) -> None:
    names = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    for name in (*names, "generation_config.json", "tokenizer_config.json", "README.md", "modeling.py"):
        (tmp_path / name).write_bytes(b'{"name":\r\n"' + name.encode() + b'"}')
    (tmp_path / "config.json").write_text(HF_TEXT)

    other_format = reference_as_other_format(read_config(tmp_path), Format.HF, ())

    assert other_format.files == {"config.json": HF_TEXT, **{name: f'{{"name":\r\n"{name}"}}' for name in names}}


def test_a_reference_whose_processor_is_malformed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(HF_TEXT)
    (tmp_path / "processor_config.json").write_text("[]")

    with pytest.raises(CompanionFileError, match=r"processor_config\.json cannot be used"):
        reference_as_other_format(read_config(tmp_path), Format.HF, ())


def internlm3_at(directory: Path) -> Path:
    values = json.loads(CUSTOM_TEXT)
    values["llm_config"]["architectures"] = ["InternLM3ForCausalLM"]
    (directory / "config.json").write_text(json.dumps(values))
    return directory


def test_the_keys_of_a_reference_tell_the_two_tables_of_internlm3_apart(tmp_path: Path) -> None:
    config = read_config(internlm3_at(tmp_path))
    key = "language_model.model.layers.0.attention.wqkv.weight"

    assert reference_as_other_format(config, Format.CUSTOM, ()).description.family is INTERNLM3
    assert reference_as_other_format(config, Format.CUSTOM, [key]).description.family is INTERNLM3_GROUPED


@pytest.mark.parametrize(
    ("directory", "wanted"),
    [(DATA / "custom" / "qwen2-300m", Format.HF), (DATA / "hf" / "qwen2-300m@state-dict", Format.CUSTOM)],
    ids=["custom", "hf"],
)
def test_a_reference_of_the_format_at_hand_is_refused(directory: Path, wanted: Format) -> None:
    with pytest.raises(OptionError) as error:
        reference_as_other_format(read_config(directory), wanted, ())

    assert f"The reference {directory} is not in the {wanted.value} format" in error.value.reason


def test_a_reference_that_cannot_be_expressed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(json.loads(CUSTOM_TEXT) | {"ps_version": "v1"}))

    with pytest.raises(UnsupportedModelError, match="has ps_version 'v1'"):
        reference_as_other_format(read_config(tmp_path), Format.CUSTOM, ())


def test_a_sidecar_that_only_has_checksums_says_nothing_of_the_other_format(tmp_path: Path) -> None:
    text = sidecar_text({}, Manifest("xxh3_128", {"config.json": "0" * 32}), str.upper)
    for wanted in Format:
        assert read_sidecar(write(tmp_path, text), wanted) is None


def test_a_sidecar_of_an_unknown_format_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(CompanionFileError, match="it describes the unknown format 'evil'"):
        read_sidecar(write(tmp_path, contents(source_format="evil")), Format.CUSTOM)


def reference_with(tmp_path: Path, sidecar_family: str) -> tuple[OtherFormat, str]:
    """What a Qwen2 reference says, beside a sidecar of the model ``sidecar_family``, and its config.json."""
    values = custom_config(sidecar_family)
    family = {"qwen2": "Qwen2", "qwen3": "Qwen3"}[sidecar_family.partition("-")[0]]
    kept = {"config.json": json.dumps(values), "README.md": "kept", "preprocessor_config.json": "{}"}
    contents = {"version": 2, "source_format": "custom", "family": family, "files": kept, "written": {"x.json": "d"}}
    (tmp_path / SIDECAR_FILE).write_text(json.dumps(contents))
    home = tmp_path / "reference"
    home.mkdir()
    text = json.dumps(changed(custom_config("qwen2-300m"), None, template="Hermes-2"))
    (home / "config.json").write_text(text)
    (home / "preprocessor_config.json").write_text('{"size": 56}')
    sidecar = read_sidecar(tmp_path, Format.CUSTOM)
    return reference_as_other_format(read_config(home), Format.CUSTOM, (), sidecar), text


def sidecar_at(directory: Path, format_: str, **files: str) -> Path:
    config = custom_config("qwen2-300m") if format_ == "custom" else hf_config("qwen2-300m@state-dict")
    kept = {"config.json": json.dumps(config)} | {name.replace("__", "."): text for name, text in files.items()}
    contents = {"version": 2, "source_format": format_, "family": "Qwen2", "files": kept, "written": {}}
    (directory / SIDECAR_FILE).write_text(json.dumps(contents))
    return directory


def test_a_reference_wins_and_the_sidecar_keeps_the_rest(tmp_path: Path):
    other_format, text = reference_with(tmp_path, "qwen2-300m")
    assert other_format.files == {
        "config.json": text,
        "README.md": "kept",
        "preprocessor_config.json": '{"size": 56}',
    }
    assert other_format.written == {"x.json": "d"}
    assert other_format.description.values["template"] == "Hermes-2"
    assert other_format.origin == tmp_path / "reference"
    assert other_format.is_reference


def test_a_sidecar_of_another_family_keeps_nothing_beside_a_reference(tmp_path: Path):
    other_format, text = reference_with(tmp_path, "qwen3-300m")
    assert other_format.files == {"config.json": text, "preprocessor_config.json": '{"size": 56}'}
    assert other_format.written == {}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"<<<<<<< HEAD", b'{"version": 2, "version": 2}'])
def test_a_sidecar_that_cannot_be_parsed_says_what_to_do(text: bytes, tmp_path: Path):
    (tmp_path / SIDECAR_FILE).write_bytes(text)
    with pytest.raises(
        CompanionFileError, match=rf"{SIDECAR_FILE} cannot be used: \S[^.]*\S\. Remove it to convert without it"
    ):
        read_sidecar(tmp_path, Format.CUSTOM)


def test_a_sidecar_that_is_a_large_file_says_what_to_do(tmp_path: Path):
    with (tmp_path / SIDECAR_FILE).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(CompanionFileError, match=rf"{SIDECAR_FILE} cannot be used: .*Remove it to convert without it"):
        read_sidecar(tmp_path, Format.CUSTOM)


@pytest.mark.parametrize("format_", ["custom", "hf"])
@pytest.mark.parametrize("name", ["generation_config__json", "tokenizer_config__json", "preprocessor_config__json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\ufffe"])
def test_garbage_in_a_sidecar_is_refused(format_: str, name: str, text: str, tmp_path: Path):
    inside = name.replace("__", ".")
    with pytest.raises(
        CompanionFileError, match=f"{SIDECAR_FILE} cannot be used: the {inside} in it is .*Remove it to conv"
    ):
        read_sidecar(sidecar_at(tmp_path, format_, **{name: text}), Format(format_))


def test_a_text_that_nobody_reads_may_be_anything(tmp_path: Path):
    """The HF processor's files mean nothing to a custom checkpoint."""
    found = read_sidecar(sidecar_at(tmp_path, "custom", processor_config__json="[]", README__md="{"), Format.CUSTOM)
    assert found.files.keys() == {"config.json", "processor_config.json", "README.md"}
    with pytest.raises(CompanionFileError, match=r"the processor_config\.json in it is"):
        read_sidecar(sidecar_at(tmp_path, "hf", processor_config__json="[]"), Format.HF)


def test_a_spoilt_sidecar_of_the_format_at_hand_is_not_read(tmp_path: Path):
    assert read_sidecar(sidecar_at(tmp_path, "hf", generation_config__json="{"), Format.CUSTOM) is None


@pytest.mark.parametrize(("head", "known"), [("shared", "shared"), (..., None), (None, None), (7, None)])
def test_the_output_head_of_the_source_is_remembered(tmp_path: Path, head: Any, known: str | None) -> None:
    assert read_sidecar(write(tmp_path, contents(head=head)), Format.CUSTOM).head == known
