"""The processor of a repaired directory is the source's, in files that transformers 4 and 5 both read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from metadata.describing import changed, hf_config
from support import DATA, edit_json

from internvl_bridge.errors import CompanionFileError, ConfigError
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.config.tiling import Tiling
from internvl_bridge.metadata.json_files import as_text
from internvl_bridge.metadata.processor.files import hf_processor_files
from internvl_bridge.metadata.processor.repair import repaired_processor

PROCESSOR, IMAGE, VIDEO = "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"
CLIP = {"feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.5, 0.5, 0.5], "size": 56, "crop_size": 56}
FAST, SLOW = "GotOcr2ImageProcessorFast", "GotOcr2ImageProcessor"
ODD = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.1, 0.2, 0.3],
    "do_rescale": False,
    "resample": 2,
    "max_patches": 7,
}

Result = tuple[dict[str, dict[str, Any]], tuple[str, ...]]
Make = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(hf_config("qwen2-300m@state-dict")))
    return tmp_path


@pytest.fixture
def make(home: Path) -> Make:
    def made(tokens: int = 4, known: Tiling | None = None) -> Result:
        texts, notes = repaired_processor(describe(read_config(home)), tokens, known)
        return {name: json.loads(text) for name, text in texts.items()}, notes

    return made


def saved_by(version: str, home: Path, **changes: Any) -> Path:
    """The processor that this version saved, with ``changes`` to its image processor."""
    shutil.copytree(DATA / f"processor-{version}", home, dirs_exist_ok=True)
    if version.startswith("5"):
        edit_json(home / PROCESSOR, lambda values: values["image_processor"].update(changes))
    elif changes:
        edit_json(home / IMAGE, lambda values: values.update(changes))
    return home


def test_the_files_of_version_4_are_kept_to_the_letter(home: Path):
    saved_by("4.57.6", home)
    (home / PROCESSOR).write_text('{"processor_class":"InternVLProcessor",\r\n "image_seq_length":4, "more": [1]}')
    texts, notes = repaired_processor(describe(read_config(home)), 4, None)
    assert texts == {name: (home / name).read_bytes().decode() for name in (PROCESSOR, IMAGE, VIDEO)}
    assert notes == ()


def test_the_sections_of_version_5_become_files(home: Path, make: Make):
    stored = json.loads((saved_by("5.23.0", home) / PROCESSOR).read_text())
    made, notes = make()
    assert made == {
        PROCESSOR: {"image_seq_length": 4, "processor_class": "InternVLProcessor"},
        IMAGE: {
            **stored["image_processor"],
            "image_processor_type": FAST,
            "processor_class": "InternVLProcessor",
        },
        VIDEO: {**stored["video_processor"], "processor_class": "InternVLProcessor"},
    }
    assert [list(values) for values in made.values()] == [sorted(values) for values in made.values()]
    assert notes == ()


@pytest.mark.parametrize("version", ["4.57.6", "5.23.0"])
def test_what_the_source_states_is_kept(version: str, home: Path, make: Make):
    saved_by(version, home, **ODD, future={"a": 1})
    made, notes = make()
    assert made[IMAGE].items() >= {**ODD, "future": {"a": 1}}.items()
    assert made[VIDEO]["image_mean"] == [0.485, 0.456, 0.406]
    assert notes == ()


def test_the_section_of_version_5_wins_over_a_stale_file_as_it_does_there(home: Path, make: Make):
    saved_by("5.23.0", home)
    (home / IMAGE).write_text(json.dumps({"max_patches": 2, "image_processor_type": SLOW}))
    (home / VIDEO).write_text(json.dumps({"do_resize": False}))
    made, notes = make()
    assert made[IMAGE]["max_patches"] == 12
    assert made[VIDEO]["do_resize"] is True
    assert notes == ()


@pytest.mark.parametrize("empty", [{}, None, "x"])
def test_an_empty_section_is_none(empty: Any, home: Path, make: Make):
    saved_by("4.57.6", home, max_patches=3)
    edit_json(home / PROCESSOR, lambda values: values.update(image_processor=empty))
    assert make()[0][IMAGE]["max_patches"] == 3
    assert "image_processor" not in make()[0][PROCESSOR]


def test_what_is_left_out_stays_out(home: Path, make: Make):
    """Both versions have the same defaults."""
    (home / IMAGE).write_text(json.dumps({"size": {"height": 56, "width": 56}}))
    made, notes = make()
    assert made[IMAGE] == {
        "image_processor_type": FAST,
        "processor_class": "InternVLProcessor",
        "size": {"height": 56, "width": 56},
    }
    assert made[VIDEO] == {
        "do_sample_frames": False,
        "processor_class": "InternVLProcessor",
        "size": {"height": 56, "width": 56},
        "video_processor_type": "InternVLVideoProcessor",
    }
    assert made[PROCESSOR] == {"image_seq_length": 4, "processor_class": "InternVLProcessor"}
    assert notes == ()


def test_videos_without_a_file_become_the_same_pixels_as_images(home: Path, make: Make):
    saved_by("4.57.6", home, **ODD)
    (home / VIDEO).unlink()
    made, _ = make()
    pixels = {name: value for name, value in ODD.items() if name != "max_patches"}
    assert made[VIDEO].items() >= {**pixels, "do_sample_frames": False, "size": {"height": 56, "width": 56}}.items()
    assert "max_patches" not in made[VIDEO]


def test_where_there_is_none_one_is_made_from_config_json_with_a_note(home: Path, make: Make):
    texts, notes = repaired_processor(describe(read_config(home)), 4, None)
    assert texts == {name: as_text(values) for name, values in hf_processor_files(56, 4, Tiling(1, 12)).items()}
    [note] = notes
    assert "into 1 to 12 of 56 pixels, and a thumbnail" in note
    assert "correct min_patches and max_patches in preprocessor_config.json" in note
    assert make(16)[0][IMAGE]["size"] == {"height": 112, "width": 112}
    assert make(16)[0][PROCESSOR]["image_seq_length"] == 16


def test_a_tiling_that_is_known_needs_no_note(make: Make):
    made, notes = make(known=Tiling(2, 6))
    assert (made[IMAGE]["min_patches"], made[IMAGE]["max_patches"], notes) == (2, 6, ())


def test_a_tiling_that_is_known_does_not_overrule_the_one_that_is_stated(home: Path, make: Make):
    saved_by("5.23.0", home)
    assert make(known=Tiling(2, 6))[0][IMAGE]["max_patches"] == 12


def test_tokens_that_no_square_becomes_are_refused(make: Make):
    with pytest.raises(ConfigError, match="image_seq_length 5, which no square tile of its patches has"):
        make(5)


# Classes.


@pytest.mark.parametrize("alien", [CLIP, {**CLIP, "image_processor_type": None}, {"image_processor_type": "SiglipX"}])
def test_an_image_processor_that_is_none_of_internvls_is_made_anew(alien: dict[str, Any], home: Path, make: Make):
    """As where someone copied the custom release's file."""
    (home / IMAGE).write_text(json.dumps(alien))
    made, notes = make()
    assert made == hf_processor_files(56, 4, Tiling(1, 12))
    assert len(notes) == 2
    kind = alien.get("image_processor_type") or alien["feature_extractor_type"]
    assert notes[0].startswith(f"{IMAGE} is for the class {kind!r}, which InternVL's processor cannot use")


