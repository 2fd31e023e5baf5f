"""What a custom directory gets beside weights and config.json: made anew, or restored where nothing was touched."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from metadata.describing import CUSTOM, changed, custom_config, description, hf_config
from support import DATA, edit_json

from internvl_bridge.convert.companions.hf_source import fields_from_files, read_hf_files
from internvl_bridge.convert.companions.remote_code import hub_auto_map
from internvl_bridge.convert.companions.shared import CompanionFiles
from internvl_bridge.convert.companions.to_custom import custom_companions
from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.families import QWEN2
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import built_template, with_system_message
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.files import digest
from internvl_bridge.metadata.other_format import OtherFormat
from internvl_bridge.metadata.processor.files import custom_preprocessor
from internvl_bridge.metadata.tokenizer.files import read_tokenizer_files

STORED = custom_config("qwen2-300m")
HF = description(hf_config("qwen2-300m@state-dict"))
TILING = {"dynamic_image_size": True, "use_thumbnail": True, "min_dynamic_patch": 1, "max_dynamic_patch": 12}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An HF directory as transformers 4.57.6 saved it, but for its weights."""
    home = tmp_path / "hf"
    home.mkdir()
    for name in ("tokenizers/bpe", "tokenizer-4.57.6", "processor-4.57.6"):
        shutil.copytree(DATA / name, home, dirs_exist_ok=True)
    for name in ("added_tokens.json", "special_tokens_map.json"):
        (home / name).unlink()
    (home / "generation_config.json").write_text('{"eos_token_id":474}\r\n')
    return home


def other_format(
    home: Path, files: dict[str, str] | None = None, made: tuple[str, ...] = (), config: dict[str, Any] = STORED
) -> OtherFormat:
    """A sidecar in ``home`` that keeps ``files`` of a custom directory, from which ``made`` were made."""
    written = {name: digest(home / name) or "" for name in made}
    return OtherFormat(home / "internvl_bridge.json", files or {}, description(config), written)


def reference(config: dict[str, Any] = STORED) -> OtherFormat:
    files = {"config.json": json.dumps(config)}
    return OtherFormat(Path("reference"), files, description(config), {}, is_reference=True)


def told(
    home: Path,
    old: OtherFormat | None = None,
    hf: ModelDescription = HF,
    code: tuple[Path, ...] = (),
    tokenizer: Path | None = None,
) -> dict[str, Any]:
    return fields_from_files(hf, read_hf_files(home, read_tokenizer_files(tokenizer or home), code), old)


def companions(
    home: Path,
    old: OtherFormat | None = None,
    config: dict[str, Any] = STORED,
    code: tuple[Path, ...] = (),
    tokenizer: Path | None = None,
) -> CompanionFiles:
    return custom_companions(config, read_hf_files(home, read_tokenizer_files(tokenizer or home), code), old)


def parsed(made: CompanionFiles, name: str) -> dict[str, Any]:
    return json.loads(made.texts[name])


# What HF's files tell about config.json.


@pytest.mark.parametrize("version", ["4.57.6", "5.23.0"])
def test_without_a_sidecar_the_files_tell_template_tiling_and_modules(version: str, source: Path):
    for path in source.glob("*processor_config.json"):
        path.unlink()
    shutil.copytree(DATA / f"processor-{version}", source, dirs_exist_ok=True)
    expected = {"template": "internvl2_5", **TILING, "auto_map": hub_auto_map(QWEN2)}
    assert told(source) == expected


def test_files_that_are_not_there_tell_nothing(tmp_path: Path):
    assert told(tmp_path) == {"auto_map": hub_auto_map(QWEN2)}
    assert told(tmp_path, other_format(tmp_path, made=("x",))) == {}


def test_what_a_sidecar_says_too_is_not_told_again(source: Path):
    assert told(source, other_format(source, made=("x",))) == {}
    several = changed(STORED, None, dynamic_image_size=False, min_dynamic_patch=1, max_dynamic_patch=1)
    edit_json(source / "preprocessor_config.json", lambda config: config.update(max_patches=1))
    assert told(source, other_format(source, made=("x",), config=several)) == {}


