"""What a conversion has finished, so that the same command can go on after it was stopped."""

import errno
import fcntl
import json
import os
import secrets
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from threading import Event
from typing import Any

from internvl_bridge.errors import InUseError, OutputError, named, shown
from internvl_bridge.storage.consumed_file import ConsumedFile, parsed_file
from internvl_bridge.storage.held_directory import HeldDirectory, is_at

JOURNAL = "journal"
_LARGEST = 1 << 26
"""Bytes: a journal of this program has far less."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_BEGINNING = b'{"program": '
_LONGEST_VALUE = 200
_TELLING = 3
"""Fields by which a journal of this program is known, whatever its version."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a conversion the same one: who converts, how, what, and into what.

    ``program`` is a version. ``options`` are those that change the output. ``source`` holds the stamp of every source
    file by name, as JSON values. ``plan`` is a checksum of all that will be written. ``machine`` is what computed
    results depend on: on another one the same conversion begins anew.
    """

    program: str
    options: Mapping[str, Any]
    source: Mapping[str, Any]
    plan: str
    machine: Mapping[str, str] = field(default_factory=dict)

    def is_of_machine(self, then: Mapping[str, Any]) -> bool:
        """Whether an identity that was written down is of a machine that computes the same."""
        return bool(then.get("machine", {}) == self.machine)

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
            touch = _touch(name, self.source.get(name), _of(then.get("source"), name))
            return (
                f"from another source: {name} was changed, added or removed since",
                f"Bring it back{touch} to go on with it",
            )
        if then.get("plan") != self.plan:
            what = "to write something else: config.json or another small file of the source was changed since"
            return what, "Bring it back to go on with it"
        return None


@dataclass(frozen=True, slots=True)
class Swap:
    """The inodes of an old output and of the new one that takes its place: each is known by them wherever it is.

    No devices: both lie in one file system, and its number may be another one after the machine was started again.
    """

    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Record:
    """What a journal says: the identity of the conversion, and the names of the files that are finished.

    ``run`` names the run that was the last to write to it, None if none has. ``swap`` is what was last to change
    places. ``length`` is that of its whole lines, in bytes: the last one may have been cut off. ``consumed`` are files
    of the source that were deleted, or were about to be, by name; ``remembered`` is what only that
    run knew.
    """

    identity: Mapping[str, Any]
    finished: Sequence[str]
    run: str | None
    swap: Swap | None
    length: int
    consumed: Mapping[str, ConsumedFile] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    remembered: Mapping[str, Any] = field(default_factory=dict)
    is_publishing: bool = False

    @property
    def source_directory(self) -> object:
        """Where the source of the conversion is."""
        return _of(self.identity.get("source"), "directory")


@dataclass(frozen=True, slots=True)
class Journal:
    """An open journal, and the names of the files that it calls finished.

    ``file`` is its descriptor: what is written goes there, whatever becomes of ``path``. ``locked``: nobody else can
    open it, but to share it; False where the file system has no locks. ``run`` is a random name of this run, which is
    written down when it has ``begun``. ``consumed`` are the files of the source that were deleted. ``checksums`` are
    those of finished files that are known.
    """

    path: Path
    finished: list[str]
    locked: bool
    file: int
    run: str
    begun: Event
    consumed: dict[str, ConsumedFile] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)

    def resumes(self, identity: Identity) -> bool:
        """Whether what is written down is the conversion of ``identity``; False if nothing is, or on another machine.

        Raises OutputError, with the difference, if it is another one.
        """
        found = self.read()
        if found is None:
            return False
        check_same(self.path, identity, found)
        if not identity.is_of_machine(found.identity):
            return False
        with named(self.path):
            os.ftruncate(self.file, found.length)  # lest the next line becomes a part of one that was cut off
        self.finished[:] = found.finished
        self.consumed.update(found.consumed)
        self.checksums.update(found.checksums)
        self._put({"run": self.run})
        self.begun.set()
        return True

    def begin(self, identity: Identity) -> None:
        """Forget what was written down, and begin a new conversion."""
        self.finished.clear()
        with named(self.path):
            os.ftruncate(self.file, 0)
        self._put({**asdict(identity), "run": self.run})
        self.begun.set()

    def record(self, *names: str, checksum: str | None = None) -> None:
        """Write down that the files ``names`` are complete and durable, and the ``checksum`` of a single one."""
        known = {} if checksum is None else {"checksum": checksum}
        self._put(*({"finished": name, **known} for name in names))
        self.finished.extend(names)
        self.checksums.update(dict.fromkeys(names, checksum) if checksum is not None else {})

    def remember(self, values: Mapping[str, Any]) -> None:
        """Write down ``values`` that only this run knows, for the one that goes on."""
        self._put({"remembered": values})

    def consume(self, file: ConsumedFile) -> None:
        """Write down that the ``file`` of the source is about to be deleted."""
        self._put({"consumed": asdict(file)})
        self.consumed[file.name] = file

    def spare(self, name: str) -> None:
        """Write down that the file ``name`` of the source was not deleted after all."""
        self._put({"spared": name})
        del self.consumed[name]

    def publish(self) -> None:
        """Write down that the files are about to get their place."""
        self._put({"publishing": True})

    def forget(self, name: str) -> None:
        """Call the file ``name`` finished no more; what is written down is disproved by the file itself."""
        self.finished.remove(name)

    def is_ours(self) -> bool:
        """Whether it still is where it was, and no other run has begun to write to it."""
        if not is_at(self.path, self.file):
            return False
        found = self.read()
        return not self.begun.is_set() or (found is not None and found.run == self.run)

    def swap(self, swap: Swap) -> None:
        """Write down what is about to change places."""
        self._put({"swap": asdict(swap)})

    def read(self) -> Record | None:
        """What is written down, as :func:`parsed_journal`."""
        with named(self.path):
            return parsed_journal(self.path, _contents(self.path, self.file))

    def _put(self, *lines: Mapping[str, Any]) -> None:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        with named(self.path):
            while data:
                data = data[os.write(self.file, data) :]
            os.fsync(self.file)


def read_journal(path: Path) -> Record | None:
    """What the journal ``path`` says, as :func:`parsed_journal`. Raises OSError, too, if there is none."""
    with path.open("rb") as file:
        return parsed_journal(path, _contents(path, file.fileno()))


def journal_in(directory: HeldDirectory) -> Record | None:
    """What the journal in ``directory`` says, as :func:`read_journal`; a link in its place is not followed."""
    path, file = directory.path / JOURNAL, directory.open(JOURNAL, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise foreign(directory.path)
        return parsed_journal(path, _contents(path, file))
    finally:
        os.close(file)


def parsed_journal(path: Path, data: bytes) -> Record | None:
    """What the journal ``path`` says; None if the program was killed before it had written anything down.

    Later lines that are cut off count for nothing. Raises OutputError if it is the journal of somebody else.
    """
    first, *others = data.splitlines(keepends=True) or [b""]
    if not first.endswith(b"\n") and not others and (first.startswith(_BEGINNING) or _BEGINNING.startswith(first)):
        return None
    identity = _parsed(first)
    if len(identity.keys() & {field.name for field in fields(Identity)}) < _TELLING:
        raise foreign(path.parent)
    lines = [identity, *map(_parsed, others)]
    finished = [line["finished"] for line in lines if isinstance(line.get("finished"), str)]
    runs = [line["run"] for line in lines if isinstance(line.get("run"), str)]
    swaps = [swap for line in lines if (swap := _swap(line.get("swap")))]
    consumed: dict[str, ConsumedFile] = {}
    for line in lines:
        if (file := parsed_file(line.get("consumed"))) is not None:
            consumed[file.name] = file
        consumed.pop(str(line.get("spared")), None)
    remembered = [line["remembered"] for line in lines if isinstance(line.get("remembered"), dict)]
    return Record(
        identity,
        finished,
        runs[-1] if runs else None,
        swaps[-1] if swaps else None,
        length=data.rfind(b"\n") + 1,
        consumed=consumed,
        checksums={line["finished"]: line["checksum"] for line in lines if _has_checksum(line)},
        remembered=remembered[-1] if remembered else {},
        is_publishing=any(line.get("publishing") is True for line in lines),
    )


def _has_checksum(line: Mapping[str, Any]) -> bool:
    return isinstance(line.get("finished"), str) and isinstance(line.get("checksum"), str)


def check_same(path: Path, identity: Identity, found: Record, *, is_shared: bool = False) -> None:
    """Raise OutputError, with the difference, unless what the journal ``path`` says is of the same conversion.

    ``is_shared``: other processes take part in it, so that no option starts over.
    """
    difference = identity.difference(found.identity)
    if difference is not None:
        begun = f"{path.parent} is the unfinished output of a conversion that was begun {difference[0]}."
        if found.consumed:
            raise OutputError(f"{begun} It has deleted files of its source.", f"{difference[1]}: nothing else can.")
        over = "add --restart (restart=True) to start over"
        if is_shared:
            over = f"remove {path.parent} when no worker runs, so that all start over"
        raise OutputError(begun, f"{difference[1]}, or {over}.")


@contextmanager
def open_journal(directory: HeldDirectory, *, shared: bool = False) -> Iterator[Journal]:
    """Open the journal in ``directory``, a new one if there is none.

    All others are kept out until the end of the ``with``; ``shared``: but for those who share it. Raises InUseError if
    somebody else has it.
    """
    path = directory.path / JOURNAL
    file = directory.open(JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        with named(path):
            locked = _lock(file, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        _OPEN.add(file)
        try:
            yield Journal(path, [], locked, file, secrets.token_hex(8), Event())
        finally:
            _OPEN.discard(file)
            _unlock(file)
    finally:
        os.close(file)


def _lock(file: int, path: Path, kind: int) -> bool:
    """Whether the file system has locks; raises InUseError if another process has this one."""
    running = InUseError(f"Another conversion is writing to {path.parent}.", "Wait for it, or stop it.")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise running from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    if not is_at(path, file):  # the other one has just ended and removed it
        raise running
    return True


_OPEN: set[int] = set()
"""The descriptors of open journals. A process has them as a whole, and so has a child that is forked from it."""


def _close_in_child() -> None:
    """Give up the journals of the parent: with them the child would keep the locks, even if the parent is killed."""
    for file in _OPEN:
        with suppress(OSError):
            os.close(file)
    _OPEN.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _unlock(file: int) -> None:
    """Give the lock back, which a process that was forked meanwhile has, too: it would keep it until it ends."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def _contents(path: Path, file: int) -> bytes:
    size = os.fstat(file).st_size
    if size > _LARGEST:
        raise foreign(path.parent)
    return os.pread(file, size, 0)