@pytest.mark.parametrize("alien", ["Qwen2VLVideoProcessor", ["x"]])
def test_a_video_processor_that_is_not_internvls_is_made_anew(alien: Any, home: Path, make: Make):
    saved_by("5.23.0", home)
    edit_json(home / PROCESSOR, lambda values: values["video_processor"].update(video_processor_type=alien, fps=3))
    made, [note] = make()
    assert made[VIDEO] == hf_processor_files(56, 4, Tiling(1, 12))[VIDEO]
    assert f"{PROCESSOR} is for the class {alien!r}" in note
    assert "video_preprocessor_config.json is made anew" in note


@pytest.mark.parametrize(
    ("version", "name", "noted"),
    [
        ("4.57.6", FAST, False),
        ("4.57.6", SLOW, True),
        ("4.57.6", None, False),
        ("5.23.0", SLOW, False),
        ("5.23.0", f"{SLOW}Pil", True),
    ],
)
def test_images_are_cut_by_the_class_that_both_versions_know(
    version: str, name: str | None, noted: bool, home: Path, make: Make
):
    saved_by(version, home, image_processor_type=name)
    made, notes = make()
    assert made[IMAGE]["image_processor_type"] == FAST
    assert [f"is for {name}, which cuts images with PIL" in note for note in notes] == [True] * noted


