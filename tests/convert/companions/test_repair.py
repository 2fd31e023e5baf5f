"""What a repaired HF directory gets beside its weights: all that its files said, whoever wrote them, and once only."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from metadata.describing import custom_config, hf_config
from support import DATA, NAMES, copy_custom, edit_json

import internvl_bridge
from internvl_bridge.convert.companions.repair import repaired_companions, repaired_turn_end
from internvl_bridge.convert.companions.shared import CompanionFiles
from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import built_template, system_message, with_system_message
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.config.repair import repaired_config
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts
from internvl_bridge.metadata.json_files import as_text
from internvl_bridge.metadata.other_format import usable_sidecar
from internvl_bridge.metadata.tokenizer.files import read_tokenizer_files
from internvl_bridge.metadata.tokenizer.token_ids import token_id

VERSIONS = ("4.57.6", "5.23.0")
PROCESSOR = {"processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"}
BPE = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
CHATML = built_template(CONVERSATIONS["internvl2_5"])
LM_ONLY = CHATML.replace("<IMG_CONTEXT>", "")


@dataclass(frozen=True)
class Repaired:
    """A directory that was written, and what was decided about it."""

    home: Path
    made: CompanionFiles
    config: dict[str, Any]

    def read(self, name: str) -> dict[str, Any]:
        return json.loads((self.home / name).read_text())

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.home.iterdir()}

    def noted(self, *parts: str) -> bool:
        """Whether there is exactly one note with all ``parts``."""
        return sum(all(part in note for part in parts) for note in self.made.notes) == 1


def repair(source: Path, output: Path, tokenizer: Path | None = None, system: str | None = None) -> Repaired:
    file = read_config(source)
    other_format, _ = usable_sidecar(file)
    description = describe(file, other_family=other_format.description.family if other_format else None)
    files = read_tokenizer_files(tokenizer or source)
    image = token_id(files.home, "<IMG_CONTEXT>") or description.values.get("image_token_id", 151667)
    facts = TensorFacts(tied=description.may_be_tied, packed=None, dtype="bfloat16")
    config = repaired_config(description, facts, TokenFacts(image, repaired_turn_end(description, files)))
    made = repaired_companions(description, files, config, system)
    output.mkdir()
    for name, text in {**made.texts, "config.json": as_text(config)}.items():
        (output / name).write_bytes(text.encode())
    for path in made.copies:
        assert not (output / path.name).exists(), path
        shutil.copyfile(path, output / path.name)
    return Repaired(output, made, config)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".safetensors"}


def saved_by(version: str, directory: Path) -> Path:
    """What that version of transformers saved of the stored Qwen2, but the weights."""
    shutil.copytree(DATA / "resaved" / f"qwen2-300m@{version}", directory)
    for kind in ("processor", "tokenizer"):
        shutil.copytree(DATA / f"{kind}-{version}", directory, dirs_exist_ok=True)
    return directory


def bare(directory: Path) -> Path:
    """A trainer's raw dump: a config.json, and nothing else."""
    directory.mkdir()
    shutil.copy(DATA / "hf" / "qwen2-300m@state-dict" / "config.json", directory)
    return directory


@pytest.fixture
def saved4(tmp_path: Path) -> Path:
    return saved_by("4.57.6", tmp_path / "saved")


@pytest.fixture
def saved5(tmp_path: Path) -> Path:
    return saved_by("5.23.0", tmp_path / "saved")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return bare(tmp_path / "dump")


@pytest.fixture
def repaired(tmp_path: Path) -> Callable[..., Repaired]:
    return lambda source, **options: repair(source, tmp_path / "repaired", **options)


# Made again, it is the same.


@pytest.mark.parametrize("name", NAMES)
def test_what_to_hf_wrote_stays_as_it_is_to_the_byte(name: str, tmp_path: Path):
    internvl_bridge.to_hf(copy_custom(name, tmp_path / "custom"), tmp_path / "hf")
    assert contents(repair(tmp_path / "hf", tmp_path / "repaired").home) == contents(tmp_path / "hf")


def spoilt(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).unlink()
    return directory