def test_a_tiling_that_was_edited_is_told(source: Path):
    edit_json(source / "preprocessor_config.json", lambda config: config.update(max_patches=24))
    assert told(source, other_format(source, made=("x",))) == {
        name: value for name, value in {**TILING, "max_dynamic_patch": 24}.items() if name != "use_thumbnail"
    }


@pytest.mark.parametrize("odd", [{"max_patches": "12"}, {"max_patches": True}, {"min_patches": 99}])
def test_a_tiling_that_is_none_is_refused(odd: dict[str, Any], source: Path):
    edit_json(source / "preprocessor_config.json", lambda config: config.update(odd))
    with pytest.raises(CompanionFileError, match="by which no image can be cut"):
        told(source)


def test_a_template_that_was_edited_is_told(source: Path):
    old = other_format(source, {"tokenizer_config.json": "{}"}, made=("tokenizer_config.json", "chat_template.jinja"))
    assert told(source, old) == {}
    (source / "chat_template.jinja").write_text(built_template(CONVERSATIONS["phi3-chat"]))
    assert told(source, old) == {"template": "phi3-chat"}


def test_an_untouched_template_does_not_overrule_the_name_that_the_sidecar_knows(source: Path):
    old = other_format(
        source,
        {"tokenizer_config.json": "{}"},
        made=("tokenizer_config.json", "chat_template.jinja"),
        config=changed(STORED, None, template="Hermes-2"),
    )
    assert told(source, old) == {}


def test_a_name_that_is_not_known_here_is_never_overruled(source: Path):
    assert told(source, other_format(source, made=("x",), config=changed(STORED, None, template="future"))) == {}


def test_a_template_from_a_reference_says_nothing_about_it(source: Path, tmp_path: Path):
    lent = OtherFormat(tmp_path / "hf", {}, description(changed(STORED, None, template="Hermes-2")), {})
    assert "template" not in told(source, lent)
    assert told(source, reference(changed(STORED, None, template="Hermes-2")))["template"] == "internvl2_5"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("internlm2-chat", None), ("Hermes-2", None), ("internvl2_5", "Hermes-2"), (None, "Hermes-2")],
)
def test_of_templates_that_are_alike_the_stated_one_stays(stated: str | None, expected: str | None, source: Path):
    (source / "chat_template.jinja").write_text(built_template(CONVERSATIONS["Hermes-2"]))
    old = other_format(source, made=("x",), config=changed(STORED, None, template=stated))
    assert told(source, old).get("template") == expected


def test_of_templates_that_are_alike_an_internlm2_gets_its_own(source: Path):
    (source / "chat_template.jinja").write_text(built_template(CONVERSATIONS["Hermes-2"]))
    assert told(source, hf=CUSTOM_INTERNLM2)["template"] == "internlm2-chat"
    assert told(source)["template"] == "Hermes-2"


CUSTOM_INTERNLM2 = description(CUSTOM["internlm2-300m"].values)


def test_modules_come_from_the_hub_only_where_nobody_has_them(source: Path):
    modules = tuple(
        Path("reference") / name for name in ("configuration_internvl_chat.py", "modeling_internvl_chat.py")
    )
    assert "auto_map" not in told(source, reference(), code=modules)
    assert told(source, reference(), code=modules[:1])["auto_map"] == hub_auto_map(QWEN2)
    assert "auto_map" not in told(source, other_format(source, made=("x",)))
    assert "auto_map" not in told(source, reference(changed(STORED, None, auto_map=...)))


@pytest.mark.parametrize(
    "name", ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
)
@pytest.mark.parametrize("text", [b"[]", b"null", b"{", b"\xff", b"[" * 5000])
def test_a_malformed_processor_file_is_refused_by_name(name: str, text: bytes, source: Path):
    (source / name).write_bytes(text)
    with pytest.raises(CompanionFileError, match=f"{name} cannot be used"):
        told(source)


