"""What an HF directory gets beside weights and config.json: made anew, or restored where nothing was touched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from metadata.describing import STORED_HF
from support import DATA, copy_custom, edit_json
from tokenizers import Tokenizer

from internvl_bridge.convert.companions.shared import CompanionFiles
from internvl_bridge.convert.companions.to_hf import hf_companions
from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.chat.choice import ChatSetup, choose_chat
from internvl_bridge.metadata.chat.template import system_message
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.files import digest
from internvl_bridge.metadata.other_format import OtherFormat
from internvl_bridge.metadata.tokenizer.files import read_tokenizer_files
from internvl_bridge.metadata.tokenizer.token_ids import token_id

HF_FILES = ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]


def companions(
    source: Path, other_format: OtherFormat | None = None, system: str | None = None, home: Path | None = None
) -> CompanionFiles:
    description, tokenizer = describe(read_config(source)), read_tokenizer_files(home or source)
    chat = choose_chat(description.values.get("template"), tokenizer.template, system)
    end = None if chat.turn_end is None else token_id(tokenizer.home, chat.turn_end)
    return hf_companions(description, tokenizer, chat, end, other_format)


def other_format(files: dict[str, str], made: Path, *names: str) -> OtherFormat:
    """A sidecar that keeps ``files``, from which ``names`` in ``made`` were made."""
    written = {name: digest(made / name) or "" for name in names}
    return OtherFormat(made / "internvl_bridge.json", files, describe(STORED_HF["qwen2-300m@state-dict"]), written)


def parsed(made: CompanionFiles, name: str) -> dict[str, Any]:
    return json.loads(made.texts[name])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_custom("qwen2-300m", tmp_path / "custom")


@pytest.fixture
def internlm2(tmp_path: Path) -> Path:
    return copy_custom("internlm2-300m", tmp_path / "internlm2")


@pytest.fixture
def llama(source: Path) -> Callable[..., Path]:
    """A Llama tokenizer with both kinds of files; ``changes`` are to its tokenizer_config.json, ``...`` takes out."""

    def make(**changes: Any) -> Path:
        model = DATA / "tokenizers" / "internlm2" / "tokenizer.model"
        shutil.copy(model, source / "tokenizer.model")

        def change(config: dict[str, Any]) -> None:
            config |= {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
            config |= changes
            for name in ("add_prefix_space", "add_bos_token", "add_eos_token", *changes):
                if changes.get(name, ...) is ...:
                    config.pop(name, None)

        edit_json(source / "tokenizer_config.json", change)
        return source

    return make


# How the model is spoken to.


# What is made where there is no sidecar.


def test_every_file_that_autoprocessor_and_generate_need_is_there(source: Path):
    made = companions(source)
    assert set(made.texts) == {"chat_template.jinja", "generation_config.json", "tokenizer_config.json", *HF_FILES}
    assert {path.name for path in made.copies} == {
        *("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
    }
    assert made.notes == ()
    assert parsed(made, "generation_config.json") == {
        "eos_token_id": 474,
        "pad_token_id": 0,
        "transformers_version": "4.52.1",
    }
    assert parsed(made, "processor_config.json")["image_seq_length"] == 4
    assert parsed(made, "preprocessor_config.json")["size"] == {"height": 56, "width": 56}
    assert parsed(made, "preprocessor_config.json")["max_patches"] == 12
    assert parsed(made, "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_legal_files_are_the_sources_and_vocabularies_the_tokenizers(source: Path, tmp_path: Path):
    home = tmp_path / "home"
    shutil.copytree(DATA / "tokenizers" / "bpe", home)
    for directory in (source, home):
        (directory / "LICENSE").write_text(directory.name)
    copies = {path.name: path.parent for path in companions(source, home=home).copies}
    assert copies["LICENSE"] == source
    assert copies["tokenizer.json"] == home


def test_a_generation_config_that_says_all_is_taken_to_the_letter(source: Path):
    text = '{"eos_token_id":[474,472],  "pad_token_id": 472}\r\n'
    (source / "generation_config.json").write_bytes(text.encode())
    assert companions(source).texts["generation_config.json"] == text


def test_without_a_generation_config_one_is_made_from_the_language_model(source: Path):
    (source / "generation_config.json").unlink()
    text = read_config(source).values["llm_config"]
    made = parsed(companions(source), "generation_config.json")
    expected = {name: text.get(name) for name in ("bos_token_id", "pad_token_id") if text.get(name) is not None}
    assert made == {**expected, "eos_token_id": made["eos_token_id"]}
    assert 474 in (made["eos_token_id"] if isinstance(made["eos_token_id"], list) else [made["eos_token_id"]])


@pytest.mark.parametrize("name", ["InternLM2Tokenizer", "InternLM3Tokenizer"])
def test_internlm_gets_a_tokenizer_that_needs_no_code(name: str, internlm2: Path, tmp_path: Path):
    edit_json(internlm2 / "tokenizer_config.json", lambda config: config.update(tokenizer_class=name))
    made = companions(internlm2)
    (tmp_path / "tokenizer.json").write_text(made.texts["tokenizer.json"])
    expected = json.loads((DATA / "tokenizers" / "internlm2" / "expected_tokens.json").read_text())
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [tokenizer.encode(case["text"]).ids for case in expected] == [case["ids"] for case in expected]
    config = parsed(made, "tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in config
    assert "tokenizer.model" in {path.name for path in made.copies}
    assert "{{- bos_token -}}" in made.texts["chat_template.jinja"]
    assert not [note for note in made.notes if note.startswith("The tokenizer puts <s> in front")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"add_bos_token": False}, ([], [])),
        ({"add_eos_token": True}, (["<s>"], ["</s>"])),
        ({"add_bos_token": True, "bos_token": {"content": "<|im_start|>"}}, (["<|im_start|>"], [])),
    ],
)
def test_internlm2s_settings_say_what_surrounds_a_text(settings: dict[str, Any], expected: Any, internlm2: Path):
    edit_json(internlm2 / "tokenizer_config.json", lambda config: config.update(settings))
    made = companions(internlm2)
    single = parsed(made, "tokenizer.json")["post_processor"]["single"]
    names = [part["SpecialToken"]["id"] if "SpecialToken" in part else None for part in single]
    middle = names.index(None)
    assert (names[:middle], names[middle + 1 :]) == expected
    assert ("bos_token" in made.texts["chat_template.jinja"]) == bool(expected[0])


def test_added_tokens_that_are_no_object_are_none(internlm2: Path):
    edit_json(internlm2 / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=[5]))
    contents = [token["content"] for token in parsed(companions(internlm2), "tokenizer.json")["added_tokens"]]
    assert "<IMG_CONTEXT>" not in contents


def test_a_llama_tokenizer_with_a_stated_prefix_is_made_anew_from_its_model(internlm2: Path):
    (internlm2 / "tokenizer.json").write_text(companions(internlm2).texts["tokenizer.json"])
    changes = {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}
    edit_json(internlm2 / "tokenizer_config.json", lambda config: config.update(changes))
    made = companions(internlm2)
    assert parsed(made, "tokenizer.json")["normalizer"]["type"] == "Replace"
    assert "tokenizer.json" not in {path.name for path in made.copies}
    edit_json(internlm2 / "tokenizer_config.json", lambda config: config.update(add_prefix_space=True))
    assert parsed(companions(internlm2), "tokenizer.json")["normalizer"]["type"] == "Sequence"


@pytest.mark.parametrize(("prefix", "scheme"), [(True, {"prepend_scheme": "first"}), (False, {})])
def test_a_llama_tokenizer_that_is_not_legacy_has_a_prefix_once(prefix: bool, scheme: dict[str, str], internlm2: Path):
    changes = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_prefix_space": prefix}
    edit_json(internlm2 / "tokenizer_config.json", lambda config: config.update(changes))
    made = parsed(companions(internlm2), "tokenizer.json")
    assert (made["pre_tokenizer"] or {}).items() >= scheme.items()
    assert (made["normalizer"] is None) is prefix


def test_a_llama_tokenizer_adds_what_its_class_adds(llama: Callable[..., Path], tmp_path: Path):
    made = companions(llama(add_eos_token=True))
    (tmp_path / "made.json").write_text(made.texts["tokenizer.json"])
    ids = Tokenizer.from_file(str(tmp_path / "made.json")).encode("A cat.").ids
    assert (ids[0], ids[-1]) == (473, 474)
    assert [note for note in made.notes if "puts <|im_start|> in front" in note]


def test_a_llama_tokenizer_that_adds_it_already_is_copied(llama: Callable[..., Path]):
    source = llama()
    changed = companions(source).texts["tokenizer.json"]
    (source / "tokenizer.json").write_text(changed)
    again = companions(source)
    assert "tokenizer.json" not in again.texts
    assert "tokenizer.json" in {path.name for path in again.copies}
    assert parsed(again, "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_llama_tokenizer_whose_json_cannot_be_read_is_refused(llama: Callable[..., Path]):
    source = llama()
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(CompanionFileError, match=r"tokenizer\.json is not a tokenizer\.json.*save it again"):
        companions(source)


@pytest.mark.parametrize("hostile", [b'{"a": "\\ud800", "model": {', b'{"a": 1, "model": {"\xff": 1}}'])
def test_a_llama_tokenizer_that_is_no_unicode_is_refused(hostile: bytes, llama: Callable[..., Path]):
    source = llama()
    (source / "tokenizer.json").write_bytes(hostile)
    with pytest.raises(CompanionFileError, match=r"tokenizer\.json"):
        companions(source).texts["tokenizer.json"].encode()


def test_a_slow_tokenizer_without_json_keeps_its_class(source: Path):
    (source / "tokenizer.json").unlink()
    made = companions(source)
    assert parsed(made, "tokenizer_config.json")["tokenizer_class"] == "Qwen2Tokenizer"
    assert "tokenizer.json" not in made.texts


def test_a_tokenizer_without_any_vocabulary_is_refused(source: Path):
    for name in ("tokenizer.json", "merges.txt"):
        (source / name).unlink()
    with pytest.raises(CompanionFileError, match=r"has neither tokenizer\.json nor .*--tokenizer"):
        companions(source)


def test_remote_code_that_is_not_internlm2s_is_refused(source: Path):
    (source / "tokenizer.json").unlink()
    edit_json(source / "tokenizer_config.json", lambda config: config.update(auto_map={"AutoTokenizer": ["x.Y", None]}))
    with pytest.raises(CompanionFileError, match=r"remote code is never run.*--tokenizer"):
        companions(source)


# What a sidecar gives back.


def test_an_untouched_tokenizer_is_restored_to_the_letter(source: Path):
    kept = {"tokenizer_config.json": "{ }", "chat_template.jinja": "old\r\n", "README.md": "hello"}
    made = companions(source, other_format(kept, source, "tokenizer_config.json", "vocab.json"))
    assert {name: made.texts[name] for name in kept} == kept
    assert "vocab.json" not in {path.name for path in made.copies}
    assert "merges.txt" in {path.name for path in made.copies}


@pytest.mark.parametrize("name", ["tokenizer_config.json", "vocab.json"])
def test_a_tokenizer_that_was_edited_is_translated(name: str, source: Path):
    kept = other_format(
        {"tokenizer_config.json": "{ }", "README.md": "hello"}, source, "tokenizer_config.json", "vocab.json"
    )
    (source / name).write_text((source / name).read_text() + "\n")
    made = companions(source, kept)
    assert parsed(made, "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "vocab.json" in {path.name for path in made.copies}
    assert made.texts["README.md"] == "hello"


def test_a_chat_template_that_was_added_is_translated(source: Path):
    kept = other_format({"tokenizer_config.json": "{ }"}, source, "tokenizer_config.json")
    (source / "chat_template.jinja").write_text("added <image>")
    assert companions(source, kept).texts["chat_template.jinja"].endswith("added <IMG_CONTEXT>")


def test_a_system_message_that_is_asked_for_is_not_overruled_by_what_was(source: Path):
    kept = other_format({"tokenizer_config.json": "{ }", "chat_template.jinja": "old"}, source, "tokenizer_config.json")
    assert system_message(companions(source, kept, "Be brief.").texts["chat_template.jinja"]) == "Be brief."


def test_an_untouched_generation_config_is_restored_and_an_edited_one_is_not(source: Path):
    kept = other_format({"generation_config.json": '{"old": 1}'}, source, "generation_config.json")
    assert companions(source, kept).texts["generation_config.json"] == '{"old": 1}'
    edit_json(source / "generation_config.json", lambda config: config.update(top_k=3))
    made = parsed(companions(source, kept), "generation_config.json")
    assert (made["top_k"], made["eos_token_id"], "old" in made) == (3, 474, False)


def test_a_generation_config_that_was_not_there_is_not_there_again(source: Path):
    made = companions(source, other_format({"config.json": "{}"}, source, "generation_config.json"))
    assert "generation_config.json" not in made.texts


@pytest.mark.parametrize("version", ["4.57.6", "5.23.0"])
def test_processor_files_that_mean_what_config_json_says_are_restored(version: str, source: Path):
    files = {path.name: path.read_text() for path in (DATA / f"processor-{version}").iterdir()}
    made = companions(source, other_format(files, source))
    assert {name: made.texts[name] for name in HF_FILES if name in made.texts} == files


@pytest.mark.parametrize(
    "change",
    [{"max_dynamic_patch": 6}, {"dynamic_image_size": False}, {"force_image_size": 112}, {"downsample_ratio": 1.0}],
)
def test_processor_files_that_mean_something_else_are_made_anew(change: dict[str, Any], source: Path):
    files = {path.name: path.read_text() for path in (DATA / "processor-4.57.6").iterdir()}
    edit_json(source / "config.json", lambda config: config.update(change))
    made = companions(source, other_format(files, source))
    assert all(
        made.texts[name] != files[name] for name in ["preprocessor_config.json"] if "downsample_ratio" not in change
    )
    assert made.texts == companions(source).texts


# What deserves attention.


def test_tiles_without_a_thumbnail_deserve_a_note(source: Path):
    edit_json(source / "config.json", lambda config: config.update(use_thumbnail=False))
    assert ["use_thumbnail false" in note for note in companions(source).notes] == [True]
    edit_json(source / "config.json", lambda config: config.update(dynamic_image_size=False))
    assert companions(source).notes == ()


def test_padded_images_deserve_a_note(source: Path):
    edit_json(source / "config.json", lambda config: config.update(pad2square=True))
    assert ["pad2square true" in note for note in companions(source).notes] == [True]


@pytest.mark.parametrize("change", [{"image_mean": [0.5, 0.5, 0.5]}, {"image_std": None}, {"image_std": "x"}])
def test_another_normalisation_deserves_a_note_with_the_files_name(change: dict[str, Any], source: Path):
    edit_json(source / "preprocessor_config.json", lambda config: config.update(change))
    [note] = companions(source).notes
    assert note.startswith("preprocessor_config.json normalises images by")


def test_no_preprocessor_config_says_nothing_of_normalisation(source: Path):
    (source / "preprocessor_config.json").unlink()
    assert companions(source).notes == ()


@pytest.mark.parametrize(("beyond", "noted"), [(0, True), (-1, False)])
def test_a_video_token_of_the_source_without_an_embedding_deserves_a_note(beyond: int, noted: bool, source: Path):
    number = read_config(source).values["llm_config"]["vocab_size"] + beyond
    edit_json(source / "added_tokens.json", lambda tokens: tokens.update({"<video>": number}))
    assert ["1 token(s) for which the model has no embedding: <video>" in n for n in companions(source).notes] == (
        [True] * noted
    )


def test_an_end_of_turn_that_the_tokenizer_lacks_deserves_a_note(source: Path):
    chat = ChatSetup("a template", "<|nowhere|>", ())
    made = hf_companions(describe(read_config(source)), read_tokenizer_files(source), chat, None, None)
    assert ["with <|nowhere|>, which the tokenizer does not have" in note for note in made.notes] == [True]
    assert parsed(made, "generation_config.json")["eos_token_id"] == 474


def test_a_template_with_its_own_first_token_deserves_no_note(internlm2: Path):
    edit_json(
        internlm2 / "tokenizer_config.json",
        lambda config: config.update(chat_template="{{ bos_token }}<|im_start|><image><|im_end|>\n"),
    )
    assert [note for note in companions(internlm2).notes if "in front of a text" in note] == []


def test_a_first_token_of_a_tokenizer_json_deserves_a_note(source: Path):
    def put_first(tokenizer: dict[str, Any]) -> None:
        single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": single}

    edit_json(source / "tokenizer.json", put_first)
    assert ["puts <|im_start|> in front" in note for note in companions(source).notes] == [True]
    edit_json(source / "tokenizer.json", lambda tokenizer: tokenizer.update(post_processor={"type": "Future"}))
    assert companions(source).notes == ()


@pytest.mark.parametrize("name", ["generation_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["[]", "null", "{", "\udcff"])
def test_a_malformed_file_is_refused_by_name(name: str, text: str, source: Path):
    (source / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CompanionFileError, match=f"{name} cannot be used"):
        companions(source)
