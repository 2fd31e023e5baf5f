"""The sidecar is written so that it can be read again."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import DATA

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.json_files import LARGEST_JSON
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, read_checksums, repaired_contents, sidecar_contents

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
        ({"algorithm": "xxh3", "files": {"a.json": "00"}}, ("xxh3", {"a.json": "00"})),
        ({"algorithm": "xxh3", "files": {}}, ("xxh3", {})),
    ],
)
def test_checksums_are_read_if_there_are_any(checksums: Any, expected: Any, tmp_path: Path) -> None:
    assert read_checksums(tmp_path) is None
    (tmp_path / SIDECAR_FILE).write_text(json.dumps({"checksums": checksums}))

    assert read_checksums(tmp_path) == expected


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
        read_checksums(tmp_path)


def test_a_repair_hands_on_all_but_the_checksums(tmp_path: Path) -> None:
    (tmp_path / SIDECAR_FILE).write_text(json.dumps({"family": "Qwen2", "checksums": {}, "files": {"a.txt": "b"}}))

    assert repaired_contents(tmp_path) == {"family": "Qwen2", "files": {"a.txt": "b"}}
