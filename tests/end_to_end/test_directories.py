"""Whole directories, there and back: every text comes home, what was edited wins, and hostile input is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import DATA, copy_custom, edit_json, said
from thinning import one_in

import internvl_bridge
from internvl_bridge.errors import BridgeError

SIDECAR = "internvl_bridge.json"
TEXTS = {
    "README.md": "# 书生 InternVL\r\n\r\nline\n",
    "configuration_internvl_chat.py": "raise SystemExit  # never run\r\n",
    "modeling_internvl_chat.py": "import nowhere\n",
    "foo.json": "[1, 2.50, NaN]",
    "bar.json": '{"broken": ',
    "trainer_state.json": '{"log_history": [], "best": 1e400}',
    "empty.txt": "",
    "notes.txt": "\ufeffa\0b\r",
    "ünïcode name.yaml": "a: é",
    "examples.yml": "- x",
    "special_tokens_map.json": '{"eos_token":"<|im_end|>" ,\r\n\t"additional_special_tokens":[ ]}',
    "generation_config.json": '{"top_k":  7}\r\n',
    "LICENSE": "MIT, 书\r\n",
    "NOTICE": "",
}
Custom = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != SIDECAR}


def write_texts(directory: Path, texts: dict[str, str] = TEXTS) -> Path:
    for name, text in texts.items():
        (directory / name).write_bytes(text.encode())
    return directory


def changes(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """The names of the files that differ, or are in one only."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def converted(source: Path, output: Path, **options: Any) -> dict[str, bytes]:
    """The files that a conversion of ``source`` into the other format writes."""
    convert = (
        internvl_bridge.to_custom if b'"internvl"' in (source / "config.json").read_bytes() else internvl_bridge.to_hf
    )
    convert(source, output, **options)
    return contents(output)


def foreign_hf(directory: Path, name: str = "qwen2-300m", version: str = "4.57.6") -> Path:
    """An HF checkpoint without a sidecar, with the processor and tokenizer files of that transformers version."""
    made = directory.with_name("made-from")
    internvl_bridge.to_hf(copy_custom(name, made), directory, order="name")
    shutil.rmtree(made)
    (directory / SIDECAR).unlink()
    if name == "qwen2-300m":
        for path in directory.glob("*processor_config.json"):
            path.unlink()
        for stored in (f"processor-{version}", f"tokenizer-{version}"):
            shutil.copytree(DATA / stored, directory, dirs_exist_ok=True)
    return directory