@pytest.mark.parametrize("odd", [None, -5, True, [], {}, "x", [[]]], ids=repr)
def test_odd_values_in_processor_files_are_no_traceback(odd: Any, source: Path):
    for name in ("image_processor", "image_seq_length", "video_processor"):
        edit_json(source / "processor_config.json", lambda config, name=name: config.update({name: odd}))
    for name in ("size", "image_mean"):
        edit_json(source / "preprocessor_config.json", lambda config, name=name: config.update({name: odd}))
    assert told(source)["max_dynamic_patch"] == 12
    assert len([note for note in companions(source).notes if "which the custom format cannot state" in note]) == 2


# The files of the custom directory.


def test_a_custom_directory_without_a_sidecar(source: Path):
    made = companions(source)
    assert set(made.texts) == {"tokenizer_config.json", "generation_config.json", "preprocessor_config.json"}
    assert made.texts["generation_config.json"] == '{"eos_token_id":474}\r\n'
    assert parsed(made, "preprocessor_config.json") == custom_preprocessor(56)
    assert {path.name for path in made.copies} == {"tokenizer.json", "vocab.json", "merges.txt"}
    config = parsed(made, "tokenizer_config.json")
    assert config["chat_template"] == (source / "chat_template.jinja").read_text().replace("<IMG_CONTEXT>", "<image>")
    assert config.keys().isdisjoint({"video_token", "processor_class", "extra_special_tokens"})
    assert config["tokenizer_class"] == "Qwen2Tokenizer"


