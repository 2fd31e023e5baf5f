"""A conversion of local files runs no pickle, no code of the checkpoint and no program, and needs no network.

Seen by an audit hook, which Python tells of all of it; that the hook sees each kind is tested too.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import watch
from hostile.attacks import CONFIG, MARKER, SHARDS, WEIGHTS, write_bomb, write_evil_code, write_zipped_bomb
from hostile.jail import environment
from support import copy_custom

import internvl_bridge

NEVER = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "pickle.find_class", "sys.addaudithook")
NEVER += ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.")
CODE = ("exec", "compile", "import", "ctypes.dlopen")
CHANGES = (
    "write",
    "nameless",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
)
CHANGES += ("os.chmod", "os.chown")


def watched(*calls):
    """What a process does that makes the ``calls``, each ``(function, arguments, options)``."""
    script = Path(watch.__file__)
    result = subprocess.run(
        [sys.executable, "-P", script, json.dumps(calls, default=str)],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
        env=environment(),
        cwd="/",
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def violations(seen, foreign: list[Path], outputs: list[Path]) -> list[list]:
    """The events that must not be: code from the directories ``foreign``, changes anywhere but in ``outputs``."""
    homes = [place for output in outputs for place in (output, output.with_name(f"{output.name}.partial"))]

    def is_in(path: str, directories: list[Path]) -> bool:
        full = Path(os.path.realpath(path))
        return any(full == home or home in full.parents for home in directories)

    def is_trial(path: str) -> bool:
        """Whether it is a name beside an output that a rename is tried with."""
        return any(path.startswith(f"{output.with_name(f'.{output.name}.')}") for output in outputs)

    def is_wrong(event: str, words: list[str]) -> bool:
        if event.startswith(NEVER):
            return True
        if event in CODE:
            return any(is_in(word, foreign) for word in words if "/" in word)
        if event in {"os.mkdir", "nameless"} and any(Path(words[0]) in output.parents for output in outputs):
            return False  # an output's parents are made too, and may be tried with a file that nobody ever sees
        if event == "os.truncate" and words[0].isdigit():
            return False  # of a descriptor: where it was opened has been seen
        changed = words[: 2 if event in {"os.rename", "os.link", "os.symlink"} else 1]
        return event in CHANGES and not all(is_in(word, homes) or is_trial(word) for word in changed)

    return [told for told in seen["events"] if is_wrong(*told)]


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A custom checkpoint and an HF one, both full of code that would leave a marker."""
    home = tmp_path_factory.mktemp("evil")
    copy_custom("qwen2-300m", home / "custom")
    internvl_bridge.to_hf(home / "custom", home / "hf")
    for name in ("custom", "hf"):
        write_evil_code(home / name)
        write_bomb(home / name / "training_args.bin")
        write_zipped_bomb(home / name / "pytorch_model.bin")
        (home / name / "evil.so").write_bytes(b"\x7fELF")
    return home


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_conversions_run_nothing_and_write_nowhere_else(evil, tmp_path):
    custom, hf = evil / "custom", evil / "hf"
    names = ("hf", "back", "referred", "repaired", "sharded", "plain")
    outputs = [tmp_path / name for name in names]
    before = [files(custom), files(hf)]
    seen = watched(
        ("to_hf", [custom, outputs[0]], {}),
        ("to_custom", [hf, outputs[1]], {}),
        ("to_custom", [hf, outputs[2]], {"reference": str(custom), "tokenizer": str(custom)}),
        ("repair", [hf, outputs[3]], {}),
        ("to_hf", [custom, outputs[4]], {"max_shard_size": 200_000, "order": "name"}),
        ("to_hf", [custom, outputs[5]], {"verify": False}),
        ("verify", [custom, hf], {}),
        ("inspect", [custom], {}),
        ("inspect", [hf], {}),
    )
    assert seen["results"] == ["ConversionReport"] * 6 + ["Comparison", "Inspection", "Inspection"]
    assert violations(seen, [custom, hf, *outputs], outputs) == []
    assert not {"torch", "transformers", "numpy", "pickle", "_pickle", "safetensors"} & set(seen["modules"])
    assert not (evil / MARKER).exists()
    assert sorted(path.name for path in evil.iterdir()) == ["custom", "hf"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert [files(custom), files(hf)] == before
    written = {word for event, (word, *_) in seen["events"] if event == "write"}
    for output, name in zip(outputs, [WEIGHTS, WEIGHTS, WEIGHTS, WEIGHTS, SHARDS[0], WEIGHTS], strict=True):
        assert (output / name).exists()
        assert any(word.startswith(f"{output}.partial/") and word.endswith(CONFIG) for word in written)


def test_a_pickle_that_is_read_runs_nothing(evil, tmp_path):
    """torch is imported then, and unpickles with its own reader; not even the functions of the pickle are looked up."""
    directory = tmp_path / "checkpoint"
    shutil.copytree(evil / "custom", directory)
    (directory / WEIGHTS).unlink()
    script = (
        "import sys, internvl_bridge\n"
        "names = []\n"
        "sys.addaudithook(lambda event, arguments: names.append(event) if event in "
        "{'os.system', 'subprocess.Popen', 'pickle.find_class'} and 'posix' in repr(arguments) else None)\n"
        f"try: internvl_bridge.to_hf({str(directory)!r}, {str(tmp_path / 'output')!r})\n"
        "except internvl_bridge.BridgeError as error: print(error)\n"
        "print(names)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
        env=environment(),
        cwd="/",
    )
    assert "pytorch_model.bin holds more than tensors" in result.stdout, result
    assert result.stdout.endswith("[]\n")
    assert not (evil / MARKER).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize("control", watch.CONTROLS)
def test_the_hook_sees(control, evil, tmp_path):
    directory = tmp_path / "checkpoint"
    shutil.copytree(evil / "custom", directory)
    seen = watched((control, [directory], {}))
    assert violations(seen, [directory], [tmp_path / "output"]), seen["events"]


def test_the_hook_sees_a_module_that_unpickles(tmp_path):
    assert "pickle" in watched(("pickle", [tmp_path], {}))["modules"]


def test_what_is_allowed_is_no_violation(tmp_path):
    """Writing into the output is, writing beside it is not."""
    output = tmp_path / "output"
    events = [["write", [str(output / "x")]], ["os.mkdir", [f"{output}.partial", "511"]]]
    assert violations({"events": events}, [], [output]) == []
    beside = [["write", [f"{output}x"]], ["os.rename", [f"{output}.partial", str(tmp_path / "o")]]]
    assert violations({"events": beside}, [], [output]) == beside
