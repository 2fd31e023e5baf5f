"""Whatever is given in the place of a directory, the message says what to type instead."""

import os
from pathlib import Path

import pytest

from internvl_bridge.metadata.not_a_directory import not_a_directory


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "InternVL3-8B").mkdir(parents=True)
    (tmp_path / "models" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("given", "reason", "remedy"),
    [
        (
            "OpenGVLab/InternVL3-8B",
            "does not exist here.",
            "hf://OpenGVLab/InternVL3-8B",
        ),
        (
            "https://huggingface.co/OpenGVLab/InternVL3-8B/tree/main",
            "is a URL",
            "hf://OpenGVLab/InternVL3-8B",
        ),
        ("s3://bucket/model", "is a URL", "Download the checkpoint, and give its directory."),
        ("~/model", "starts with ~", "Type /home/me/model instead."),
        ("~you/model", "starts with ~", "Type $HOME/... instead."),
        ("models/model.safetensors", "is a file, not the directory", "Give its directory: {here}/models"),
        ("models/InternVL3_8B", "does not exist.", "Is it {here}/models/InternVL3-8B?"),
        ("model/InternVL3-8B/", "does not exist here.", "hf://model/InternVL3-8B"),
        ("{here}/model/InternVL3-8B", "does not exist.", "Is it {here}/models?"),
        (
            "models/checkpoint-500/last",
            "does not exist.",
            "Check the name: {here}/models exists, and does not have checkpoint-500.",
        ),
    ],
)
def test_the_message_says_what_to_type(given: str, reason: str, remedy: str, tmp_path: Path) -> None:
    path = Path(given.format(here=tmp_path))
    refusal = not_a_directory(path)

    assert refusal.reason.startswith(f"{given.format(here=tmp_path).rstrip('/')} ")
    assert reason in refusal.reason
    assert remedy.format(here=tmp_path) in refusal.remedy


def test_a_place_that_may_not_be_listed_is_no_other_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "scandir", forbidden)

    assert not_a_directory(tmp_path / "InternVL3_8B").remedy.startswith(f"Check the name: {tmp_path} exists")


def test_an_output_that_a_killed_replacement_left_away_can_be_brought_back(tmp_path: Path) -> None:
    replaced = tmp_path / "out put.partial" / "replaced"
    replaced.mkdir(parents=True)
    refusal = not_a_directory(tmp_path / "out put")
    assert str(replaced) in refusal.reason
    assert refusal.remedy.endswith(f"mv '{replaced}' '{tmp_path}/out put'")
