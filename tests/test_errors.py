"""What messages quote stays short, and errors of the system name their file."""

import os
import pickle
from pathlib import Path

import pytest

from internvl_bridge.errors import (
    BridgeError,
    OutputError,
    first_few,
    named,
    shown,
)


@pytest.mark.parametrize(
    ("keys", "said"),
    [([], ""), (["a"], "a"), (["c", "b", "a"], "c, b, a"), (["a", "b", "c", "d"], "a, b, c and 1 more")],
)
def test_keys_are_listed_as_a_reader_can_take_them(keys: list[str], said: str) -> None:
    assert first_few(keys) == said


def test_hostile_values_do_not_make_messages_long():
    assert len(shown("x" * 10**6)) == 80
    assert len(str(BridgeError("k" * 10**6, "Do this."))) < 2100


def test_an_error_of_another_process_comes_back_whole():
    error = OutputError("It cannot be made.", "Choose another output.")
    error.add_note("Nothing is left.")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 (ours)
    assert (type(back), str(back), back.remedy) == (OutputError, str(error), error.remedy)
    assert back.__notes__ == ["Nothing is left."]


def test_an_error_of_an_open_file_gets_its_name(tmp_path: Path):
    with pytest.raises(OSError, match="Bad file") as error, named(tmp_path / "file"):
        os.fsync(10**6)

    assert error.value.filename == str(tmp_path / "file")


def test_an_error_that_names_its_file_keeps_the_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as error, named(tmp_path / "other"):
        (tmp_path / "file").open()

    assert error.value.filename == str(tmp_path / "file")
