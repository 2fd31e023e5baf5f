"""Which cases of the tests only an exhaustive run needs: those marked so, and most combinations of parameters.

A test with several ``parametrize`` decorators is a product. If it is of more than a few cases, it is thinned until each
value of each decorator occurs once: what fails for one combination only is rare, and `make test-exhaustive` finds it.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import pytest

MOST = 12
"""Products of so few cases are left as they are."""

Choices = frozenset[tuple[Hashable, Hashable]]
"""What a case is made of: the name and the value of each of its parts."""


def one_in(step: int, cases: Sequence[Any]) -> list[Any]:
    """Each ``step``-th case as it is, and the others for an exhaustive run."""
    return [case if number % step == 0 else rarely(case) for number, case in enumerate(cases)]


def each_value(cases: Sequence[tuple[Any, ...]]) -> list[Any]:
    """As many cases as it takes for each value in each place of the tuples, and the others for an exhaustive run."""
    choices = {number: frozenset(enumerate(case)) for number, case in enumerate(cases)}
    chosen = set(each_choice(choices))
    return [case if number in chosen else rarely(case) for number, case in enumerate(cases)]


def rarely(case: Any) -> Any:
    """The same case, for an exhaustive run."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.exhaustive)


def thinned(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """What is left of all tests, and what is left out, both in order."""
    tests = defaultdict(list)
    for item in items:
        if item.get_closest_marker("exhaustive") is None:
            tests[item.nodeid.partition("[")[0]].append(item)
    chosen = {
        item
        for cases in tests.values()
        for item in (cases if len(cases) <= MOST else each_choice({case: choices_of(case) for case in cases}))
    }
    return [item for item in items if item in chosen], [item for item in items if item not in chosen]


def each_choice(cases: Mapping[Any, Choices]) -> Iterator[Any]:
    """Enough of ``cases`` for each choice that one of them makes: first those that make new ones only.

    In an order without a pattern: else a source would always meet the target of the same number.
    """
    shuffled = Random(0).sample([*cases], len(cases))  # noqa: S311 (no secret)
    seen: set[tuple[Hashable, Hashable]] = set()
    for brings_enough in (Choices.isdisjoint, lambda choices, seen: not choices <= seen):
        for case in shuffled:
            if brings_enough(cases[case], seen):
                seen |= cases[case]
                yield case


def choices_of(case: pytest.Item) -> Choices:
    """What each decorator, and each fixture with parameters, gave a case: the same object to all that share it."""
    values = dict(case.callspec.params) if hasattr(case, "callspec") else {}
    names = [mark.args[0] for mark in case.iter_markers("parametrize")]
    groups = [(group,) if isinstance(group, str) else tuple(group) for group in names]
    groups += [(name,) for name in values if not any(name in group for group in groups)]
    return frozenset((group, tuple(id(values[name]) for name in group)) for group in groups)
