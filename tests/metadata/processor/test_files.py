"""The processor's files say what transformers itself saved, and both its spellings are read alike."""

import json
from typing import Any

import pytest
from support import DATA

from internvl_bridge.metadata.config.tiling import ONE_TILE, Tiling, hf_tiling
from internvl_bridge.metadata.json_files import as_text
from internvl_bridge.metadata.processor.files import (
    HF_PROCESSOR_FILES,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    VIDEO_FILE,
    custom_preprocessor,
    hf_processor_files,
    image_processor,
)


def saved(version: str) -> dict[str, Any]:
    """The processor's files as that version of transformers saved them."""
    directory = DATA / f"processor-{version}"
    return {path.name: json.loads(path.read_text()) for path in directory.iterdir()}


MADE = hf_processor_files(56, 4, Tiling(1, 12))


@pytest.mark.parametrize("name", HF_PROCESSOR_FILES)
def test_every_value_is_that_of_transformers_4(name: str):
    theirs = saved("4.57.6")[name]
    assert {key: theirs[key] for key in MADE[name]} == MADE[name]
    assert list(MADE[name]) == sorted(MADE[name])


@pytest.mark.parametrize(("ours", "theirs"), [(PREPROCESSOR_FILE, "image_processor"), (VIDEO_FILE, "video_processor")])
def test_every_value_that_transformers_5_writes_is_there_or_a_default(ours: str, theirs: str):
    section = saved("5.23.0")[PROCESSOR_FILE][theirs]
    defaults = {"initial_shift": True, "return_metadata": False}
    stated = {key: value for key, value in MADE[ours].items() if key not in {"processor_class", "image_processor_type"}}
    assert {**section, **stated} == section
    assert {key: section[key] for key in section.keys() - MADE[ours].keys()} == {
        key: value for key, value in defaults.items() if theirs == "video_processor"
    }


def test_the_processor_says_how_many_tokens_a_tile_becomes():
    assert saved("5.23.0")[PROCESSOR_FILE].items() >= MADE[PROCESSOR_FILE].items()
    assert hf_processor_files(448, 256, ONE_TILE)[PROCESSOR_FILE]["image_seq_length"] == 256
    assert hf_processor_files(448, 256, ONE_TILE)[PREPROCESSOR_FILE]["size"] == {"height": 448, "width": 448}


@pytest.mark.parametrize("files", [saved("4.57.6"), saved("5.23.0"), MADE], ids=["4", "5", "ours"])
def test_all_spellings_say_the_same_tiling(files: dict[str, Any]):
    assert hf_tiling(image_processor(files)) == Tiling(1, 12)
    assert image_processor(files)["size"] == {"height": 56, "width": 56}


def test_transformers_5s_section_wins_over_a_file_that_was_left_from_4():
    files = {PROCESSOR_FILE: {"image_processor": {"max_patches": 3}}, PREPROCESSOR_FILE: {"max_patches": 12}}
    assert image_processor(files) == {"max_patches": 3}


@pytest.mark.parametrize("section", [None, [], "GotOcr2ImageProcessor", 1])
def test_a_section_that_is_no_object_is_none(section: Any):
    files = {PROCESSOR_FILE: {"image_processor": section}, PREPROCESSOR_FILE: {"max_patches": 12}}
    assert image_processor(files) == {"max_patches": 12}


def test_no_files_say_nothing():
    assert image_processor({}) == {}


def test_the_custom_one_is_what_upstream_ships():
    stored = json.loads((DATA / "tokenizers" / "bpe" / "preprocessor_config.json").read_text())
    assert custom_preprocessor(448) == stored
    assert custom_preprocessor(224) == {**stored, "size": 224, "crop_size": 224}


def test_texts_are_json_as_people_read_it():
    assert as_text({"a": ["书", 1]}) == '{\n  "a": [\n    "书",\n    1\n  ]\n}\n'
