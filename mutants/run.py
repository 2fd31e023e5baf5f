"""Change the code of a room in small ways, and see whether the room's own tests notice: ``make mutants ROOM=mapping``.

Functions are changed by the operators of cosmic-ray, of whose mutants a seeded sample is tried; the tables, which are
data, by :mod:`tables`, completely (``ROOM=tables``). It works below ``.mutants``, in a copy of what is committed at the
first start, and writes each result down at once: the same command goes on where an earlier one was stopped. Delete
``.mutants`` to begin again with newer code.

Exit code 0 if every mutant died, 1 if some survived: they are listed, for someone to read.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from tables import TABLES, table_mutants

_SEED = 1
_MOST = 150
_PATIENCE = 3
"""Tests that take so many times as long as without a change hang, and so have noticed it."""
_LEFT_OUT = ("BitOr", "Variable")
"""Operators that change annotations (``X | None``) more often than values, and those that want arguments."""


@dataclass(frozen=True)
class Mutant:
    """A change of one file; ``name`` says which, and is the same in every run."""

    name: str
    path: Path
    text: str


def mutants_of(path: Path, text: str) -> Iterator[Callable[[], Mutant]]:
    """Every mutant of a module that an operator of cosmic-ray makes, not made yet."""
    nodes = list(ast_nodes(get_ast(text)))
    for name in sorted(operator_names()):
        if not any(part in name for part in _LEFT_OUT):
            operator = get_operator(name)()
            places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            for occurrence, (line, _) in enumerate(places):
                yield partial(_mutant, f"{path}:{line} {name} {occurrence}", path, text, operator, occurrence)


def _mutant(name: str, path: Path, text: str, operator: Operator, occurrence: int) -> Mutant:
    return Mutant(name, path, mutate_code(text, operator, occurrence) or text)


def all_mutants(copy: Path, room: str) -> list[Mutant]:
    """Those of a room, in a fixed order: a seeded sample, or all of the tables."""
    if room == "tables":
        found = enumerate(table_mutants((copy / TABLES).read_text()))
        return [Mutant(f"{TABLES} {number} {what}", TABLES, text) for number, (what, text) in found]
    paths = sorted(path.relative_to(copy) for path in (copy / "internvl_bridge" / room).rglob("*.py"))
    possible = [make for path in paths if path != TABLES for make in mutants_of(path, (copy / path).read_text())]
    chosen = random.Random(_SEED).sample(possible, min(_MOST, len(possible)))  # noqa: S311 (no secret)
    return [make() for make in chosen]


def is_noticed(copy: Path, tests: Path, mutant: Mutant | None, patience: float | None) -> bool:
    """Whether the tests fail, or take over ``patience`` seconds, with a mutant (None: without any change)."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "--numprocesses", "auto"]
    original = (copy / mutant.path).read_text() if mutant else ""
    try:
        if mutant:
            (copy / mutant.path).write_text(mutant.text)
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *options, str(tests)],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy.absolute())},
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        if mutant:
            (copy / mutant.path).write_text(original)
    return run.returncode != 0


def main() -> None:
    """Try the mutants of one room."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", help="a room, for instance mapping or metadata/config, or tables")
    room = parser.parse_args().room
    home = Path(".mutants") / room.replace("/", "-")
    copy, source, results = home / "copy", home / "source.tar", home / "results.jsonl"
    if not source.exists():
        home.mkdir(parents=True, exist_ok=True)
        source.write_bytes(subprocess.run(["git", "archive", "HEAD"], capture_output=True, check=True).stdout)
    with tarfile.open(source) as files:  # at each start: a run that was killed leaves its mutant in the copy
        files.extractall(copy, filter="data")
    tests = Path("tests") / ("mapping" if room == "tables" else room)
    start = time.monotonic()
    if is_noticed(copy, tests, None, None):
        sys.exit(f"{copy / tests} fails without any change.")
    patience = _PATIENCE * (time.monotonic() - start)
    done = {entry["name"]: entry["noticed"] for entry in map(json.loads, _written(results))}
    mutants = all_mutants(copy, room)
    for number, mutant in enumerate(mutants, 1):
        if mutant.name not in done:
            done[mutant.name] = is_noticed(copy, tests, mutant, patience)
            with results.open("a") as file:
                file.write(json.dumps({"name": mutant.name, "noticed": done[mutant.name]}) + "\n")
        print(f"{number}/{len(mutants)} {'died' if done[mutant.name] else 'SURVIVED'} {mutant.name}", flush=True)
    survivors = [mutant.name for mutant in mutants if not done[mutant.name]]
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants of {room} died.")
    sys.exit(1 if survivors else 0)


def _written(results: Path) -> list[str]:
    return results.read_text().splitlines() if results.exists() else []


if __name__ == "__main__":
    main()
