"""Mutants of functions: a seeded sample of what the operators of cosmic-ray make of the modules of a room."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from trials import Mutant

_SEED = 1
_LEFT_OUT = ("BitOr", "Variable", "Is_Eq", "IsNot_NotEq")
"""Operators that change annotations (``X | None``) more often than values, that need arguments, or that change nothing
where None and members of an Enum are compared."""


def code_mutants(root: Path, paths: list[Path], most: int) -> list[Mutant]:
    """At most ``most`` mutants of the modules ``paths``, which are relative to ``root``: the same in every run.

    Of two numbers, the smaller one gives the first mutants of the larger one.
    """
    possible = [make for path in paths for make in _mutants_of(path, (root / path).read_text())]
    random.Random(_SEED).shuffle(possible)  # noqa: S311 (no secret)
    return [make() for make in possible[:most]]


def _mutants_of(path: Path, text: str) -> Iterator[Callable[[], Mutant]]:
    nodes = list(ast_nodes(get_ast(text)))
    lines = text.splitlines()
    for name in sorted(operator_names()):
        if not any(part in name for part in _LEFT_OUT):
            operator = get_operator(name)()
            places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            for occurrence, (line, column) in enumerate(places):
                if lines[line - 1].startswith("*,", column):
                    continue  # the mark of keyword-only parameters, which is not a product
                yield partial(_mutant, f"{path}:{line} {name} {occurrence}", path, text, operator, occurrence)


def _mutant(name: str, path: Path, text: str, operator: Operator, occurrence: int) -> Mutant:
    return Mutant(name, path, mutate_code(text, operator, occurrence) or text)
