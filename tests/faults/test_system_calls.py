"""Whatever a system call answers, a conversion either ends bit for bit as it should or says which file is to blame.

And it leaves the source as it was and no half output, and the same call goes on where it was stopped.
"""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from errno import EDQUOT, EINVAL, EIO, ENOLCK, ENOSPC, ENOSYS, ENOTTY, EOPNOTSUPP, EPERM, ESTALE, EXDEV
from pathlib import Path
from unittest.mock import patch

import pytest
from faults.injecting import (
    CONVERSIONS,
    HALF,
    Fault,
    bytes_in,
    command_line,
    contents,
    converted,
    copying_ioctl,
    file_named,
    in_memory,
    injected,
    make_sources,
    names,
    never,
    new_directory,
    small_steps,
    state,
)
from thinning import rarely
from typer.testing import CliRunner

from internvl_bridge.cli.app import app
from internvl_bridge.errors import BridgeError, OutputError
from internvl_bridge.storage import local_files, replacing

UNSUPPORTED = (EINVAL, ENOSYS, EOPNOTSUPP)
BROKEN = (EIO, ESTALE)
FULL = (ENOSPC, EDQUOT)
EVERY_TIME = {
    "pwrite": (*BROKEN, *FULL, *UNSUPPORTED, EPERM),
    "preadv": (*BROKEN, *UNSUPPORTED, EPERM),
    "fsync": (*BROKEN, *FULL, EINVAL),
    "os.open": (*BROKEN, *FULL, EPERM, EOPNOTSUPP),
    "open": (*BROKEN, ENOSPC, EPERM),
    "write": (*BROKEN, *FULL),
    "mkdir": (EIO, *FULL, EPERM),
    "rename": (*BROKEN, *FULL, EXDEV, EPERM),
    "unlink": (*BROKEN, EPERM),
    "rmdir": (*BROKEN, EPERM),
    "statvfs": (*BROKEN, ENOSYS),
    "stat": (*BROKEN, EPERM),
    "lstat": (EIO, EPERM),
    "listdir": (*BROKEN, EPERM),
    "scandir": (EIO,),
    "posix_fadvise": (*UNSUPPORTED, EIO),
    "fcntl": (*UNSUPPORTED, EIO, EPERM),
    "ioctl": (*UNSUPPORTED, *BROKEN, *FULL, EXDEV, EPERM, ENOTTY),
    "flock": (*UNSUPPORTED, *BROKEN, EPERM, ENOLCK),
    "fallocate": (*UNSUPPORTED, *FULL, EIO, EPERM),
}
# Fast ways and cleaning up: without them the same is done, or has been done.
HARMLESS = {
    "unlink": (*BROKEN, EPERM),
    "rmdir": (*BROKEN, EPERM),
    "posix_fadvise": EVERY_TIME["posix_fadvise"],
    "fcntl": EVERY_TIME["fcntl"],
    "ioctl": (*UNSUPPORTED, EXDEV, EPERM, ENOTTY),
    "flock": (*UNSUPPORTED, ENOLCK),
    "fallocate": (*UNSUPPORTED, EPERM),
}
# What must never be taken for a missing fast way, wherever it happens.
FATAL = {
    "pwrite": (*BROKEN, *FULL, EPERM),
    "preadv": (*BROKEN, EPERM),
    "write": EVERY_TIME["write"],
    "rename": (*BROKEN, *FULL),
    "statvfs": EVERY_TIME["statvfs"],
    "fallocate": (*FULL, EIO),
}
CASES = [(call, error) for call, errors in EVERY_TIME.items() for error in errors]


@pytest.fixture(scope="module")
def sources():
    with small_steps(), in_memory() as directory:
        yield make_sources(directory)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory):
    with small_steps():
        yield make_sources(tmp_path_factory.mktemp("calls"))


@pytest.fixture(scope="module")
def counted(sources: Path) -> dict[tuple[str, str], int]:
    """How often each conversion makes each call."""
    found = {}
    for name in CONVERSIONS:
        output = new_directory(sources) / "output"
        with ExitStack() as stack:
            faults = [stack.enter_context(injected(never(call), sources)) for call in EVERY_TIME]
            converted(name, sources, output)
        found |= {(name, fault.call): fault.calls for fault in faults}
    return found