def test_modules_that_are_left_behind_are_not_named(home: Path, make: Make):
    saved_by("4.57.6", home, auto_map={"AutoImageProcessor": "x.X"})
    edit_json(home / PROCESSOR, lambda values: values.update(auto_map={"AutoProcessor": "x.X"}))
    assert not [name for name, values in make()[0].items() if "auto_map" in values]


# Counts.


@pytest.mark.parametrize(
    ("size", "stated", "note"),
    [
        ({"height": 56, "width": 56}, 4, None),
        (56, 4, None),
        ({"height": 112, "width": 56}, 4, None),
        ({"shortest_edge": 56}, 4, None),
        ({"height": 56, "width": 56}, 16, "says 16, and the image processor's tiles of 56 pixels become 4."),
        ({"height": 112, "width": 112}, 4, "says 4, and the image processor's tiles of 112 pixels become 16."),
        ({"height": 112, "width": 112}, 16, "says 16, and the image processor's tiles of 112 pixels become 16."),
        ({"height": 3, "width": 3}, 4, "says 4, and the image processor's tiles of 3 pixels become 0."),
        (..., 4, "says 4, and the image processor's tiles of 384 pixels become 182."),
        ({"shortest_edge": 56}, 16, "says 16. Each is kept"),
    ],
)
def test_counts_that_disagree_are_kept_and_noted(size: Any, stated: int, note: str | None, home: Path, make: Make):
    saved_by("4.57.6", home)
    image = changed(json.loads((home / IMAGE).read_text()), None, size=size)
    (home / IMAGE).write_text(json.dumps(image))
    edit_json(home / PROCESSOR, lambda values: values.update(image_seq_length=stated))
    made, notes = make()
    assert made[PROCESSOR]["image_seq_length"] == stated
    assert made[IMAGE].get("size", ...) == size
    assert [f"a tile becomes 4 tokens, {PROCESSOR} {note}" in found for found in notes] == [True] * bool(note)


@pytest.mark.parametrize("odd", [0, -1, None, "4", True, 4.0, [4]])
def test_a_count_that_is_none_is_refused(odd: Any, home: Path, make: Make):
    (home / PROCESSOR).write_text(json.dumps({"image_seq_length": odd}))
    with pytest.raises(CompanionFileError, match=r"processor_config\.json has image_seq_length .*config\.json says 4"):
        make()


@pytest.mark.parametrize("version", ["4.57.6", "5.23.0"])
def test_a_tiling_that_is_nonsense_is_refused(version: str, home: Path, make: Make):
    saved_by(version, home, max_patches=0)
    with pytest.raises(CompanionFileError, match="by which no image can be cut"):
        make()


@pytest.mark.parametrize("name", [PROCESSOR, IMAGE, VIDEO])
@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_malformed_file_is_refused_by_name(name: str, text: str, home: Path, make: Make):
    (home / name).write_text(text)
    with pytest.raises(CompanionFileError, match=f"{name} cannot be used"):
        make()
