"""Change the code of a room in small ways, and see whether the room's own tests notice: ``make mutants ROOM=mapping``.

Functions are changed as :mod:`code_mutants` says, of whose mutants a seeded sample is tried; the tables, which are
data, as :mod:`table_mutants` says, completely (``ROOM=tables``). It works below ``.mutants``, in copies of what is
committed at the first start, on as many mutants at once as there are cores, and writes each result down at once: the
same command goes on where an earlier one was stopped. Delete ``.mutants`` to begin again with newer code.

The tests are those of ``make test``; a mutant that survives them meets the exhaustive ones, too. Exit code 0 if every
mutant died of the former, 1 if some did not: they are listed, for someone to read.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue

from code_mutants import code_mutants
from table_mutants import TABLES, table_mutants
from trials import Mutant, is_noticed

_PATIENCE = 3
"""Tests that take so many times as long as without a change hang, and so have noticed it."""
_LONGER = 10
"""How many times as long an exhaustive run may take."""
_CORES = os.cpu_count() or 1
DIED, RARELY, SURVIVED = "died", "died of exhaustive tests only", "survived"


def all_mutants(source: Path, room: str, most: int) -> list[Mutant]:
    """Those of a room, in a fixed order: a seeded sample, or all of the tables."""
    if room == "tables":
        return table_mutants((source / TABLES).read_text())
    paths = sorted(path.relative_to(source) for path in (source / "internvl_bridge" / room).rglob("*.py"))
    return code_mutants(source, [path for path in paths if path != TABLES], most)


def try_all(home: Path, room: str, most: int) -> Iterator[tuple[str, str]]:
    """The name of each mutant of a room, and what became of it: first those known from an earlier run."""
    copies = _copies(home)
    tests = "tests/mapping" if room == "tables" else f"tests/{room}"
    mutants = all_mutants(home / "copy-0", room, most)
    done = _written(home / "results.jsonl")
    yield from ((mutant.name, done[mutant.name]) for mutant in mutants if mutant.name in done)

    def fail(options: list[str], mutant: Mutant | None = None, patience: float | None = None) -> bool:
        copy = copies.get()
        try:
            return is_noticed(copy, [tests, *options], mutant, patience)
        finally:
            copies.put(copy)

    def verdict_on(mutant: Mutant) -> str:
        if fail([], mutant, patience):
            return DIED
        return RARELY if fail(["--exhaustive"], mutant, _LONGER * patience) else SURVIVED

    with ThreadPoolExecutor(_CORES) as threads, (home / "results.jsonl").open("a") as results:
        start = time.monotonic()
        if any(threads.map(fail, [[]] * _CORES)):
            sys.exit(f"{home / 'copy-0' / tests} fails without any change.")
        patience = _PATIENCE * (time.monotonic() - start)
        trying = {threads.submit(verdict_on, mutant): mutant.name for mutant in mutants if mutant.name not in done}
        try:
            for tried in as_completed(trying):
                results.write(json.dumps({"name": trying[tried], "verdict": tried.result()}) + "\n")
                results.flush()
                yield trying[tried], tried.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _copies(home: Path) -> Queue[Path]:
    """A copy of what was committed at the first start for each core: a run that was killed leaves its mutants there."""
    source = home / "source.tar"
    if not source.exists():
        home.mkdir(parents=True, exist_ok=True)
        source.write_bytes(subprocess.run(["git", "archive", "HEAD"], capture_output=True, check=True).stdout)
    copies: Queue[Path] = Queue()
    for number in range(_CORES):
        copy = home.absolute() / f"copy-{number}"
        with tarfile.open(source) as files:
            files.extractall(copy, filter="data")
        copies.put(copy)
    return copies


def _written(results: Path) -> Mapping[str, str]:
    lines = results.read_text().splitlines() if results.exists() else []
    return {entry["name"]: entry["verdict"] for entry in map(json.loads, lines)}


def main() -> None:
    """Try the mutants of one room."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", help="a room, for instance mapping or metadata/config, or tables")
    parser.add_argument("--most", type=int, default=150, metavar="N", help="how many mutants of a room (default: 150)")
    arguments = parser.parse_args()
    room = arguments.room
    verdicts: dict[str, str] = {}
    for name, verdict in try_all(Path(".mutants") / room.replace("/", "-"), room, arguments.most):
        verdicts[name] = verdict
        print(f"{len(verdicts)} {verdict} {name}", flush=True)
    left = sorted(f"{verdict} {name}" for name, verdict in verdicts.items() if verdict != DIED)
    print(f"{len(verdicts) - len(left)} of {len(verdicts)} mutants of {room} died. The others:", *left, sep="\n")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
