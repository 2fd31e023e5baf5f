"""Whole conversions of directories where something is missing, broken, doubled, or says something else."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import DATA, add_modules, copy_custom, edit_json, files_of, said
from tokenizers import Tokenizer

import internvl_bridge
from internvl_bridge.errors import BridgeError
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import built_template, for_custom, system_message

SIDECAR = "internvl_bridge.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 11421896\n"
TOKENIZER = "tokenization_internlm2.InternLM2Tokenizer"
PROCESSOR = ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
Custom = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def hf(custom: Custom, tmp_path: Path) -> Path:
    """An HF checkpoint of a Qwen2, with the sidecar of its way here."""
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An HF checkpoint of a Qwen2 as transformers 4.57.6 saved it."""
    source = copy_custom("qwen2-300m", tmp_path / "made-from")
    internvl_bridge.to_hf(source, tmp_path / "foreign", order="name")
    shutil.rmtree(source)
    (tmp_path / "foreign" / SIDECAR).unlink()
    for name in ("processor-4.57.6", "tokenizer-4.57.6"):
        shutil.copytree(DATA / name, tmp_path / "foreign", dirs_exist_ok=True)
    return tmp_path / "foreign"


def parsed(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def same(one: Path, other: Path, *names: str) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def update(path: Path, **values: Any) -> None:
    edit_json(path, lambda config: config.update(values))


def refused(action: Callable[[], object], *words: str) -> None:
    """``action`` is refused in these ``words``, and leaves nothing behind."""
    with pytest.raises(BridgeError) as error:
        action()
    assert [word for word in words if word not in str(error.value)] == []


# A reference beside a sidecar.


@pytest.mark.parametrize("with_weights", [True, False])
def test_a_sidecar_gives_what_the_reference_does_not_have(with_weights: bool, custom: Custom, tmp_path: Path):
    source, reference = custom("qwen2-300m"), copy_custom("qwen2-300m", tmp_path / "reference")
    modules = add_modules(source)
    (source / "README.md").write_bytes(b"# mine\r\n")
    (source / "generation_config.json").write_bytes(b'{"top_k":  7}\r\n')
    update(reference / "config.json", use_llm_lora=16)
    (reference / "README.md").write_text("the reference's")
    if not with_weights:
        (reference / "model.safetensors").unlink()
    internvl_bridge.to_hf(source, tmp_path / "hf")
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back", reference=reference)
    assert same(tmp_path / "back", reference, "config.json")
    assert same(
        *(tmp_path / "back", source, "README.md", "generation_config.json", "tokenizer_config.json"),
        *("preprocessor_config.json", *modules),
    )
    assert not any("auto_map" in note for note in said(report))


def test_modules_that_the_reference_lends_win_over_those_of_the_sidecar(custom: Custom, tmp_path: Path):
    source, reference = custom("qwen2-300m"), copy_custom("qwen2-300m", tmp_path / "reference")
    first, _ = add_modules(source)
    (reference / first).write_text("lent\n")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back", reference=reference)
    assert (tmp_path / "back" / first).read_text() == "lent\n"
    assert same(tmp_path / "back", source, "modeling_internvl_chat.py")


def test_an_hf_sidecar_gives_what_the_reference_does_not_have(foreign: Path, tmp_path: Path):
    (foreign / "README.md").write_text("mine")
    (foreign / "generation_config.json").write_text('{"eos_token_id" :474}')
    reference = tmp_path / "reference"
    shutil.copytree(foreign, reference)
    (reference / "README.md").unlink()
    update(reference / "config.json", transformers_version="4.56.0")
    internvl_bridge.to_custom(foreign, tmp_path / "custom")
    internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "back", reference=reference)
    assert same(tmp_path / "back", foreign, "README.md", "generation_config.json", "tokenizer_config.json")
    assert same(tmp_path / "back", foreign, "chat_template.jinja", *PROCESSOR)
    assert same(tmp_path / "back", reference, "config.json")