# The laws.


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m", "phi3-300m", "gptoss-300m"])
def test_every_file_of_a_custom_directory_comes_back(name: str, custom: Custom, tmp_path: Path):
    source = write_texts(custom(name))
    there = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert there.left_behind == ()
    assert converted(tmp_path / "hf", tmp_path / "back") == contents(source)


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m"])
@pytest.mark.parametrize("version", ["4.57.6", "5.23.0"])
def test_every_file_of_an_hf_directory_comes_back(name: str, version: str, tmp_path: Path):
    texts = {name: text for name, text in TEXTS.items() if name != "special_tokens_map.json"}
    source = write_texts(foreign_hf(tmp_path / "hf", name, version), texts)
    (source / "special_tokens_map.json").write_text('{"video_token" :"<video>"}')
    there = internvl_bridge.to_custom(source, tmp_path / "custom")
    assert there.left_behind == ()
    assert converted(tmp_path / "custom", tmp_path / "back", order="name") == contents(source)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    texts=st.dictionaries(
        st.sampled_from(["a.txt", "B.md", "vocab.json.txt", "processor_config.txt", "config.json.md", "é.py"]),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    generation=st.none() | st.dictionaries(st.sampled_from(["top_k", "bos_token_id"]), st.integers(0, 9)),
    indent=st.none() | st.integers(0, 3),
)
@pytest.mark.parametrize("hf", [False, True])
def test_any_texts_come_back(hf, texts, generation, indent, tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("texts")
    source = foreign_hf(base / "source") if hf else copy_custom("qwen2-300m", base / "source")
    write_texts(source, texts)
    (source / "generation_config.json").unlink()
    if generation is not None:
        (source / "generation_config.json").write_text(json.dumps(generation, indent=indent))
    for name in ("config.json", "tokenizer_config.json"):
        (source / name).write_text(json.dumps(json.loads((source / name).read_text()), indent=indent))
    converted(source, base / "there", order="name")
    back = converted(base / "there", base / "back", order="name")
    added = {"generation_config.json"} if hf and generation is None else set()  # without one, no model stops
    reordered = set() if hf else {"model.safetensors"}
    assert changes(contents(source), back) - reordered == added


def test_files_that_were_not_there_are_not_there_again(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    for name in ("generation_config.json", "preprocessor_config.json", "special_tokens_map.json", "added_tokens.json"):
        (source / name).unlink()
    converted(source, tmp_path / "hf")
    assert converted(tmp_path / "hf", tmp_path / "back").keys() == contents(source).keys()


@pytest.mark.parametrize("name", ["processor_config.json", "video_preprocessor_config.json"])
@pytest.mark.parametrize("text", ["[]", "{", '{"chat_template": 5}'])
def test_a_file_that_means_something_in_the_other_format_only_comes_back(
    name: str, text: str, custom: Custom, tmp_path: Path
):
    source = write_texts(custom("qwen2-300m"), {name: text})
    converted(source, tmp_path / "hf")
    assert converted(tmp_path / "hf", tmp_path / "back") == contents(source)


def test_a_chat_template_of_its_own_comes_back(custom: Custom, tmp_path: Path):
    source = write_texts(custom("qwen2-300m"), {"chat_template.jinja": "{{ messages }}<image>\r\n"})
    there = converted(source, tmp_path / "hf")
    assert there["chat_template.jinja"].endswith(b"{{ messages }}<IMG_CONTEXT>\r\n")
    assert converted(tmp_path / "hf", tmp_path / "back") == contents(source)


# What was edited in between wins, and nothing else changes.

EDITS_OF_HF: list[tuple[str, Callable[[Path], object], set[str]]] = [
    ("chat_template.jinja", lambda path: path.write_text("edited <IMG_CONTEXT>"), {"tokenizer_config.json"}),
    ("chat_template.jinja", lambda path: path.unlink(), {"tokenizer_config.json"}),
    (
        "tokenizer_config.json",
        lambda path: edit_json(path, lambda config: config.update(model_max_length=5)),
        {"tokenizer_config.json"},
    ),
    ("generation_config.json", lambda path: path.write_text('{"eos_token_id": 5}'), {"generation_config.json"}),
    (
        "preprocessor_config.json",
        lambda path: edit_json(path, lambda config: config.update(max_patches=24)),
        {"config.json"},
    ),
    ("vocab.json", lambda path: path.write_text("{}"), {"vocab.json"}),
    ("special_tokens_map.json", lambda path: path.write_text("{ }"), {"special_tokens_map.json"}),
    ("LICENSE", lambda path: path.write_text("GPL"), {"LICENSE"}),
]


@pytest.mark.parametrize(
    ("name", "edit", "expected"), EDITS_OF_HF, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(EDITS_OF_HF)]
)
def test_what_was_edited_in_an_hf_directory_wins(name, edit, expected: set[str], custom: Custom, tmp_path: Path):
    source = write_texts(custom("qwen2-300m"))
    converted(source, tmp_path / "hf")
    edit(tmp_path / "hf" / name)
    assert changes(contents(source), converted(tmp_path / "hf", tmp_path / "back")) == expected


def test_an_old_chat_template_does_not_overrule_an_edited_one(custom: Custom, tmp_path: Path):
    source = write_texts(custom("qwen2-300m"), {"chat_template.jinja": "old <image>", "chat_template.json": "{}"})
    converted(source, tmp_path / "hf")
    (tmp_path / "hf" / "chat_template.jinja").write_text("edited <IMG_CONTEXT>")
    back = converted(tmp_path / "hf", tmp_path / "back")
    assert json.loads(back["tokenizer_config.json"])["chat_template"] == "edited <image>"
    assert back.keys().isdisjoint({"chat_template.jinja", "chat_template.json"})


def test_edits_arrive_in_the_custom_formats_words(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    converted(source, tmp_path / "hf")
    (tmp_path / "hf" / "chat_template.jinja").write_text("edited <IMG_CONTEXT> <|im_start|> <|im_end|>")
    edit_json(tmp_path / "hf" / "preprocessor_config.json", lambda config: config.update(max_patches=1))
    edit_json(tmp_path / "hf" / "tokenizer_config.json", lambda config: config.update(model_max_length=5))
    converted(tmp_path / "hf", tmp_path / "back")
    config, tokenizer = (
        json.loads((tmp_path / "back" / f"{name}.json").read_text()) for name in ("config", "tokenizer_config")
    )
    before = json.loads((source / "config.json").read_text())
    assert {name for name in config if config[name] != before[name]} == {
        *("template", "dynamic_image_size", "use_thumbnail", "max_dynamic_patch")
    }
    assert (config["template"], config["max_dynamic_patch"]) == ("Hermes-2", 1)
    assert (tokenizer["model_max_length"], tokenizer["chat_template"]) == (5, "edited <image> <|im_start|> <|im_end|>")


@pytest.mark.parametrize(
    ("name", "edit", "expected"),
    [
        ("generation_config.json", {"top_k": 3}, {"generation_config.json"}),
        ("tokenizer_config.json", {"model_max_length": 5}, {"tokenizer_config.json", "chat_template.jinja"}),
        ("config.json", {"max_dynamic_patch": 3}, {"config.json", "preprocessor_config.json"}),
    ],
)
def test_what_was_edited_in_a_custom_directory_wins(
    name: str, edit: dict[str, Any], expected: set[str], tmp_path: Path
):
    source = foreign_hf(tmp_path / "hf")
    converted(source, tmp_path / "custom")
    edit_json(tmp_path / "custom" / name, lambda config: config.update(edit))
    back = converted(tmp_path / "custom", tmp_path / "back", order="name")
    processor = {path.name for path in (DATA / "processor-4.57.6").iterdir()}
    assert expected <= changes(contents(source), back) <= expected | (processor if name == "config.json" else set())


@pytest.mark.parametrize("edited", ["tokenizer.json", "tokenizer_config.json"])
def test_an_internlm2_tokenizer_that_was_made_and_edited_is_not_lost(edited: str, custom: Custom, tmp_path: Path):
    source = custom("internlm2-300m")
    converted(source, tmp_path / "hf")
    edit_json(tmp_path / "hf" / edited, lambda values: values.update(truncation=None, model_max_length=5))
    back = converted(tmp_path / "hf", tmp_path / "back")
    assert back["tokenizer.json"] == (tmp_path / "hf" / "tokenizer.json").read_bytes()
    assert back["tokenizer.model"] == (source / "tokenizer.model").read_bytes()
    assert changes(contents(source), back) == {"tokenizer.json", "tokenizer_config.json"}


def test_an_untouched_internlm2_tokenizer_leaves_no_trace(custom: Custom, tmp_path: Path):
    converted(custom("internlm2-300m"), tmp_path / "hf")
    assert "tokenizer.json" not in converted(tmp_path / "hf", tmp_path / "back")


# Without a sidecar, and with files that it cannot hold.


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m"])
def test_a_sidecar_is_not_needed(name: str, custom: Custom, tmp_path: Path):
    source = write_texts(custom(name))
    converted(source, tmp_path / "hf")
    (tmp_path / "hf" / SIDECAR).unlink()
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    expected = contents(source).keys() - {*TEXTS, "expected_tokens.json"} | {
        "LICENSE",
        "NOTICE",
        "generation_config.json",
    }
    assert set(report.files) >= expected
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["auto_map"]["AutoModel"].startswith("OpenGVLab/")
    assert any(note.startswith("auto_map names OpenGVLab/") for note in said(report))
    assert not any(note.startswith("The output needs") for note in said(report))
    again = internvl_bridge.to_hf(tmp_path / "back", tmp_path / "again")
    assert set(again.files) >= {"chat_template.jinja", "processor_config.json", "tokenizer.json"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("template", [False, True])
def test_a_file_too_large_for_the_sidecar_is_not_lost(name: str, template: bool, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / name, lambda config: config.update(litter="x" * (600 << 10)))
    if template:
        (source / "chat_template.jinja").write_text("own <image>")
    converted(source, tmp_path / "hf")
    back = converted(tmp_path / "hf", tmp_path / "back")
    assert back.keys() >= contents(source).keys() - {"chat_template.jinja"}
    assert json.loads(back["tokenizer_config.json"])["chat_template"]


def test_a_large_tokenizer_that_had_to_be_changed_is_not_lost(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / "tokenizer.json", lambda config: config["model"].update(litter="x" * (600 << 10)))
    changes = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<|im_start|>", "add_bos_token": True}
    edit_json(source / "tokenizer_config.json", lambda config: config.update(changes))
    made = converted(source, tmp_path / "hf")
    assert made["tokenizer.json"] != (source / "tokenizer.json").read_bytes()
    assert "tokenizer.json" in converted(tmp_path / "hf", tmp_path / "back")


def test_large_files_and_what_is_no_text_are_reported(custom: Custom, tmp_path: Path):
    source = write_texts(custom("qwen2-300m"), {"large.md": "x" * ((512 << 10) + 1), "just.md": "x" * (512 << 10)})
    (source / "logo.png").write_bytes(b"\x89PNG")
    (source / "latin.txt").write_bytes(b"\xe9")
    (source / "runs").mkdir()
    (source / "optimizer.bin").touch()
    (source / "dangling.md").symlink_to("nowhere")
    os.mkfifo(source / "pipe.txt")
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert report.left_behind == (
        "dangling.md",
        "large.md",
        "latin.txt",
        "logo.png",
        "optimizer.bin",
        "pipe.txt",
        "runs",
    )
    assert report.as_json()["left_behind"] == list(report.left_behind)


def test_a_tokenizer_that_another_one_replaces_is_reported(custom: Custom, tmp_path: Path):
    """The source's own tokenizer.json is not in the output in any way."""
    source = custom("qwen2-300m")
    (source / "tokenizer.model").write_bytes(b"\xff")
    shutil.copytree(DATA / "tokenizers" / "bpe", tmp_path / "home")
    report = internvl_bridge.to_hf(source, tmp_path / "hf", tokenizer=tmp_path / "home")
    assert {"tokenizer.model", "tokenizer.json"} <= set(report.left_behind)


def test_restored_modules_deserve_a_note(custom: Custom, tmp_path: Path):
    converted(write_texts(custom("qwen2-300m")), tmp_path / "hf")
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    [note] = [note for note in said(report) if note.startswith("The sidecar restores")]
    assert "configuration_internvl_chat.py, modeling_internvl_chat.py" in note


# Hostile and odd input.

ODD_JSON = [b"[]", b"5", b"null", b'"x"', b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900]
ODD_VALUES: list[Any] = [
    None,
    True,
    5,
    -1,
    1e300,
    "x",
    [],
    [[]],
    ["x"],
    {},
    {"a": None},
    "\ud7ff\U0010ffff",
    "x" * 99999,
]
HF_OPTIONAL = [
    *("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja"),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "added_tokens.json"),
    *("tokenizer.json", "vocab.json", "merges.txt", "chat_template.json", "LICENSE", SIDECAR, "config.json"),
]


def refusal(action: Callable[[], object]) -> BridgeError | None:
    try:
        action()
    except BridgeError as refused:
        return refused
    return None


def refuses_or_converts(source: Path, output: Path, name: str, *, hf: bool) -> None:
    """A conversion that either works, or is refused by a message that names the file, and leaves nothing behind."""
    convert = internvl_bridge.to_custom if hf else internvl_bridge.to_hf
    refused = refusal(lambda: convert(source, output))
    if refused is None:
        shutil.rmtree(output)
        return
    assert name in str(refused) or str(source) in str(refused)
    assert refused.remedy
    assert not output.exists()
    assert not output.with_name(output.name + ".partial").exists()


@pytest.mark.parametrize("hf", [False, True])
@pytest.mark.parametrize("name", HF_OPTIONAL)
def test_odd_files_are_converted_or_refused_by_name(name: str, hf: bool, tmp_path: Path):
    source = foreign_hf(tmp_path / "source") if hf else copy_custom("qwen2-300m", tmp_path / "source")
    for raw in ODD_JSON:
        (source / name).write_bytes(raw)
        refuses_or_converts(source, tmp_path / "out", name, hf=hf)
    (source / name).unlink()
    refuses_or_converts(source, tmp_path / "out", name, hf=hf)
    (source / name).mkdir()
    refuses_or_converts(source, tmp_path / "out", name, hf=hf)
    (source / name).rmdir()
    for target in ("nowhere", name):
        (source / name).symlink_to(target)
        refuses_or_converts(source, tmp_path / "out", name, hf=hf)
        (source / name).unlink()


@pytest.mark.parametrize("hf", [False, True])
@pytest.mark.parametrize(
    ("name", "key"),
    one_in(
        3,
        [
            *(
                ("tokenizer_config.json", key)
                for key in ("added_tokens_decoder", "chat_template", "extra_special_tokens")
            ),
            *(
                ("tokenizer_config.json", key)
                for key in ("tokenizer_class", "model_specific_special_tokens", "bos_token")
            ),
            *(("tokenizer_config.json", key) for key in ("auto_map", "additional_special_tokens", "add_bos_token")),
            *(("generation_config.json", key) for key in ("eos_token_id", "_from_model_config")),
            *(("preprocessor_config.json", key) for key in ("min_patches", "max_patches", "size", "image_mean")),
            *(("processor_config.json", key) for key in ("image_processor", "image_seq_length")),
            *(("special_tokens_map.json", key) for key in ("eos_token", "video_token")),
            *(("tokenizer.json", key) for key in ("added_tokens", "post_processor", "version")),
            *(("config.json", key) for key in ("template", "auto_map", "min_dynamic_patch", "image_token_id")),
        ],
    ),
)
def test_odd_values_are_converted_or_refused_by_name(name: str, key: str, hf: bool, tmp_path: Path):
    source = foreign_hf(tmp_path / "source") if hf else copy_custom("qwen2-300m", tmp_path / "source")
    values = json.loads((source / name).read_text()) if (source / name).is_file() else {}
    for odd in ODD_VALUES:
        ordered = {key: odd} | {k: v for k, v in values.items() if k != key}  # "model" stays the last
        (source / name).write_text(json.dumps(ordered))
        refuses_or_converts(source, tmp_path / "out", name, hf=hf)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "config.json", "generation_config.json", "processor_config.json"]
)
def test_nesting_is_refused_before_it_overflows(name: str, tmp_path: Path):
    """Whatever is nested too deeply to be written is too deep to be read."""
    source = foreign_hf(tmp_path / "source")
    values = json.dumps(json.loads((source / name).read_text()))
    for depth in (100, 300, 400, 500, 700, 800, 900, 930, 940, 950, 960, 970, 980, 990):
        (source / name).write_text(f'{{"deep": {"[" * depth + "]" * depth}, {values[1:]}')
        refuses_or_converts(source, tmp_path / "out", name, hf=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_what_is_nested_comes_back_or_is_refused(name: str, custom: Custom, tmp_path: Path):
    source, hf, back = custom("qwen2-300m"), tmp_path / "hf", tmp_path / "back"
    values = json.dumps(json.loads((source / name).read_text()))
    for depth in (100, 300, 450, 600, 750, 900, 940, 960):
        (source / name).write_text(f'{{"deep": {"[" * depth + "]" * depth}, {values[1:]}')
        refused = refusal(lambda: (converted(source, hf), converted(hf, back)))
        assert name in str(refused) if refused else contents(back) == contents(source)
        for output in (hf, back):
            shutil.rmtree(output, ignore_errors=True)


@pytest.mark.parametrize("message", ["\udcff", "x\ud800"])
def test_a_system_message_that_is_no_unicode_is_refused(message: str, custom: Custom, tmp_path: Path):
    """As Python gives it from a command line whose bytes are no UTF-8."""
    with pytest.raises(BridgeError):
        internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf", system_message=message)
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("edited", ["It\\'s me", "two\nlines"])
def test_a_system_message_edited_by_hand_is_taken_as_it_is(edited: str, custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf", system_message="PLACE")
    path = tmp_path / "hf" / "chat_template.jinja"
    path.write_text(path.read_text().replace("PLACE", edited))
    back = converted(tmp_path / "hf", tmp_path / "back")
    assert "<image>" in json.loads(back["tokenizer_config.json"])["chat_template"]


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"\xff.py", "书 \n.md".encode(), b"x" * 251 + b".txt", b"-rf.md"])
def test_odd_names_of_files_are_kept_or_left_behind(name: bytes, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    path = os.path.join(os.fsencode(source), name)  # noqa: PTH118 (bytes, which pathlib does not know)
    Path(os.fsdecode(path)).write_text("hello")
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    back = converted(tmp_path / "hf", tmp_path / "back")
    decoded = os.fsdecode(name)
    assert (decoded in report.left_behind) != (back.get(decoded) == b"hello")


def with_sidecar(hf: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    edit_json(hf / SIDECAR, change)
    return hf


HOSTILE_NAMES = [
    *(
        "../evil.txt",
        "/evil.txt",
        "a/b.txt",
        "a\0.txt",
        "model.safetensors",
        "a\\b.txt",
        "..\\evil.txt",
        ".hidden.txt",
    ),
    *("..", ".", "", "evil.sh", SIDECAR, "model.safetensors.index.json", "🐱" * 90 + ".txt", "x.txt\n", "sub/../x.txt"),
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
@pytest.mark.parametrize("text", ["evil", None])
def test_a_hostile_sidecar_is_refused_before_anything_is_written(
    name: str, text: str | None, custom: Custom, tmp_path: Path
):
    converted(custom("qwen2-300m"), tmp_path / "hf")
    with_sidecar(tmp_path / "hf", lambda contents: contents["files"].update({name: text}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BridgeError, match=r"internvl_bridge\.json cannot be used.*Remove it"):
        internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("section", ["files", "written", "version", "source_format", "family"])
@pytest.mark.parametrize("odd", ODD_VALUES, ids=lambda value: ascii(value)[:20])
def test_an_odd_sidecar_is_used_or_refused(section: str, odd: Any, custom: Custom, tmp_path: Path):
    converted(custom("qwen2-300m"), tmp_path / "hf")
    with_sidecar(tmp_path / "hf", lambda contents: contents.update({section: odd}))
    refuses_or_converts(tmp_path / "hf", tmp_path / "out", SIDECAR, hf=True)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "config.json", "preprocessor_config.json", "chat_template.jinja"]
)
@pytest.mark.parametrize("text", ["[]", "{", '{"chat_template": 5}', "x" * 2_000_000])
def test_odd_texts_in_a_sidecar_are_used_or_refused(name: str, text: str, custom: Custom, tmp_path: Path):
    converted(custom("qwen2-300m"), tmp_path / "hf")
    with_sidecar(tmp_path / "hf", lambda contents: contents["files"].update({name: text}))
    refuses_or_converts(tmp_path / "hf", tmp_path / "out", SIDECAR, hf=True)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"image_processor": 5}', '{"image_processor": [], "image_seq_length": {}}']
)
def test_odd_processor_files_in_a_sidecar_are_used_or_refused(text: str, tmp_path: Path):
    converted(foreign_hf(tmp_path / "hf"), tmp_path / "custom")
    for name in ("processor_config.json", "preprocessor_config.json"):
        with_sidecar(tmp_path / "custom", lambda contents, name=name: contents["files"].update({name: text}))
        refuses_or_converts(tmp_path / "custom", tmp_path / "out", SIDECAR, hf=False)
