"""Whatever a stranger puts into a checkpoint directory is refused by name, promptly, and changes nothing."""

import ctypes
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.attacks import (
    CONFIG,
    FIRST,
    HARMLESS,
    HOSTILE_TEXT,
    INDEX,
    LFS,
    ODD_FILES,
    REFUSED,
    SIDECAR,
    WEIGHTS,
    Attack,
    add_tensor,
    content,
    first_tensor,
    linked,
    setting,
    write_evil_code,
)
from hostile.jail import MEMORY, Jail, environment
from support import copy_custom, shard
from thinning import one_in

import internvl_bridge

LIBC = ctypes.CDLL(None)


@pytest.fixture(scope="module")
def jail():
    with Jail() as opened:
        yield opened


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A valid directory of every kind that is attacked."""
    home = tmp_path_factory.mktemp("bases")
    for name, model in (("custom", "qwen2-300m"), ("sharded", "qwen2-300m"), ("moe", "qwen3moe-6b")):
        copy_custom(model, home / name)
    shard(home / "sharded", lambda key: int(key.startswith("vision_model.")))
    internvl_bridge.to_hf(home / "custom", home / "hf")
    return home


def snapshot(directory: Path) -> dict[str, tuple]:
    """Every name below ``directory``, with the bytes of files (their first: some are sparse) and what stat says."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        told: bytes | str = b""
        if stat.S_ISLNK(status.st_mode):
            told = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                told = file.read(1 << 21)
        found[str(path.relative_to(directory))] = (
            told,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_ino,
        )
    return found


def arguments_of(function: str, attack: Attack, directory: Path, output: Path, pristine: Path) -> list[Path]:
    """Those by which ``function`` meets ``directory``."""
    match function:
        case "inspect":
            return [directory]
        case "verify":  # one side or the other, as it falls
            return [directory, pristine] if len(attack.name) % 2 else [pristine, directory]
        case _:
            return [directory, output]


def check_refusal(attack: Attack, jail: Jail, bases: Path, tmp_path: Path):
    directory = tmp_path / "checkpoint"
    shutil.copytree(bases / attack.base, directory)
    attack.spoil(directory)
    before = snapshot(tmp_path)
    assert attack.functions
    for function in attack.functions:
        arguments = arguments_of(function, attack, directory, tmp_path / "output", bases / attack.base)
        result = jail.call(function, *arguments, memory=attack.memory or MEMORY)
        refusal = (result.get("returned") or {}).get("refusal")  # inspect says why the rest would refuse
        if refusal is None:
            assert attack.error in result.get("raised", []), f"{function}: {result}"
        message = refusal or result["message"]
        for word in attack.words:
            assert word in message, message[:3000]
        assert len(message) < 2600
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("attack", one_in(5, REFUSED), ids=lambda attack: attack.name)
def test_an_attack_is_refused(attack, jail, bases, tmp_path):
    check_refusal(attack, jail, bases, tmp_path)


def weights(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name.startswith("model")}


@pytest.mark.parametrize(("base", "spoil"), [attack[1:] for attack in HARMLESS], ids=[attack[0] for attack in HARMLESS])
def test_what_is_not_part_of_a_checkpoint_does_no_harm(base, spoil, jail, bases, tmp_path):
    directory = tmp_path / "checkpoint"
    shutil.copytree(bases / base, directory)
    assert jail.call("to_hf", directory, tmp_path / "plain").get("returned")
    spoil(directory)
    before = snapshot(tmp_path)
    assert jail.call("inspect", directory)["returned"]["refusal"] is None
    assert jail.call("verify", directory, bases / base)["returned"]["identical"] is True
    assert snapshot(tmp_path) == before
    assert jail.call("to_hf", directory, tmp_path / "output")["returned"]
    after = snapshot(tmp_path)
    assert {name: found for name, found in after.items() if not name.startswith("output")} == before
    assert {path.name for path in (tmp_path / "output").iterdir()} == {
        path.name for path in (tmp_path / "plain").iterdir()
    }
    assert weights(tmp_path / "output") == weights(tmp_path / "plain")
    assert (tmp_path / "output" / CONFIG).read_bytes() == (tmp_path / "plain" / CONFIG).read_bytes()


def test_a_valid_directory_of_each_kind_is_accepted(jail, bases, tmp_path):
    """What refuses the attacks is not that nothing works in the jail."""
    for base, function in (("custom", "to_hf"), ("sharded", "to_hf"), ("moe", "to_hf"), ("hf", "to_custom")):
        assert jail.call(function, bases / base, tmp_path / base).get("returned"), base
        assert jail.call("inspect", bases / base)["returned"]["refusal"] is None
    assert jail.call("repair", bases / "hf", tmp_path / "repaired").get("returned")
    assert jail.call("verify", bases / "custom", bases / "hf")["returned"]["identical"] is True