def test_a_tokenizer_with_nothing_but_its_json_gets_the_class_that_reads_it(source: Path):
    (source / "merges.txt").unlink()
    assert parsed(companions(source), "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_directory_without_a_tokenizer_gets_none(tmp_path: Path):
    made = companions(tmp_path)
    assert set(made.texts) == {"preprocessor_config.json"}
    assert made.copies == ()


def test_a_tokenizer_without_a_template_gets_none(source: Path):
    (source / "chat_template.jinja").unlink()
    assert "chat_template" not in parsed(companions(source), "tokenizer_config.json")


def test_a_map_of_special_tokens_loses_what_only_hf_asks_for(source: Path):
    (source / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>", "video_token": "<video>"}')
    made = companions(source)
    assert parsed(made, "special_tokens_map.json") == {"eos_token": "<|im_end|>"}
    assert "special_tokens_map.json" not in {path.name for path in made.copies}
    (source / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    assert "special_tokens_map.json" in {path.name for path in companions(source).copies}


@pytest.mark.parametrize("name", ["special_tokens_map.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", [b"[]", b"null", b"{", b"\xff"])
def test_a_malformed_file_is_refused_by_name(name: str, text: bytes, source: Path):
    (source / name).write_bytes(text)
    with pytest.raises(CompanionFileError, match=f"{name} cannot be used"):
        companions(source)


def test_what_a_sidecar_keeps_comes_back_to_the_letter(source: Path):
    kept = {
        "config.json": "{}",
        "README.md": "hello\r\n",
        "foo.json": "[1]",
        "bar.json": "{",
        "tokenizer_config.json": "{ }",
        "generation_config.json": '{"old":1}',
        "preprocessor_config.json": '{"size":56}',
    }
    made = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json", "merges.txt")
    result = companions(source, other_format(source, kept, made))
    assert result.texts == {name: text for name, text in kept.items() if name != "config.json"}
    assert {path.name for path in result.copies} == {"tokenizer.json", "vocab.json"}


@pytest.mark.parametrize(
    ("edited", "changes"),
    [("chat_template.jinja", "tokenizer_config.json"), ("generation_config.json", "generation_config.json")],
)
def test_what_was_edited_since_wins_and_nothing_else_changes(edited: str, changes: str, source: Path):
    kept = {"README.md": "a", "tokenizer_config.json": "{ }", "generation_config.json": '{"old":1}'}
    old = other_format(source, kept, ("tokenizer_config.json", "chat_template.jinja", "generation_config.json"))
    before = companions(source, old).texts
    text = "edited <IMG_CONTEXT>" if edited.endswith("jinja") else '{"eos_token_id": [9]}'
    (source / edited).write_text(text)
    after = companions(source, old).texts
    assert {name for name in after if after[name] != before.get(name)} == {changes}
    expected = {"chat_template": "edited <image>"} if edited.endswith("jinja") else {"eos_token_id": [9]}
    assert json.loads(after[changes]).items() >= expected.items()


def test_a_generation_config_that_was_removed_stays_away(source: Path):
    old = other_format(source, {"generation_config.json": "{}"}, ("generation_config.json",))
    (source / "generation_config.json").unlink()
    assert "generation_config.json" not in companions(source, old).texts


def test_a_generation_config_that_a_conversion_had_to_make_goes_again(source: Path):
    assert (
        "generation_config.json" not in companions(source, other_format(source, {}, ("generation_config.json",))).texts
    )


def test_a_preprocessor_config_for_other_tiles_is_made_anew(source: Path):
    old = other_format(source, {"preprocessor_config.json": '{"size":56}'}, ("x",))
    made = companions(source, old, config={**STORED, "force_image_size": 112})
    assert parsed(made, "preprocessor_config.json") == custom_preprocessor(112)
    assert companions(source, old).texts["preprocessor_config.json"] == '{"size":56}'


def test_a_reference_without_a_preprocessor_config_does_not_mean_that_there_was_none(source: Path):
    assert parsed(companions(source, reference()), "preprocessor_config.json") == custom_preprocessor(56)
    assert "preprocessor_config.json" not in companions(source, other_format(source, made=("x",))).texts


def test_lent_modules_are_copied_and_win_over_kept_ones(source: Path, tmp_path: Path):
    (tmp_path / "lent.py").write_text("lent")
    old = other_format(source, {"lent.py": "kept", "other.py": "kept"}, ("x",))
    made = companions(source, old, code=(tmp_path / "lent.py",))
    assert tmp_path / "lent.py" in made.copies
    assert "lent.py" not in made.texts
    assert made.texts["other.py"] == "kept"


def test_another_tokenizer_is_not_the_one_that_the_sidecar_keeps(source: Path, tmp_path: Path):
    home = tmp_path / "tokenizer"
    shutil.copytree(DATA / "tokenizers" / "bpe", home)
    old = other_format(source, {"tokenizer_config.json": "{ }"}, ("tokenizer_config.json", "chat_template.jinja"))
    made = companions(source, old, tokenizer=home)
    assert parsed(made, "tokenizer_config.json")["chat_template"]
    assert {path.parent for path in made.copies} == {home}


# What deserves attention.


def test_modules_that_are_nowhere_deserve_a_note(source: Path):
    [missed] = companions(source).notes
    assert missed.startswith("The output needs configuration_internvl_chat.py, modeling_internvl_chat.py, which")
    kept = {"configuration_internvl_chat.py": "", "modeling_internvl_chat.py": ""}
    [note] = companions(source, other_format(source, kept, ("x",))).notes
    assert note.startswith("The sidecar restores configuration_internvl_chat.py, modeling_internvl_chat.py. Read them")


def test_modules_from_the_hub_deserve_a_note(source: Path):
    [note] = companions(source, config={**STORED, "auto_map": hub_auto_map(QWEN2)}).notes
    assert note.startswith("auto_map names OpenGVLab/InternVL3-8B for")


@pytest.mark.parametrize(
    ("message", "noted"), [("Be brief.", True), (CONVERSATIONS["internvl2_5"].system_message, False)]
)
def test_a_system_message_that_upstream_does_not_render_deserves_a_note(message: str, noted: bool, source: Path):
    template = with_system_message((source / "chat_template.jinja").read_text(), message)
    (source / "chat_template.jinja").write_text(template)
    config = changed(STORED, None, auto_map={})
    assert ["renders the system message 'Be brief.'" in note for note in companions(source, config=config).notes] == (
        [True] if noted else []
    )
    for name in (None, "future"):
        assert companions(source, config=changed(config, None, template=name)).notes == ()
