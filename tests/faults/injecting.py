"""Conversions whose system calls fail, or do less than was asked, or see the world change, at a chosen moment.

Imports no torch: it is also a program, which runs the command line with something happening at the n-th of some calls.
"""

import ctypes
import errno
import fcntl
import io
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from unittest.mock import patch

import internvl_bridge
from internvl_bridge.storage import block_alignment, reading

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import synthetic

HALF = 0
"""Instead of the number of an error: the call does half of what was asked, and says so."""

CALLS = {
    "pwrite": (os, "pwrite"),
    "pwrite of weights": (os, "pwrite"),
    "preadv": (os, "preadv"),
    "fsync": (os, "fsync"),
    "os.open": (os, "open"),
    "open": (io, "open"),  # what Path.open calls
    "write": (os, "write"),
    "mkdir": (os, "mkdir"),
    "rename": (os, "rename"),
    "unlink": (os, "unlink"),
    "rmdir": (os, "rmdir"),
    "statvfs": (os, "statvfs"),
    "stat": (os, "stat"),
    "lstat": (os, "lstat"),
    "listdir": (os, "listdir"),
    "scandir": (os, "scandir"),
    "posix_fadvise": (os, "posix_fadvise"),
    "fcntl": (fcntl, "fcntl"),
    "ioctl": (fcntl, "ioctl"),
    "flock": (fcntl, "flock"),
    "fallocate": (ctypes, "CDLL"),
}
CONVERSIONS = {"to_hf": "custom", "to_custom": "hf", "repair": "hf"}
"""The conversions, and the sources that :func:`make_sources` makes for them."""
SHARD = "250000"
"""Bytes: the tiny checkpoint, which has three files, becomes five."""
_MOST_CALLS = 20_000
_EXT4_SHUTDOWN = 0x8004587D


@dataclass
class Fault:
    """What a call does at its ``at``-th time (from 0), and ``lasting`` ever after: see :func:`injected`.

    ``error`` is the number of an error, or HALF, or a function that is called before the call, which then goes on.
    ``direct``: only calls on descriptors that bypass the page cache count. ``calls`` is how often the call was made,
    ``hits`` how often something happened.
    """

    call: str
    error: int | Callable[[], object]
    at: int = 0
    lasting: bool = False
    direct: bool = False
    hits: int = 0
    calls: int = 0
    lock: Lock = field(default_factory=Lock)

    def strikes(self) -> bool:
        with self.lock:
            number, self.calls = self.calls, self.calls + 1
            if number >= _MOST_CALLS:  # no OSError, which might be the reason
                raise RuntimeError(f"{self.call} is called again and again")
            struck = number == self.at or (self.lasting and number > self.at)
            self.hits += struck
            return struck


def never(call: str) -> Fault:
    """Only counts."""
    return Fault(call, errno.EIO, at=-1)


@contextmanager
def injected(fault: Fault, base: Path) -> Iterator[Fault]:
    """Let ``fault`` happen to calls on descriptors, and on paths below ``base`` (so that Python itself works on).

    An error is raised as the real call raises it: with the name of the file if it was given one, without if it was
    given a descriptor. Of fcntl only the setting of O_DIRECT is meant.
    """
    module, name = CALLS[fault.call]
    real = getattr(module, name)
    flags = fcntl.fcntl

    def call(*args, **kwargs):
        if not _concerns(fault, base, flags, args, kwargs) or not fault.strikes():
            return real(*args, **kwargs)
        if callable(fault.error):
            fault.error()
            return real(*args, **kwargs)
        if fault.error == HALF:
            return real(*_halved(args))
        if isinstance(args[0], int):
            raise OSError(fault.error, os.strerror(fault.error))
        raise OSError(fault.error, os.strerror(fault.error), os.fspath(args[0]))

    def library(*args, **kwargs):
        return _Library(real(*args, **kwargs), fault)

    with patch.object(module, name, library if fault.call == "fallocate" else call):
        yield fault