SOURCES: dict[str, Callable[[Path], Path]] = {
    **{f"saved by {version}": lambda at, version=version: saved_by(version, at) for version in VERSIONS},
    "a raw dump": bare,
    "tied, with generation_config.json": lambda at: shutil.copytree(DATA / "hf" / "qwen3-300m-tied@5.4.0", at),
    "no image processor": lambda at: spoilt(saved_by("4.57.6", at), "preprocessor_config.json"),
    "no video processor": lambda at: spoilt(saved_by("4.57.6", at), "video_preprocessor_config.json"),
    "no processor": lambda at: spoilt(saved_by("5.23.0", at), "processor_config.json"),
    "no chat template": lambda at: spoilt(saved_by("5.23.0", at), "chat_template.jinja"),
    "slow tokenizer": lambda at: spoilt(saved_by("4.57.6", at), "tokenizer.json"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_repaired_stays_as_it_is_to_the_byte(source: str, tmp_path: Path):
    first = repair(SOURCES[source](tmp_path / "source"), tmp_path / "first")
    second = repair(first.home, tmp_path / "second")
    assert contents(second.home) == contents(first.home)
    assert first.names >= {"config.json", "generation_config.json", *PROCESSOR}


def test_what_was_given_a_tokenizer_stays_as_it_is_to_the_byte(dump: Path, tmp_path: Path):
    internlm2 = copy_custom("internlm2-300m", tmp_path / "custom")
    first = repair(dump, tmp_path / "first", tokenizer=internlm2, system="Be brief.")
    assert first.names >= {"tokenizer.json", "tokenizer.model", "chat_template.jinja"}
    assert contents(repair(first.home, tmp_path / "second").home) == contents(first.home)


# The tokenizer.


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tokenizer_of_either_version_is_one_that_both_read(version: str, tmp_path: Path):
    source = saved_by(version, tmp_path / "saved")
    made = repair(source, tmp_path / "repaired")
    config = made.read("tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["extra_special_tokens"] == {
        "context_image_token": "<IMG_CONTEXT>",
        "end_image_token": "</img>",
        "start_image_token": "<img>",
        "video_token": "<video>",
    }
    assert not config.keys() & {"model_specific_special_tokens", "backend", "is_local", "chat_template"}
    assert config["additional_special_tokens"][:3] == ["<|im_start|>", "<|im_end|>", "<img>"]
    assert (config["eos_token"], config["pad_token"]) == ("<|im_end|>", "<|endoftext|>")
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (made.home / name).read_bytes() == (source / name).read_bytes()
    assert made.config["image_token_id"] == 590


def test_without_a_tokenizer_there_is_none_and_a_note_names_the_remedy(dump: Path, repaired: Callable[..., Repaired]):
    made = repaired(dump)
    assert made.names == {"config.json", "generation_config.json", *PROCESSOR}
    assert made.noted(f"{dump.name} has no tokenizer, so the output has none", "--tokenizer")
    assert made.noted("The output has upstream's usual way")
    assert not made.noted("was asked for")
    assert made.config["image_token_id"] == 590
    assert repaired_turn_end(describe(read_config(dump)), read_tokenizer_files(dump)) is None


def test_a_chat_template_without_a_tokenizer_is_carried_over(dump: Path, repaired: Callable[..., Repaired]):
    for name, text in {"chat_template.jinja": CHATML, "tokenizer_config.json": "{ }", "merges.txt": "a b"}.items():
        (dump / name).write_text(text)
    made = repaired(dump, system="Be brief.")
    assert made.names == {*BPE, "merges.txt", "config.json", "generation_config.json", *PROCESSOR} - {"tokenizer.json"}
    assert (made.home / "chat_template.jinja").read_text() == CHATML
    assert made.noted("has no tokenizer", "The system message that was asked for is not rendered.")
    assert repaired_turn_end(describe(read_config(dump)), read_tokenizer_files(dump)) is None


def test_the_tokenizer_of_another_directory_takes_the_place_of_the_sources(
    saved4: Path, tmp_path: Path, repaired: Callable[..., Repaired]
):
    (saved4 / "tokenizer.model").write_text("stale")
    other = saved_by("5.23.0", tmp_path / "other")
    edit_json(other / "tokenizer_config.json", lambda config: config.update(model_max_length=99))
    made = repaired(saved4, tokenizer=other)
    assert made.read("tokenizer_config.json")["model_max_length"] == 99
    assert (made.home / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert not made.names & {"tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"}


def test_a_directory_that_was_named_must_hold_a_tokenizer(dump: Path, tmp_path: Path):
    other = bare(tmp_path / "other")
    (other / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CompanionFileError, match=r"other has neither tokenizer\.json nor"):
        repair(dump, tmp_path / "repaired", tokenizer=other)


def test_a_tokenizer_that_has_another_id_wins_and_a_note_says_so(saved5: Path, repaired: Callable[..., Repaired]):
    edit_json(saved5 / "config.json", lambda config: config.update(image_token_id=7))
    made = repaired(saved5)
    assert made.config["image_token_id"] == 590
    assert made.noted("config.json has image_token_id 7, but the tokenizer has 590 for <IMG_CONTEXT>")


def test_an_id_that_config_json_leaves_out_is_the_tokenizers(saved4: Path, repaired: Callable[..., Repaired]):
    edit_json(saved4 / "config.json", lambda config: config.pop("image_token_id"))
    made = repaired(saved4)
    assert made.config["image_token_id"] == 590
    assert not made.noted("image_token_id")


# The chat template.


@pytest.mark.parametrize("message", [None, "Be brief."])
def test_a_template_for_hfs_processor_is_kept_with_its_system_message(message: str | None, saved5: Path, repaired: Any):
    text = CHATML if message is None else with_system_message(CHATML, message)
    (saved5 / "chat_template.jinja").write_text(text)
    sidecar_beside(saved5)  # whose template has a system message of its own
    made = repaired(saved5)
    assert (made.home / "chat_template.jinja").read_text() == text
    assert not made.noted("chat template is")


@pytest.mark.parametrize(("wanted", "expected"), [("Be kind.", "Be kind."), ("none", None), ("", "")])
def test_a_system_message_can_be_asked_for(wanted: str, expected: str | None, saved5: Path, repaired: Any):
    (saved5 / "chat_template.jinja").write_text(with_system_message(CHATML, "Be brief."))
    made = repaired(saved5, system=wanted)
    assert system_message(made.made.texts["chat_template.jinja"]) == expected
    assert made.noted("a system message of its own making stays in it") is (wanted == "none")


@pytest.mark.parametrize("own", [CHATML.replace("<IMG_CONTEXT>", "<image>"), LM_ONLY, None])
def test_another_template_becomes_what_the_sidecar_names(own: str | None, saved5: Path, repaired: Any):
    (saved5 / "chat_template.jinja").unlink()
    edit_json(saved5 / "tokenizer_config.json", lambda config: config.update(chat_template=own))
    sidecar_beside(saved5)
    made = repaired(saved5).made.texts["chat_template.jinja"]
    assert made == with_system_message(CHATML, CONVERSATIONS["internvl2_5"].system_message)


@pytest.mark.parametrize(("wanted", "expected"), [(None, None), ("none", None), ("Be kind.", "Be kind.")])
@pytest.mark.parametrize(("image", "note"), [("<image>", "is that of a custom checkpoint"), ("", "was made after the")])
def test_another_template_is_translated_as_far_as_it_tells(
    image: str, note: str, wanted: str | None, expected: str | None, saved5: Path, repaired: Any
):
    (saved5 / "chat_template.jinja").write_text(CHATML.replace("<IMG_CONTEXT>", image))
    made = repaired(saved5, system=wanted)
    text = made.made.texts["chat_template.jinja"]
    assert text == (CHATML if expected is None else with_system_message(CHATML, expected))
    assert made.noted(f"The chat template {note}")
    assert made.noted("default system message is not known") is (wanted is None)
    assert made.noted("generation_config.json has eos_token_id 2, but the chat template ends a turn with <|im_end|>")


@pytest.mark.parametrize(("own", "has"), [(None, "the tokenizer has none"), ("{{ x }}", "own places no images")])
@pytest.mark.parametrize("wanted", [None, "Be kind."])
def test_where_nothing_tells_a_template_there_is_a_note(
    own: str | None, has: str, wanted: str | None, saved5: Path, repaired: Any
):
    (saved5 / "chat_template.jinja").unlink()
    if own is not None:
        (saved5 / "chat_template.json").write_text(json.dumps({"chat_template": own}))
    made = repaired(saved5, system=wanted)
    assert made.made.texts.get("chat_template.jinja") == own
    assert "chat_template.json" not in made.names
    assert made.noted("There is no chat template for images", has, "chat_template.jinja")
    assert made.noted("asked for is not rendered") is (wanted is not None)


# The end of a turn.


def test_a_generation_config_is_taken_to_the_letter_and_a_note_says_what_it_lacks(saved5: Path, repaired: Any):
    text = '{"eos_token_id":[2],  "pad_token_id": 472}\r\n'
    (saved5 / "generation_config.json").write_bytes(text.encode())
    made = repaired(saved5)
    assert (made.home / "generation_config.json").read_bytes() == text.encode()
    assert made.noted(
        "generation_config.json has eos_token_id [2], but the chat template ends a turn with <|im_end|>", "[474, 2]"
    )
    assert made.config["text_config"]["eos_token_id"] == 2


def test_a_generation_config_that_ends_turns_needs_no_note(saved5: Path, repaired: Any):
    (saved5 / "generation_config.json").write_text('{"eos_token_id": [2, 474]}')
    assert repaired(saved5).made.notes == ()


def test_without_a_generation_config_one_is_made_that_ends_turns(saved5: Path, repaired: Any):
    (saved5 / "generation_config.json").unlink()
    made = repaired(saved5)
    assert made.read("generation_config.json") == {"bos_token_id": 1, "eos_token_id": [474, 2], "pad_token_id": 0}
    assert made.noted("The source has no generation_config.json: one is made, with eos_token_id [474, 2]")


def test_an_end_that_config_json_lacks_is_the_turns(saved5: Path, repaired: Any):
    edit_json(saved5 / "config.json", lambda config: config["text_config"].pop("eos_token_id"))
    assert repaired(saved5).config["text_config"]["eos_token_id"] == 474


@pytest.mark.parametrize("text", ["{", '{"eos_token_id": "x"}', '{"eos_token_id": []}'])
def test_a_malformed_generation_config_is_refused(text: str, saved5: Path, repaired: Any):
    (saved5 / "generation_config.json").write_text(text)
    with pytest.raises(CompanionFileError, match=r"generation_config\.json"):
        repaired(saved5)


def test_a_layer_that_version_4_cannot_read_deserves_a_note(saved5: Path, repaired: Any):
    edit_json(saved5 / "config.json", lambda config: config.update(vision_feature_layer=-2))
    made = repaired(saved5)
    assert made.config["vision_feature_layer"] == -2
    assert made.noted("vision_feature_layer is -2: transformers 5 reads that, 4.57")


# Other files.


def test_small_texts_are_carried_over_and_what_is_no_part_of_the_model_is_not(saved5: Path, repaired: Any):
    kept = {"LICENSE": "MIT\r\n", "NOTICE": "n", "LICENSE.txt": "l", "README.md": "# 模型", "info.yaml": "a: 1"}
    gone = ("trainer_state.json", "training_args.json", "optimizer.json", "scheduler.json", "rng_state_0.json")
    gone += ("adapter_config.json", "modeling_x.py", "pytorch_model.bin.index.json", "x.pt", "x.bin", ".hidden.md")
    for name, text in {**kept, **dict.fromkeys(gone, "x")}.items():
        (saved5 / name).write_bytes(text.encode())
    (saved5 / "large.txt").write_text("x" * (1 << 20))
    (saved5 / "folder.md").mkdir()
    made = repaired(saved5)
    assert made.names == {*BPE, *kept, "config.json", "generation_config.json", *PROCESSOR}
    assert {name: (made.home / name).read_bytes().decode() for name in kept} == kept


# The sidecar.


def sidecar_beside(directory: Path, **changes: Any) -> bytes:
    """A sidecar as to-hf leaves it beside what it makes of the stored Qwen2."""
    config = custom_config("qwen2-300m") | {"max_dynamic_patch": 6}
    contents = {"version": 2, "source_format": "custom", "family": "Qwen2", "written": {}}
    contents["files"] = {"config.json": json.dumps(config)}
    path = directory / "internvl_bridge.json"
    path.write_text(json.dumps(contents | changes))
    return path.read_bytes()


def test_a_sidecar_is_carried_over_and_tells_the_tiling(saved5: Path, repaired: Any):
    text = sidecar_beside(saved5)
    (saved5 / "processor_config.json").unlink()
    made = repaired(saved5)
    assert (made.home / "internvl_bridge.json").read_bytes() == text
    assert made.read("preprocessor_config.json")["max_patches"] == 6
    assert not made.noted("The output has upstream's usual way")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 1}, "internvl_bridge.json cannot be used: it has version 1"),
        ({"files": {}}, "internvl_bridge.json cannot be used: it lacks its source_format"),
        (
            {"family": "Qwen3", "files": {"config.json": json.dumps(custom_config("qwen3-300m"))}},
            "is of an Qwen3 model",
        ),
        (
            {"source_format": "hf", "files": {"config.json": json.dumps(hf_config("qwen2-300m@state-dict"))}},
            "internvl_bridge.json describes an HF checkpoint, which this is itself.",
        ),
    ],
)
def test_a_sidecar_that_cannot_be_used_is_left_behind(
    changes: dict[str, Any], reason: str, saved5: Path, tmp_path: Path
):
    sidecar_beside(saved5, **changes)
    other_format, notes = usable_sidecar(read_config(saved5))
    assert other_format is None
    [note] = notes
    assert note.startswith("The sidecar is left behind: ")
    assert reason in note
    made = repair(saved5, tmp_path / "repaired")
    assert "internvl_bridge.json" not in made.names
    assert note in made.made.notes