def foreign(partial: Path) -> OutputError:
    """The refusal of what is at ``partial`` and no run has left there."""
    return OutputError(
        f"{partial}, where the output would be collected, exists and is not an unfinished output of this program.",
        "Move it away, or choose another output.",
    )


def _swap(value: object) -> Swap | None:
    old, new = _of(value, "old"), _of(value, "new")
    return Swap(old, new) if isinstance(old, int) and isinstance(new, int) else None


def _other_option(name: str, then: Any, now: Any) -> tuple[str, str]:
    """How an option differed, and what to type to go on, with its name on the command line."""
    if name == "command":
        return f"by {shown(then)}, and this is {shown(now)}", f"Use {shown(then)} to go on with it"
    flag = f"--{name[:_LONGEST_VALUE].replace('_', '-')}"
    then, now = (None if value in ([], ()) else value for value in (then, now))
    before, this = (flag if value is None or value is True else f"{flag} {_typed(value)}" for value in (then, now))
    if then is None:
        return f"without {flag}, and this one has {this}", f"Leave out {flag} to go on with it"
    what = (
        f"with {before}, and this one is without {flag}" if now is None else f"with {before}, and this one has {this}"
    )
    return what, f"Give {before} to go on with it"


def _typed(value: Any) -> str:
    """``value`` as it is typed in a shell; several of them one after the other."""
    if isinstance(value, list | tuple):
        return " ".join(map(_typed, value))[:_LONGEST_VALUE]
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
    names = sorted({*same, *then}, key=lambda name: (name != "command", name))
    return next((name for name in names if same.get(name) != then.get(name)), None)


def _touch(name: str, now: object, then: object) -> str:
    """What to type if only the time of the file ``name`` was changed; nothing if more was."""
    match now, then:
        case [size, _, header], [was_size, int(modified), was_header] if (size, header) == (was_size, was_header):
            time = f"{modified // 10**9}.{modified % 10**9:09}"
            return f" (if only its time was changed, in its directory: touch -c -d @{time} {shlex.quote(name)})"
        case _:
            return ""


def _of(values: object, name: str) -> object:
    return values.get(name) if isinstance(values, dict) else None