def test_what_was_edited_wins_beside_a_reference_too(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    update(tmp_path / "hf" / "tokenizer_config.json", model_max_length=5)
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back", reference=source)
    assert parsed(tmp_path / "back" / "tokenizer_config.json")["model_max_length"] == 5


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"version": 1}', b"\xff"])
def test_a_malformed_sidecar_is_nothing_beside_a_reference(text: bytes, hf: Path, tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "reference")
    add_modules(source)
    (hf / SIDECAR).write_bytes(text)
    refused(lambda: internvl_bridge.to_custom(hf, tmp_path / "back"), SIDECAR, "Remove it to convert without it")
    assert not (tmp_path / "back").exists()
    internvl_bridge.to_custom(hf, tmp_path / "back", reference=source)
    assert same(tmp_path / "back", source, "config.json")


def test_a_sidecar_of_another_family_is_nothing_beside_a_reference(custom: Custom, hf: Path, tmp_path: Path):
    other = custom("qwen3-300m")
    (other / "README.md").write_text("of another model")
    internvl_bridge.to_hf(other, tmp_path / "other")
    shutil.copy(tmp_path / "other" / SIDECAR, hf / SIDECAR)
    source = copy_custom("qwen2-300m", tmp_path / "reference")
    add_modules(source)
    internvl_bridge.to_custom(hf, tmp_path / "back", reference=source)
    assert same(tmp_path / "back", source, "config.json")
    assert not (tmp_path / "back" / "README.md").exists()


# Tokenizers that broke off, or are not there.

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "pointer": lambda _: POINTER,
    "garbage": lambda _: b"\x89PNG\r\n\x1a\n",
    "other": lambda _: b'{"error": "Repository not found"}',
}


@pytest.mark.parametrize("break_", BROKEN.values(), ids=BROKEN)
def test_a_broken_tokenizer_is_refused_by_name(break_: Callable[[bytes], bytes], custom: Custom, hf: Path):
    sources = {internvl_bridge.to_hf: custom("internlm2-300m"), internvl_bridge.to_custom: hf}
    whole = (hf / "tokenizer.json").read_bytes()
    for convert, source in sources.items():
        path, output = source / "tokenizer.json", source.with_name("out")
        path.write_bytes(break_(whole))
        remedy = "git lfs pull" if break_(whole) == POINTER else "again"
        refused(lambda convert=convert, source=source, output=output: convert(source, output), str(path), remedy)
        assert not output.exists()


def test_a_broken_tokenizer_elsewhere_is_refused_by_name(hf: Path, tmp_path: Path):
    home = tmp_path / "home"
    shutil.copytree(DATA / "tokenizers" / "bpe", home)
    (home / "tokenizer.json").write_bytes(POINTER)
    source = copy_custom("qwen2-300m", tmp_path / "source")
    for convert, directory in ((internvl_bridge.to_hf, source), (internvl_bridge.to_custom, hf)):
        refused(
            lambda convert=convert, directory=directory: convert(directory, tmp_path / "out", tokenizer=home),
            str(home / "tokenizer.json"),
        )


