"""What a conversion has finished, so that the same command can go on after it was stopped."""

import errno
import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from internvl_bridge.errors import OutputError, named, shown

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_BEGINNING = b'{"program": '
_LONGEST_VALUE = 200
_TELLING = 3
"""Fields by which a journal of this program is known, whatever its version."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a conversion the same one: who converts, how, what, and into what.

    ``program`` is a version. ``options`` are those that change the output. ``source`` holds the stamp of every source
    file by name, as JSON values. ``plan`` is a checksum of all that will be written.
    """

    program: str
    options: Mapping[str, Any]
    source: Mapping[str, Any]
    plan: str

    def difference(self, then: Mapping[str, Any]) -> tuple[str, str] | None:
        """What an identity that was written down says differently, and what goes on with it; None if it is the same."""
        if then.get("program") != self.program:
            version = shown(then.get("program"))
            return (
                f"by internvl-bridge {version}, and this is {self.program}",
                f"Use version {version} to go on with it",
            )
        if name := _first_difference(self.options, then.get("options")):
            return _other_option(name, _of(then.get("options"), name), self.options.get(name))
        if name := _first_difference(self.source, then.get("source")):
            if name == "directory":
                place = shown(_of(then.get("source"), name))
                return f"from another directory, {place}", f"Give {place} as source to go on with it"
            return f"from another source: {name} was changed, added or removed since", "Bring it back to go on with it"
        if then.get("plan") != self.plan:
            what = "to write something else: config.json or another small file of the source was changed since"
            return what, "Bring it back to go on with it"
        return None


@dataclass(frozen=True, slots=True)
class Record:
    """What a journal says: the identity of the conversion, and the names of the files that are finished.

    ``length`` is that of its whole lines, in bytes: the last one may have been cut off.
    """

    identity: Mapping[str, Any]
    finished: Sequence[str]
    length: int


@dataclass(frozen=True, slots=True)
class Journal:
    """An open journal, and the names of the files that it calls finished.

    ``locked``: nobody else can open it; False where the file system has no locks.
    """

    path: Path
    finished: list[str]
    locked: bool

    def resumes(self, identity: Identity) -> bool:
        """Whether what is written down is the conversion of ``identity``; False if nothing is.

        Raises OutputError, with the difference, if it is another one.
        """
        found = read_journal(self.path)
        if found is None:
            return False
        check_same(self.path, identity, found)
        with named(self.path):
            os.truncate(self.path, found.length)  # lest the next line becomes a part of one that was cut off
        self.finished[:] = found.finished
        return True

    def begin(self, identity: Identity) -> None:
        """Forget what was written down, and begin a new conversion."""
        self.finished.clear()
        self._put(json.dumps(asdict(identity)).encode() + b"\n", mode="wb")

    def record(self, name: str) -> None:
        """Write down that the file ``name`` is complete and durable."""
        self._put(json.dumps({"finished": name}).encode() + b"\n")
        self.finished.append(name)

    def forget(self, name: str) -> None:
        """Call the file ``name`` finished no more; what is written down is disproved by the file itself."""
        self.finished.remove(name)

    def _put(self, data: bytes, mode: str = "ab") -> None:
        with named(self.path), self.path.open(mode, buffering=0) as file:
            while data:
                data = data[os.write(file.fileno(), data) :]
            os.fsync(file.fileno())


def read_journal(path: Path) -> Record | None:
    """What the journal ``path`` says; None if the program was killed before it had written anything down.

    Later lines that are cut off count for nothing. Raises OutputError if it is the journal of somebody else, and
    OSError if there is none.
    """
    data = path.read_bytes()
    first, *others = data.splitlines(keepends=True) or [b""]
    if not first.endswith(b"\n") and not others and (first.startswith(_BEGINNING) or _BEGINNING.startswith(first)):
        return None
    identity = _parsed(first)
    if len(identity.keys() & {field.name for field in fields(Identity)}) < _TELLING:
        raise OutputError(
            f"{path.parent}, where the output would be collected, exists and is not an unfinished output of this "
            f"program.",
            "Move it away, or choose another output.",
        )
    lines = map(_parsed, others)
    finished = [line["finished"] for line in lines if isinstance(line.get("finished"), str)]
    return Record(identity, finished, length=data.rfind(b"\n") + 1)


def check_same(path: Path, identity: Identity, found: Record) -> None:
    """Raise OutputError, with the difference, unless what the journal ``path`` says is of the same conversion."""
    difference = identity.difference(found.identity)
    if difference is not None:
        raise OutputError(
            f"{path.parent} is the unfinished output of a conversion that was begun {difference[0]}.",
            f"{difference[1]}, or add --restart (restart=True) to start over.",
        )


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open the journal ``path``, a new one if there is none.

    All others are kept out until the end of the ``with``. Raises OutputError if somebody else has it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        with named(path):
            locked = _lock(file, path)
        yield Journal(path, [], locked=locked)
    finally:
        os.close(file)


def _lock(file: int, path: Path) -> bool:
    """Whether the file system has locks; raises OutputError if another process has this one."""
    running = OutputError(f"Another conversion is writing to {path.parent}.", "Wait for it, or stop it.")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise running from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    try:
        is_still_there = os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        is_still_there = False
    if not is_still_there:  # the other one has just ended and removed it
        raise running
    return True


def _other_option(name: str, then: Any, now: Any) -> tuple[str, str]:
    """How an option differed, and what to type to go on, with its name on the command line."""
    if name == "format":
        return (
            f"in the {_typed(then)} format, and this is for the {now} format",
            "Use the command of then to go on with it",
        )
    flag = f"--{name[:_LONGEST_VALUE].replace('_', '-')}"
    before, this = (flag if value is None else f"{flag} {_typed(value)}" for value in (then, now))
    if then is None:
        return f"without {flag}, and this one has {this}", f"Leave out {flag} to go on with it"
    what = (
        f"with {before}, and this one is without {flag}" if now is None else f"with {before}, and this one has {this}"
    )
    return what, f"Give {before} to go on with it"


def _typed(value: Any) -> str:
    """``value`` as it is typed in a shell."""
    return shlex.quote(str(value)[:_LONGEST_VALUE])


def _parsed(line: bytes) -> dict[str, Any]:
    """A line of the journal; empty if it was cut off or is not one."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first_difference(now: Mapping[str, Any], then: object) -> str | None:
    if not isinstance(then, dict):
        return "record"
    same = json.loads(json.dumps(dict(now)))
    return next((name for name in sorted({*same, *then}) if same.get(name) != then.get(name)), None)


def _of(values: object, name: str) -> object:
    return values.get(name) if isinstance(values, dict) else None
