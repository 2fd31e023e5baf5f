"""The sidecar is written so that it can be read again."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import DATA

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.json_files import LARGEST_JSON
from internvl_bridge.metadata.sidecar import (
    SIDECAR_FILE,
    Manifest,
    WeightsRecord,
    is_as_written,
    read_manifest,
    repaired_contents,
    sidecar_contents,
    sidecar_text,
)

CUSTOM_TEXT = (DATA / "custom" / "qwen2-300m" / "config.json").read_text()


def test_what_could_not_be_read_again_is_not_written() -> None:
    room_for_checksums = 1 << 19
    texts = {"config.json": CUSTOM_TEXT, "tokenizer_config.json": "x" * (LARGEST_JSON - room_for_checksums)}
    with pytest.raises(
        CompanionFileError, match=r"tokenizer_config\.json is the largest, are too large for the sidecar"
    ) as error:
        sidecar_contents(Format.CUSTOM, "Qwen2", texts, {})
    assert "Remove what does not belong to the model from tokenizer_config.json" in error.value.remedy


@pytest.mark.parametrize(
    ("checksums", "expected"),
    [
        (None, None),
        ({"algorithm": "xxh3", "files": {"a.json": "00"}}, Manifest("xxh3", {"a.json": "00"})),
        ({"algorithm": "xxh3", "files": {}}, Manifest("xxh3", {})),
        (
            {"algorithm": "x", "files": {}, "weights": {"a": {"size": 7, "header": "0", "tensors": {"b": "1"}}}},
            Manifest("x", {}, {"a": WeightsRecord(7, "0", {"b": "1"})}),
        ),
    ],
)
def test_checksums_are_read_if_there_are_any(checksums: Any, expected: Any, tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / SIDECAR_FILE).write_text(json.dumps({"checksums": checksums}))

    assert read_manifest(tmp_path) == expected


@pytest.mark.parametrize(
    "checksums",
    [
        *(7, [], {}, {"algorithm": "xxh3"}, {"algorithm": 3, "files": {}}, {"algorithm": "xxh3", "files": []}),
        *({"algorithm": "xxh3", "files": {name: "00"}} for name in ("", "..", "a/b", "/a", "a\0")),
        {"algorithm": "xxh3", "files": {"a.json": 0}},
    ],
)
def test_checksums_of_another_shape_are_refused(checksums: Any, tmp_path: Path) -> None:
    (tmp_path / SIDECAR_FILE).write_text(json.dumps({"checksums": checksums}))

    with pytest.raises(CompanionFileError, match="its checksums are not a map of file names to texts"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "weights",
    [7, [], {"a": 7}, {"a": {}}, {"a": {"size": "7", "header": "", "tensors": {}}}]
    + [{"a": {"size": 7, "header": "", "tensors": tensors}} for tensors in ([], {"b": 1})],
)
def test_checksums_of_weights_of_another_shape_are_refused(weights: Any, tmp_path: Path) -> None:
    stated = {"algorithm": "xxh3", "files": {}, "weights": weights}
    (tmp_path / SIDECAR_FILE).write_text(json.dumps({"checksums": stated}))

    with pytest.raises(CompanionFileError, match="its checksums of weights are not sizes and maps of keys to texts"):
        read_manifest(tmp_path)


def test_a_sidecar_that_was_changed_is_noticed(tmp_path: Path) -> None:
    path, own = tmp_path / SIDECAR_FILE, str.upper
    record = WeightsRecord(7, "0", {"b": "\u00e9"})
    path.write_text(sidecar_text({"family": "Qwen2"}, Manifest("x", {"a": "0"}, {"c": record}), own))
    assert is_as_written(tmp_path, own)
    assert read_manifest(tmp_path) == Manifest("x", {"a": "0"}, {"c": record})

    values = json.loads(path.read_text())
    path.write_text(json.dumps(values))  # in other words
    assert is_as_written(tmp_path, own)
    path.write_text(json.dumps({**values, "family": "Qwen3"}))
    assert not is_as_written(tmp_path, own)
    path.write_text("{}")
    assert is_as_written(tmp_path, own)


def test_the_room_for_checksums_grows_with_the_tensors() -> None:
    texts = {"config.json": CUSTOM_TEXT, "x": "x" * (LARGEST_JSON - (4 << 20))}
    sidecar_contents(Format.CUSTOM, "Qwen2", texts, {}, None, ["key"] * 1000)
    with pytest.raises(CompanionFileError, match="too large for the sidecar"):
        sidecar_contents(Format.CUSTOM, "Qwen2", texts, {}, None, ["key"] * 100_000)


def test_a_repair_hands_on_all_but_what_every_output_has(tmp_path: Path) -> None:
    stated = {"family": "Qwen2", "checksums": {}, "files": {"a.txt": "b"}, "conversion": {}, "checksum": "00"}
    (tmp_path / SIDECAR_FILE).write_text(json.dumps(stated))

    assert repaired_contents(tmp_path) == {"family": "Qwen2", "files": {"a.txt": "b"}}