def test_no_sidecar_needs_no_note(saved5: Path):
    assert usable_sidecar(read_config(saved5)) == (None, ())


def test_the_way_back_is_that_of_the_source(tmp_path: Path):
    """A repair changes nothing that the sidecar restores, and what a trainer changed is translated as before."""
    internvl_bridge.to_hf(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "hf")
    edit_json(tmp_path / "hf" / "preprocessor_config.json", lambda config: config.update(max_patches=9))
    made = repair(tmp_path / "hf", tmp_path / "repaired")
    shutil.copy(tmp_path / "hf" / "model.safetensors", made.home)
    for source in ("hf", "repaired"):
        internvl_bridge.to_custom(tmp_path / source, tmp_path / f"{source}-back")
    back = contents(tmp_path / "repaired-back")
    custom = contents(tmp_path / "custom")
    assert json.loads(back["config.json"])["max_dynamic_patch"] == 9
    assert {name: back[name] for name in custom if name != "config.json"} == {
        name: text for name, text in custom.items() if name != "config.json"
    }
    assert {name: text for name, text in back.items() if name != "internvl_bridge.json"} == {
        name: text for name, text in contents(tmp_path / "hf-back").items() if name != "internvl_bridge.json"
    }


def test_the_template_is_that_of_the_custom_checkpoint_that_the_tokenizer_is_from(tmp_path: Path):
    """What a trainer saved has neither a template nor a sidecar; its base has both names and prompts."""
    base = copy_custom("qwen2-300m", tmp_path / "base")
    internvl_bridge.to_hf(base, tmp_path / "hf")
    shutil.copytree(tmp_path / "hf", tmp_path / "bare")
    for name in ("internvl_bridge.json", "chat_template.jinja", "tokenizer_config.json", "tokenizer.json"):
        (tmp_path / "bare" / name).unlink()
    internvl_bridge.repair(tmp_path / "bare", tmp_path / "repaired", tokenizer=base)
    there, here = (tmp_path / name / "chat_template.jinja" for name in ("hf", "repaired"))
    assert here.read_text() == there.read_text()
    edit_json(
        base / "config.json", lambda config: config.update(model_type="qwen3", architectures=["Qwen3ForCausalLM"])
    )
    internvl_bridge.repair(tmp_path / "bare", tmp_path / "again", tokenizer=base)
    assert (tmp_path / "again").is_dir()  # a language model's own config is no obstacle