def has_direct_transfers(directory: Path) -> bool:
    """Whether the file system of ``directory`` can bypass the page cache."""
    file = os.open(directory / "probe", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        return False
    finally:
        os.close(file)
        (directory / "probe").unlink()
    return True


def survive(name: str, sources: Path, *faults: Fault, again: bool = True, **options) -> BaseException | None:
    """Convert while ``faults`` happen, check all that must hold then, and afterwards; what was raised, if anything."""
    run = new_directory(sources)
    source, expected = sources / CONVERSIONS[name], contents(sources / "expected" / name)
    before = state(source)
    raised: BaseException | None = None
    try:
        with ExitStack() as stack:
            for fault in faults:
                stack.enter_context(injected(fault, sources))
            converted(name, sources, run / "output", **options)
    except (OSError, BridgeError) as error:  # anything else is a defect
        raised = error
    assert all(fault.hits for fault in faults), "nothing happened"
    assert state(source) == before
    if raised is None:
        assert contents(run / "output") == expected
        left = names(run) != ["output"]
        options |= {"overwrite": True}
    else:
        assert str(sources) in file_named(raised)
        assert names(run) in ([], ["output.partial"])
        left = True
        if bytes_in(run):  # the beginnings of an output are no more than an empty directory, or journal
            notes = getattr(raised, "__notes__", ())
            assert any(f"are kept in {run}/output.partial" in note for note in notes)
    if left and again:
        converted(name, sources, run / "output", **options)
        assert contents(run / "output") == expected
        assert names(run) == ["output"]
        assert state(source) == before
    shutil.rmtree(run)
    return raised


@pytest.mark.parametrize(("call", "error"), CASES, ids=[f"{call}-{errno.errorcode[error]}" for call, error in CASES])
@pytest.mark.parametrize(
    "moment", [("to_hf", 0.0, False), ("to_custom", 0.5, True), ("repair", 1.0, False)], ids=lambda moment: moment[0]
)
def test_an_error(
    moment: tuple[str, float, bool], call: str, error: int, sources: Path, counted: dict[tuple[str, str], int]
):
    name, part, lasting = moment
    last = counted[name, call] - 1
    raised = survive(name, sources, Fault(call, error, at=round(part * last), lasting=lasting))
    if error in HARMLESS.get(call, ()):
        assert raised is None
    if error in FATAL.get(call, ()):
        assert isinstance(raised, OSError)
        assert raised.errno == error


@pytest.mark.parametrize("error", [*BROKEN, *FULL])
@pytest.mark.parametrize("call", ["pwrite", "preadv"])
def test_an_error_while_others_work(call: str, error: int, sources: Path, counted: dict[tuple[str, str], int]):
    middle = counted["to_hf", call] // 2
    raised = survive("to_hf", sources, Fault(call, error, at=middle), workers=3)
    assert isinstance(raised, OSError)


@pytest.mark.parametrize("error", [EIO, EINVAL, *map(rarely, (ESTALE, *FULL))])
def test_what_did_not_reach_the_disk_is_no_output(error: int, sources: Path, counted: dict[tuple[str, str], int]):
    # The last three are those of directories, which some file systems cannot sync.
    tolerated = 3 if error == EINVAL else 0
    # Those behind the first are of the source: what has still to be written of it need not be.
    ignored = range(1, 1 + len(list((sources / "custom").glob("*.safetensors"))))
    calls = counted["to_hf", "fsync"]
    for at in range(calls):
        raised = survive("to_hf", sources, Fault("fsync", error, at=at), again=at % 8 == 0)
        assert isinstance(raised, OSError) == (at < calls - tolerated and at not in ignored), at


# Less than was asked


@pytest.mark.parametrize("call", ["pwrite", "preadv", "write"])
@pytest.mark.parametrize("name", CONVERSIONS)
def test_half_of_every_transfer(name: str, call: str, sources: Path):
    assert survive(name, sources, Fault(call, HALF, lasting=True)) is None


@pytest.mark.parametrize("call", ["pwrite", "preadv", "write"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 1.0])
def test_half_of_one_transfer(part: float, call: str, sources: Path, counted: dict[tuple[str, str], int]):
    at = round(part * (counted["to_hf", call] - 1))
    assert survive("to_hf", sources, Fault(call, HALF, at=at)) is None


def test_half_of_what_the_journal_says_loses_nothing(sources: Path, counted: dict[tuple[str, str], int]):
    run = new_directory(sources)
    faults = (Fault("write", HALF, lasting=True), Fault("rename", EIO, at=1))
    with injected(faults[0], sources), injected(faults[1], sources), pytest.raises(OSError, match="Input/output"):
        converted("to_hf", sources, run / "output")
    assert faults[0].hits >= counted["to_hf", "write"]
    report = converted("to_hf", sources, run / "output")
    assert len(report.kept) == len([name for name in report.files if name.endswith(".safetensors")])
    assert contents(run / "output") == contents(sources / "expected" / "to_hf")


# Ways that a file system promises and then does not have


@pytest.mark.parametrize("error", UNSUPPORTED)
@pytest.mark.parametrize("at", [0, 3])
def test_a_file_system_that_takes_the_flag_and_refuses_the_transfer(at: int, error: int, on_disk: Path):
    if not has_direct_transfers(on_disk):
        pytest.skip("the file system of the temporary directory cannot bypass the page cache")
    for name in CONVERSIONS:
        assert survive(name, on_disk, Fault("pwrite", error, at=at, lasting=True, direct=True)) is None


@pytest.mark.parametrize("error", [None, *EVERY_TIME["ioctl"]])
@pytest.mark.parametrize("part", [0.3, 1.0])
def test_sharing_blocks_that_fails_on_the_way(part: float, error: int | None, sources: Path):
    # The trial beside the output is the first call, so that these faults happen to files that are being written.
    with patch.object(fcntl, "ioctl", copying_ioctl), patch.object(local_files, "_CLONE_STEP", 1 << 15):
        with injected(never("ioctl"), sources) as counting:
            report = converted("to_hf", sources, new_directory(sources) / "output")
        assert report.cloned > 500_000
        assert counting.calls > 10
        if error is not None:
            raised = survive("to_hf", sources, Fault("ioctl", error, at=round(part * (counting.calls - 1))))
            assert (raised is None) == (error in HARMLESS["ioctl"])
            assert raised is None or raised.errno == error


def test_a_file_system_without_locks_is_noted(sources: Path):
    with injected(Fault("flock", ENOLCK), sources):
        report = converted("to_hf", sources, new_directory(sources) / "output")
    assert any("no locks" in note for note in report.notes)


# Replacing an output


@pytest.mark.parametrize("error", [EIO, ENOSPC, EXDEV])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize("lasting", [False, True])
def test_an_output_that_cannot_be_replaced_is_not_lost(
    lasting: bool, at: int, error: int, sources: Path, monkeypatch: pytest.MonkeyPatch
):
    # The first two renames are trials. Then the old output goes, and the new one comes.
    monkeypatch.setattr(replacing, "exchange", lambda *_: False)
    run = new_directory(sources)
    converted("to_hf", sources, run / "output", max_shard_size=None)
    old = state(run / "output")
    with injected(Fault("rename", error, at, lasting), sources), pytest.raises((OSError, OutputError)) as caught:
        converted("to_hf", sources, run / "output", overwrite=True)
    assert str(run) in file_named(caught.value)
    if at == 3 and lasting:  # it could not even be put back
        assert state(run / "output.partial" / "replaced") == old
        assert any("output.partial/replaced" in note for note in caught.value.__notes__)
    else:
        assert state(run / "output") == old
    converted("to_hf", sources, run / "output", overwrite=True)
    assert contents(run / "output") == contents(sources / "expected" / "to_hf")
    assert names(run) == ["output"]


# The command line


@pytest.mark.parametrize(
    ("call", "error", "part"),
    [
        ("pwrite", ENOSPC, 0.5),
        ("preadv", EIO, 0.5),
        ("fsync", EIO, 0.0),
        ("write", ENOSPC, 0.0),
        ("write", EDQUOT, 1.0),
        ("rename", EXDEV, 0.0),
        ("flock", ESTALE, 0.0),
        ("mkdir", EDQUOT, 1.0),
        ("fallocate", ENOSPC, 1.0),
    ],
)
def test_one_paragraph(call: str, error: int, part: float, sources: Path, counted: dict[tuple[str, str], int]):
    run = new_directory(sources)
    fault = Fault(call, error, at=round(part * (counted["to_hf", call] - 1)))
    with injected(fault, sources):
        result = CliRunner().invoke(app, command_line("to-hf", sources / "custom", run / "output"))
    assert fault.hits
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith(f"Error: {sources}")
    assert os.strerror(error) in result.stderr
    assert "Traceback" not in result.stderr
    assert not (run / "output").exists()


# The same from outside, by the kernel's hand

LAUNCHER = """
from internvl_bridge.storage import reading, block_alignment
reading.WINDOW, block_alignment._LONG = 1 << 14, 1 << 13
from internvl_bridge.__main__ import main
main()
"""
FIRST = "output.partial/files/model-00001-of-00005.safetensors"
SECOND = "output.partial/files/model-00002-of-00005.safetensors"
TOKENS = "output.partial/files/tokenizer.json"


def traced(on_disk: Path, run: Path, injection: str, *paths: str) -> subprocess.CompletedProcess[str]:
    """Run the command line under strace, with ``injection`` into the calls on ``paths`` in ``run`` (any without)."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    call = injection.partition(":")[0]
    only = [argument for path in paths for argument in ("-P", str(run / path))]
    trace = ["strace", "-f", "-qq", "-o", str(run / "trace"), "-e", f"trace={call}", "-e", f"inject={injection}", *only]
    arguments = command_line("to-hf", on_disk / "custom", run / "output")
    result = subprocess.run(
        [*trace, sys.executable, "-P", "-c", LAUNCHER, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    trace_file = run / "trace"
    said = trace_file.read_text() if trace_file.exists() else ""
    if "ptrace" in result.stderr and not said:
        pytest.skip(f"strace may not trace here: {result.stderr.strip()}")
    assert "(INJECTED)" in said
    trace_file.unlink()
    return result


@pytest.mark.parametrize(
    ("injection", "path", "error"),
    [
        ("pwrite64:error=EIO:when=7", SECOND, "Input/output error"),
        rarely(("pwrite64:error=ENOSPC:when=2", FIRST, "No space left on device")),
        rarely(("pwrite64:error=EDQUOT:when=3+", SECOND, "Disk quota exceeded")),
        rarely(("preadv,preadv2:error=EIO:when=3", SECOND, "Input/output error")),
        rarely(("fsync:error=EIO:when=1", SECOND, "Input/output error")),
        rarely(("fsync:error=EIO:when=1", TOKENS, "Input/output error")),
        pytest.param(
            "fsync:error=EIO:when=1", "output.partial/files", "Input/output error", marks=pytest.mark.exhaustive
        ),
        rarely(("pwrite64:error=ENOSPC:when=1", TOKENS, "No space left on device")),
        ("write:error=ENOSPC:when=2", "output.partial/journal", "No space left on device"),
        rarely(("fallocate:error=ENOSPC:when=2", None, "No space left on device")),
        ("openat:error=EMFILE:when=3", "output.partial/files", "Too many open files"),
    ],
)
def test_a_call_that_the_kernel_refuses(injection: str, path: str | None, error: str, on_disk: Path):
    run = new_directory(on_disk)
    before = state(on_disk / "custom")
    result = traced(on_disk, run, injection, *([path] if path else []))
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith(f"Error: {run / (path or '')}")
    assert f": {error}." in result.stderr
    assert names(run) in ([], ["output.partial"])
    converted("to_hf", on_disk, run / "output")
    assert contents(run / "output") == contents(on_disk / "expected" / "to_hf")
    assert names(run) == ["output"]
    assert state(on_disk / "custom") == before


@pytest.mark.parametrize(
    "injection",
    [
        "fallocate:error=EOPNOTSUPP",
        rarely("fadvise64:error=ENOSYS"),
        rarely("flock:error=ENOLCK"),
        rarely("pwrite64:error=EINTR:when=1"),
    ],
)
def test_a_call_that_can_be_done_without(injection: str, on_disk: Path):
    run = new_directory(on_disk)
    result = traced(on_disk, run, injection)
    assert result.returncode == 0, result.stderr
    assert contents(run / "output") == contents(on_disk / "expected" / "to_hf")
    assert names(run) == ["output"]


def test_a_disk_that_lies_is_found_out(on_disk: Path):
    # The call says that all was written, and nothing was.
    run = new_directory(on_disk)
    result = traced(on_disk, run, "pwrite64:retval=16384:when=4", SECOND)
    assert result.returncode == 1, result.stderr
    assert f"What was written to {run / SECOND} is not what was read" in result.stderr
    assert "The disk or the memory of this machine may be failing" in result.stderr
    assert "1 finished file(s) are kept" in result.stderr
    assert names(run) == ["output.partial"]
    report = converted("to_hf", on_disk, run / "output")
    assert report.kept == ("model-00001-of-00005.safetensors",)
    assert contents(run / "output") == contents(on_disk / "expected" / "to_hf")