def _concerns(fault: Fault, base: Path, flags: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether a call is one of those that ``fault`` means; ``flags`` is fcntl as it was."""
    if fault.call == "fcntl":
        return args[1] == fcntl.F_SETFL and bool(args[2] & os.O_DIRECT)
    if fault.call == "pwrite of weights":
        return Path(f"/proc/self/fd/{args[0]}").readlink().suffix == ".safetensors"
    if args and isinstance(args[0], str | os.PathLike):
        return any(name.endswith("dir_fd") for name in kwargs) or os.fspath(args[0]).startswith(str(base))
    return bool(args) and (not fault.direct or bool(flags(args[0], fcntl.F_GETFL) & os.O_DIRECT))


class _Library:
    """The C library whose fallocate fails."""

    def __init__(self, real: ctypes.CDLL, fault: Fault):
        self._real, self._fault = real, fault

    def __getattr__(self, name: str):
        if name != "fallocate" or not self._fault.strikes():
            return getattr(self._real, name)

        def fallocate(*_) -> int:
            ctypes.set_errno(self._fault.error)
            return -1

        return fallocate


def _halved(args: tuple) -> tuple:
    """The arguments of pwrite, write or preadv, to move half as many bytes, at least one."""
    file, data, *offset = args
    if isinstance(data, list):
        return (file, [data[0][: -(-len(data[0]) // 2)]], *offset)
    return (file, data[: -(-len(data) // 2)], *offset)


def copying_ioctl(target: int, _request: int, argument: bytes) -> int:
    """What FICLONERANGE does where blocks can be shared, for file systems that cannot: the bytes are the same."""
    source, start, length, offset = struct.unpack("=qQQQ", argument)
    if start % 4096 or length % 4096 or offset % 4096:
        raise OSError(errno.EINVAL, "not whole blocks")
    if os.pwrite(target, os.pread(source, length, start), offset) != length:
        raise OSError(errno.EIO, "not all of it")
    return 0


@contextmanager
def small_steps() -> Iterator[None]:
    """Make a tiny checkpoint need many calls, and wait for no disk."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(reading, "WINDOW", 1 << 14))
        stack.enter_context(patch.object(block_alignment, "_LONG", 1 << 13))
        stack.enter_context(patch.object(os, "fsync", os.fstat))  # fails where fsync does for want of a file
        yield


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory on a file system in memory, where there is one: hundreds of conversions are no work for a disk."""
    memory = Path("/dev/shm")  # noqa: S108 (what is made in it has a name that nobody knows)
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def make_sources(base: Path) -> Path:
    """The tiny checkpoint in both formats and, below ``expected``, what each conversion makes of it."""
    synthetic.make(base / "custom", synthetic.PRESETS["tiny"])
    internvl_bridge.to_hf(base / "custom", base / "hf")
    for name in CONVERSIONS:
        converted(name, base, base / "expected" / name)
    return base


def converted(name: str, sources: Path, output: Path, **options):
    """Carry out the conversion ``name`` of what :func:`make_sources` has made."""
    options = {"max_shard_size": SHARD, "workers": 1, **options}
    return getattr(internvl_bridge, name)(sources / CONVERSIONS[name], output, **options)


def once(action: Callable[[], object], share: float) -> Callable[[str, int, int], Callable[[int, int], None]]:
    """A progress that calls ``action`` when so much of the output is made."""
    pending = [action]

    def begin(task: str, total: int, _files: int) -> Callable[[int, int], None]:
        passed = 0

        def report(done: int, _finished: int) -> None:
            nonlocal passed
            passed += done
            if task.startswith("Converting") and passed >= share * total and pending:
                pending.pop()()

        return report

    return begin


def contents(directory: Path) -> dict[str, bytes]:
    """Names and bytes of all files, but for the record in the sidecar; nothing but files is there."""
    from support import files_of  # imports torch, which a child need not

    return files_of(directory)


def state(directory: Path) -> dict[str, tuple]:
    """What must stay the same of a source: names, modes, owners, times of change, targets of links, and bytes."""
    return {str(path.relative_to(directory)): _state(path) for path in (directory, *directory.rglob("*"))}


def _state(path: Path) -> tuple:
    status = path.lstat()
    data = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return status.st_mode, status.st_uid, status.st_mtime_ns, data


def names(directory: Path) -> list[str]:
    """What is in ``directory``."""
    return sorted(path.name for path in directory.iterdir())


def bytes_in(directory: Path) -> int:
    """How many bytes the files below ``directory`` have."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def file_named(error: BaseException) -> str:
    """What ``error`` itself says about files, without what was noted on its way."""
    return f"{getattr(error, 'filename', None)} {error}"


def new_directory(base: Path, numbers: Iterator[int] = count()) -> Path:  # noqa: B008 (one count for all)
    """A directory below ``base`` that nothing has been in."""
    directory = base / f"run{next(numbers)}"
    directory.mkdir()
    return directory


def command_line(command: str, source: Path, output: Path, *options: str) -> list[str]:
    """The arguments for what :func:`converted` does."""
    return [
        command,
        str(source),
        str(output),
        "--accept",
        "small-shards",
        "--max-shard-size",
        SHARD,
        "--workers",
        "1",
        *options,
    ]


def happening(moment: tuple[str, int], action: str, path: Path, arguments: list[str], *, before: list[str] = []):  # noqa: B006
    """Run the command line in a process of its own, where ``action`` befalls ``path`` at the given call.

    ``moment`` is the name of a call and how many of it come before; ``before`` is put before the command.
    """
    program = [*before, sys.executable, "-P", "-W", "error", __file__, *map(str, moment), action, str(path)]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=120, check=False)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(4096))


def rewritten(path: Path) -> None:
    """Other numbers in the same places: the last half with every bit turned."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        data = file.read()
        file.seek(size // 2)
        file.write(bytes(255 - byte for byte in data))


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    rewritten(new)
    new.replace(path)


def relinked(path: Path) -> None:
    """The link leads to another file of the same length."""
    blob = path.parent / "another"
    blob.write_bytes(path.read_bytes())
    rewritten(blob)
    path.unlink()
    path.symlink_to(blob.name)


def deleted(path: Path) -> None:
    path.unlink()


def forbidden(path: Path) -> None:
    path.chmod(0)


def filled(path: Path) -> None:
    """Take all the room that there is."""
    with path.open("xb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def shut_down(path: Path) -> None:
    """The disk is gone: every further transfer to or from this ext4 fails."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(file, _EXT4_SHUTDOWN, struct.pack("I", 2))  # 2: write nothing more, not even the journal
    finally:
        os.close(file)


def unmounted(path: Path) -> None:
    subprocess.run(["umount", "--lazy", str(path)], check=True)  # noqa: S607


ACTIONS = (truncated, grown, rewritten, replaced, relinked, deleted, forbidden, filled, shut_down, unmounted)


def _main() -> None:
    from internvl_bridge.__main__ import main

    call, at, action, path, *arguments = sys.argv[1:]
    act = next(function for function in ACTIONS if function.__name__ == action)
    sys.argv[1:] = arguments
    with small_steps(), injected(Fault(call, lambda: act(Path(path)), int(at)), Path(path).parent):
        main()


if __name__ == "__main__":
    _main()