def test_the_jail_ends_what_takes_too_much(jail, tmp_path):
    """Or nothing would be proved by it."""
    os.mkfifo(tmp_path / "fifo")
    assert jail.call("wait", tmp_path / "fifo", seconds=1)["died"] == signal.SIGALRM
    assert jail.call("swell", tmp_path, memory=200 << 20)["raised"][0] == "MemoryError"


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "tokenizer.json", "generation_config.json"])
def test_a_file_that_may_not_be_read_is_named(name, bases, tmp_path):
    directory = tmp_path / "checkpoint"
    shutil.copytree(bases / "custom", directory)
    (directory / name).chmod(0)
    result = command("to-hf", directory, tmp_path / "output")
    (directory / name).chmod(0o700)
    if result.returncode == 0:
        pytest.skip("this user may read everything")
    assert result.returncode == 2
    assert "Permission denied" in result.stderr
    assert "defect of internvl-bridge" not in result.stderr
    assert str(directory / name) in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


# Through the command line


_DROP_CAPABILITY, _OVERRIDE, _READ_SEARCH = 24, 1, 2  # of Linux's prctl


def restrict():
    """Take memory from the process that is about to start, and root's right to read what nobody may."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if sys.platform == "linux" and os.geteuid() == 0:
        for capability in (_OVERRIDE, _READ_SEARCH):
            LIBC.prctl(_DROP_CAPABILITY, capability, 0, 0, 0)


def command(*arguments):
    """The command line in a process of its own, with bounded memory and time."""
    return subprocess.run(
        [sys.executable, "-B", "-m", "internvl_bridge", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        errors="surrogateescape",
        timeout=60,
        preexec_fn=restrict,
        env=environment(),
        cwd="/",
    )


def is_harmless(text: str) -> bool:
    """Whether a terminal would only print it."""
    return all(character.isprintable() for line in text.split("\n") for character in line)


COMMANDS = [
    ("to-hf", "custom", add_tensor(HOSTILE_TEXT), ["neither checkpoint format"]),
    ("to-hf", "custom", first_tensor(dtype=HOSTILE_TEXT), [WEIGHTS, FIRST, "unknown dtype"]),
    ("to-hf", "sharded", setting(INDEX, "weight_map", {FIRST: f"../{HOSTILE_TEXT}"}), [INDEX, "it places tensors in"]),
    ("to-hf", "custom", ODD_FILES["a FIFO"](WEIGHTS), ["holds no model.safetensors"]),
    ("to-hf", "custom", linked(CONFIG, "/dev/zero"), [CONFIG, "is not a file"]),
    ("to-hf", "custom", setting(CONFIG, "model_type", HOSTILE_TEXT), [CONFIG, "not an InternVL model"]),
    ("to-custom", "hf", setting(SIDECAR, "family", HOSTILE_TEXT), [SIDECAR, "unknown family"]),
    ("repair", "hf", content(WEIGHTS, LFS), [WEIGHTS, "Git LFS pointer"]),
    ("inspect", "hf", content(CONFIG, b'{"a":' * 100_000), [CONFIG, "nested too deeply"]),
]


@pytest.mark.parametrize(("name", "base", "spoil", "words"), COMMANDS)
def test_the_command_line_refuses_in_one_printable_paragraph(name, base, spoil, words, bases, tmp_path):
    directory = tmp_path / "checkpoint"
    shutil.copytree(bases / base, directory)
    spoil(directory)
    before = snapshot(tmp_path)
    result = command(name, directory, *([] if name == "inspect" else [tmp_path / "output"]))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(".\n") or result.stderr.endswith("pull.\n")
    assert "Traceback" not in result.stderr
    assert "defect of internvl-bridge" not in result.stderr
    assert is_harmless(result.stderr)
    for word in words:
        assert word in result.stderr
    assert snapshot(tmp_path) == before


def test_reports_about_hostile_names_are_printable(bases, tmp_path):
    directory = tmp_path / "checkpoint"
    shutil.copytree(bases / "custom", directory)
    next(spoil for name, _, spoil in HARMLESS if name == "names of files with escapes")(directory)
    for number, options in enumerate([["--verbose"], ["--json"], ["--dry-run"], ["--dry-run", "--json"]]):
        result = command("to-hf", directory, tmp_path / str(number), *options)
        assert result.returncode == 0, result.stderr
        assert "31m" in result.stdout
        assert is_harmless(result.stdout + result.stderr)


def test_the_command_line_imports_nothing_from_where_it_is_started(bases, tmp_path):
    """A user may well stand in the directory of the checkpoint."""
    directory = tmp_path / "checkpoint"
    shutil.copytree(bases / "custom", directory)
    write_evil_code(directory)
    before = snapshot(tmp_path)
    script = Path(sys.executable).parent / "internvl-bridge"
    assert script.exists()
    result = subprocess.run(
        [script, "inspect", "."],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        cwd=directory,
        env=environment(),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert snapshot(tmp_path) == before