@pytest.mark.parametrize("text", [b"", b'{"a": 0, "b', b"[]", b"\xff"])
@pytest.mark.parametrize("to_hf", [True, False])
def test_a_broken_vocabulary_is_refused_where_there_is_no_other(text: bytes, to_hf: bool, hf: Path, tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "source") if to_hf else hf
    convert = internvl_bridge.to_hf if to_hf else internvl_bridge.to_custom
    (source / "vocab.json").write_bytes(text)
    convert(source, tmp_path / "with-json")  # tokenizer.json decides
    (source / "tokenizer.json").unlink()
    refused(lambda: convert(source, tmp_path / "out"), str(source / "vocab.json"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["vocab.json", "LICENSE", "modeling_internvl_chat.py"])
def test_a_pointer_is_not_copied_as_if_it_were_the_file(name: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    (source / name).write_bytes(POINTER)
    refused(lambda: internvl_bridge.to_hf(source, tmp_path / "out"), str(source / name), "git lfs pull")
    assert not (tmp_path / "out").exists()


def test_an_internlm2_that_lost_its_sentencepiece_model_has_the_fast_tokenizer(custom: Custom, tmp_path: Path):
    source = custom("internlm2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.model").unlink()
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    config = parsed(tmp_path / "back" / "tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in config
    assert same(tmp_path / "back", tmp_path / "hf", "tokenizer.json")
    assert "tokenizer.model" not in report.files
    assert not any("tokenizer that can be loaded" in note or "tokenization_internlm2" in note for note in said(report))
    again = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    for name in ("<IMG_CONTEXT>", "<|im_end|>"):
        stated = {entry["content"]: int(id_) for id_, entry in config["added_tokens_decoder"].items()}
        assert again.token_to_id(name) == stated[name]


@pytest.mark.parametrize("without", ["vocab.json", "merges.txt", "tokenizer.json"])
def test_a_tokenizer_that_no_class_can_load_is_noted(without: str, hf: Path, tmp_path: Path):
    for name in {"tokenizer.json", without}:
        (hf / name).unlink()
    report = internvl_bridge.to_custom(hf, tmp_path / "back")
    noted = [note for note in said(report) if "has no tokenizer that can be loaded" in note]
    assert len(noted) == (without != "tokenizer.json")
    assert all(note.startswith(hf.name) and "--tokenizer" in note for note in noted)


def test_an_internlm2_without_either_vocabulary_is_noted(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("internlm2-300m"), tmp_path / "hf")
    for name in ("tokenizer.model", "tokenizer.json"):
        (tmp_path / "hf" / name).unlink()
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert any("has no tokenizer that can be loaded" in note for note in said(report))


# Modules of a tokenizer.


@pytest.mark.parametrize("stated", [[TOKENIZER, None], TOKENIZER, [None, TOKENIZER]])
def test_a_tokenizers_module_that_nobody_has_comes_from_the_hub(stated: Any, custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("internlm2-300m"), tmp_path / "hf")
    update(tmp_path / "hf" / "tokenizer_config.json", auto_map={"AutoTokenizer": stated})
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    made = parsed(tmp_path / "back" / "tokenizer_config.json")["auto_map"]["AutoTokenizer"]
    expected = f"OpenGVLab/InternVL2_5-8B--{TOKENIZER}"
    assert made in (expected, [expected], [expected, None], [None, expected])
    assert not any("tokenization_internlm2.py" in note for note in said(report))


@pytest.mark.parametrize("lent", [True, False])
def test_a_tokenizers_module_that_is_lent_or_restored_stays_beside_it(lent: bool, custom: Custom, tmp_path: Path):
    source = custom("internlm2-300m")
    (source / "tokenization_internlm2.py").write_text("raise SystemExit\n")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    update(tmp_path / "hf" / "tokenizer_config.json", auto_map={"AutoTokenizer": [TOKENIZER, None]})
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back", reference=source if lent else None)
    assert same(tmp_path / "back", source, "tokenization_internlm2.py")
    made = parsed(tmp_path / "back" / "tokenizer_config.json")["auto_map"]
    assert made == {"AutoTokenizer": [TOKENIZER, None]}


def test_a_tokenizers_module_that_a_restored_config_needs_is_named(custom: Custom, tmp_path: Path):
    source = custom("internlm2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert same(tmp_path / "back", source, "tokenizer_config.json")
    [note] = [note for note in said(report) if note.startswith("The output needs ")]
    modules = "configuration_internvl_chat.py, modeling_internvl_chat.py, tokenization_internlm2.py"
    assert note.startswith(f"The output needs {modules}, which the source does not have either")


def test_the_note_about_the_hub_says_who_chose_the_repository(custom: Custom, hf: Path, tmp_path: Path):
    source = custom("internlm2-300m")
    names = {"AutoModel": "me/my-model--modeling_internvl_chat.InternVLChatModel"}
    update(source / "config.json", auto_map=names)
    internvl_bridge.to_hf(source, tmp_path / "there")
    back = internvl_bridge.to_custom(tmp_path / "there", tmp_path / "back")
    [note] = [note for note in said(back) if note.startswith("auto_map names me/my-model for")]
    assert f", as {SIDECAR} says. " in note
    referred = internvl_bridge.to_custom(tmp_path / "there", tmp_path / "referred", reference=source)
    [note] = [note for note in said(referred) if note.startswith("auto_map names me/my-model for")]
    assert f", as {source.name} says. " in note
    (hf / SIDECAR).unlink()
    alone = internvl_bridge.to_custom(hf, tmp_path / "alone")
    [note] = [note for note in said(alone) if note.startswith("auto_map names OpenGVLab/InternVL3-8B for")]
    assert ", chosen by the language model's class. " in note


# How the model is spoken to.


def with_own_template(source: Path, template: str) -> Path:
    update(source / "tokenizer_config.json", chat_template=template)
    return source


def test_an_own_template_of_another_conversation_is_kept_with_a_note(custom: Custom, tmp_path: Path):
    source = with_own_template(custom("qwen2-300m"), for_custom(built_template(CONVERSATIONS["phi3-chat"])))
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    template = (tmp_path / "hf" / "chat_template.jinja").read_text()
    assert template.endswith(built_template(CONVERSATIONS["phi3-chat"]))
    assert system_message(template) == CONVERSATIONS["phi3-chat"].system_message
    assert any("does not render the 'internvl2_5' that config.json names" in note for note in said(report))


def test_no_system_message_beside_an_own_template_is_noted(custom: Custom, tmp_path: Path):
    report = internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf", system_message="none")
    assert system_message((tmp_path / "hf" / "chat_template.jinja").read_text()) is None
    assert any("a system message of its own making stays in it" in note for note in said(report))


def test_a_system_message_that_is_too_long_is_refused(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    refused(
        lambda: internvl_bridge.to_hf(source, tmp_path / "hf", system_message="x" * 100_001),
        *("The system message", "100000 characters"),
    )
    assert not (tmp_path / "hf").exists()
    internvl_bridge.to_hf(source, tmp_path / "hf", system_message="书" * 100_000)
    assert system_message((tmp_path / "hf" / "chat_template.jinja").read_text()) == "书" * 100_000
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")


def test_a_system_message_that_nothing_renders_is_mentioned(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    update(source / "config.json", template="future")
    edit_json(source / "tokenizer_config.json", lambda config: config.pop("chat_template"))
    lost = "The system message that was asked for is not rendered."
    asked = internvl_bridge.to_hf(source, tmp_path / "asked", system_message="Be brief.")
    silent = internvl_bridge.to_hf(source, tmp_path / "silent")
    assert [any(lost in note for note in said(report)) for report in (asked, silent)] == [True, False]
    assert "chat_template.jinja" not in asked.files


def test_an_own_template_that_takes_parts_only_gets_its_default_as_parts(custom: Custom, tmp_path: Path):
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
        "{% endfor %}"
    )
    source = with_own_template(custom("qwen2-300m"), template)
    internvl_bridge.to_hf(source, tmp_path / "hf", system_message="Be brief.")
    made = (tmp_path / "hf" / "chat_template.jinja").read_text()
    assert "'content': [{'type': 'text', 'text': \"Be brief.\"}]" in made
    assert system_message(made) == "Be brief."
    (tmp_path / "hf" / SIDECAR).unlink()
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert parsed(tmp_path / "back" / "tokenizer_config.json")["chat_template"] == template


# How images become tiles and pixels.


@pytest.mark.parametrize(("stated", "expected"), [({"max_patches": 6}, (1, 6)), ({"min_patches": 2}, (2, 12))])
def test_a_partly_stated_tiling_has_the_class_defaults(
    stated: dict[str, int], expected: tuple[int, int], foreign: Path, tmp_path: Path
):
    path = foreign / "preprocessor_config.json"
    edit_json(path, lambda config: [config.pop(name) for name in ("min_patches", "max_patches")])
    update(path, **stated)
    internvl_bridge.to_custom(foreign, tmp_path / "custom")
    config = parsed(tmp_path / "custom" / "config.json")
    assert (config["min_dynamic_patch"], config["max_dynamic_patch"]) == expected
    assert (config["dynamic_image_size"], config["use_thumbnail"]) == (True, True)


@pytest.mark.parametrize(
    "odd", [*({"max_patches": value} for value in (0, True, "12", 6.0)), {"min_patches": 7, "max_patches": 6}]
)
@pytest.mark.parametrize("saved_by_5", [False, True])
def test_a_tiling_that_is_nonsense_is_refused(saved_by_5: bool, odd: dict[str, Any], foreign: Path, tmp_path: Path):
    if saved_by_5:
        for name in PROCESSOR:
            (foreign / name).unlink()
        shutil.copytree(DATA / "processor-5.23.0", foreign, dirs_exist_ok=True)
        edit_json(foreign / PROCESSOR[0], lambda config: config["image_processor"].update(odd))
    else:
        update(foreign / "preprocessor_config.json", **odd)
    refused(lambda: internvl_bridge.to_custom(foreign, tmp_path / "custom"), "by which no image can be cut")
    assert not (tmp_path / "custom").exists()


@pytest.mark.parametrize("thumbnail", [True, False])
def test_editing_the_number_of_tiles_says_nothing_of_thumbnails(thumbnail: bool, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    update(source / "config.json", use_thumbnail=thumbnail)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    update(tmp_path / "hf" / "preprocessor_config.json", max_patches=24)
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    expected = parsed(source / "config.json") | {"max_dynamic_patch": 24}
    assert parsed(tmp_path / "back" / "config.json") == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_mean", [0.48145466, 0.4578275, 0.40821073]),
        ("image_std", [0.26862954, 0.26130258, 0.27577711]),
        ("size", {"height": 112, "width": 112}),
    ],
)
def test_pixels_that_the_custom_format_cannot_say_are_noted(name: str, value: Any, foreign: Path, tmp_path: Path):
    before = internvl_bridge.to_custom(foreign, tmp_path / "before")
    update(foreign / "preprocessor_config.json", **{name: value})
    after = internvl_bridge.to_custom(foreign, tmp_path / "after")
    [note] = set(said(after)) - set(said(before))
    assert note.startswith(f"The image processor has {name} {value}, which the custom format cannot state")


def odd_processor(directory: Path) -> None:
    clip = [0.48145466, 0.4578275, 0.40821073]
    update(directory / "preprocessor_config.json", image_mean=clip, size={"height": 112, "width": 112}, resample=2)
    update(directory / "processor_config.json", image_seq_length=99)


def test_odd_processor_files_come_back_if_nothing_was_edited(foreign: Path, tmp_path: Path):
    odd_processor(foreign)
    internvl_bridge.to_custom(foreign, tmp_path / "custom")
    internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "back")
    assert same(tmp_path / "back", foreign, *PROCESSOR, "config.json")


def test_odd_processor_files_are_rewritten_for_an_edited_config(foreign: Path, tmp_path: Path):
    odd_processor(foreign)
    internvl_bridge.to_custom(foreign, tmp_path / "custom")
    update(tmp_path / "custom" / "config.json", max_dynamic_patch=24)
    internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "back")
    image = parsed(tmp_path / "back" / "preprocessor_config.json")
    assert (image["min_patches"], image["max_patches"], image["size"]) == (1, 24, {"height": 56, "width": 56})
    assert image["image_mean"] == [0.485, 0.456, 0.406]
    assert parsed(tmp_path / "back" / "processor_config.json")["image_seq_length"] == 4


def test_processor_files_that_mean_the_same_survive_an_edit_elsewhere(foreign: Path, tmp_path: Path):
    internvl_bridge.to_custom(foreign, tmp_path / "custom")
    update(tmp_path / "custom" / "config.json", use_llm_lora=16)
    internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "back")
    assert same(tmp_path / "back", foreign, *PROCESSOR)


# Other files beside the weights.


@pytest.mark.parametrize("odd", [{"a": 1}, ["x"], True, [], [1, True], -1, 2.0, "2"])
def test_an_end_that_is_no_token_is_refused_by_name(odd: Any, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    update(source / "generation_config.json", eos_token_id=odd)
    refused(lambda: internvl_bridge.to_hf(source, tmp_path / "hf"), f"{source / 'generation_config.json'} has eos_tok")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(("stated", "expected"), [(None, 474), (2, [474, 2]), ([474, 2], [474, 2])])
def test_an_end_that_is_some_token_is_taken(stated: Any, expected: Any, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config["llm_config"].pop("eos_token_id"))
    update(source / "generation_config.json", eos_token_id=stated)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    assert parsed(tmp_path / "hf" / "generation_config.json")["eos_token_id"] == expected


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_garbage_in_a_sidecar_is_refused(name: str, text: str, hf: Path, tmp_path: Path):
    edit_json(hf / SIDECAR, lambda contents: contents["files"].update({name: text}))
    refused(
        lambda: internvl_bridge.to_custom(hf, tmp_path / "back"),
        *(f"{hf / SIDECAR} cannot be used: the {name} in it", "Remove it to convert without it"),
    )
    assert not (tmp_path / "back").exists()
    (hf / SIDECAR).unlink()
    internvl_bridge.to_custom(hf, tmp_path / "back")


@pytest.mark.parametrize("to_hf", [True, False])
def test_a_license_beside_the_weights_wins(to_hf: bool, foreign: Path, tmp_path: Path):
    first, second = internvl_bridge.to_custom, internvl_bridge.to_hf
    source = foreign
    if not to_hf:
        source, first, second = copy_custom("qwen2-300m", tmp_path / "source"), second, first
    first(source, tmp_path / "there")
    edit_json(tmp_path / "there" / SIDECAR, lambda contents: contents["files"].update({"LICENSE.txt": "old"}))
    (tmp_path / "there" / "LICENSE.txt").write_text("new")
    second(tmp_path / "there", tmp_path / "back")
    assert (tmp_path / "back" / "LICENSE.txt").read_text() == "new"


# What is no whole model.


@pytest.mark.parametrize("as_hf", [True, False])
def test_an_adapter_is_refused(as_hf: bool, hf: Path, tmp_path: Path):
    source = hf if as_hf else copy_custom("qwen2-300m", tmp_path / "source")
    (source / "model.safetensors").rename(source / "adapter_model.safetensors")
    convert = internvl_bridge.to_custom if as_hf else internvl_bridge.to_hf
    refused(
        lambda: convert(source, tmp_path / "out"),
        *(str(source), "holds an adapter (adapter_model.safetensors), not a whole model", "Convert it"),
    )


def test_weights_that_are_a_pointer_are_refused(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    (source / "model.safetensors").write_bytes(POINTER)
    refused(
        lambda: internvl_bridge.to_hf(source, tmp_path / "hf"),
        *(f"{source / 'model.safetensors'} is a Git LFS pointer", "git lfs pull"),
    )


def test_the_sources_own_tokenizer_may_be_named_in_other_words(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "plain")
    (tmp_path / "link").symlink_to(source)
    report = internvl_bridge.to_hf(source, tmp_path / "named", tokenizer=tmp_path / "link")
    assert report.left_behind == ()
    assert not any("tokenizer is that of" in note for note in said(report))
    assert files_of(tmp_path / "named") == files_of(tmp_path / "plain")
