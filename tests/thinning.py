"""Which cases of the tests only an exhaustive run needs: those marked so, and most combinations of parameters.

A test with several ``parametrize`` decorators is a product. If it is of more than a few cases, it is thinned until each
value of each decorator occurs once: what fails for one combination only is rare, and `make test-exhaustive` finds it.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import pytest

MOST = 12
"""Products of so few cases are left as they are."""

Choices = frozenset[tuple[str, Hashable]]
"""The value of each decorator."""


def thinned(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """What is left, and what is left out, both in order."""
    tests = defaultdict(list)
    for item in items:
        if item.get_closest_marker("exhaustive") is None:
            tests[item.nodeid.partition("[")[0]].append(item)
    chosen = {item for cases in tests.values() for item in (cases if len(cases) <= MOST else each_choice(cases))}
    return [item for item in items if item in chosen], [item for item in items if item not in chosen]


def each_choice(cases: Sequence[pytest.Item]) -> Iterable[pytest.Item]:
    """Enough of ``cases`` for each value of each decorator: first those of which all values are new."""
    choices = {case: choices_of(case) for case in cases}
    seen: set[tuple[str, Hashable]] = set()
    for enough in (Choices.isdisjoint, lambda new, seen: not new <= seen):
        for case in cases:
            if enough(choices[case], seen):
                seen |= choices[case]
                yield case


def choices_of(case: pytest.Item) -> Choices:
    """What each decorator and each fixture with parameters gave a case, told by its identity."""
    values = dict(case.callspec.params) if hasattr(case, "callspec") else {}
    names = [mark.args[0] for mark in case.iter_markers("parametrize")]
    together = [[name.strip() for name in group.split(",")] if isinstance(group, str) else group for group in names]
    alone = [[name] for name in values if not any(name in group for group in together)]
    return frozenset((",".join(group), tuple(id(values[name]) for name in group)) for group in together + alone)


def one_in(step: int, values: Sequence[Hashable]) -> list[Hashable]:
    """One in ``step`` values as it is, and the others for an exhaustive run only."""
    return [
        value if number % step == 0 else pytest.param(value, marks=pytest.mark.exhaustive)
        for number, value in enumerate(values)
    ]
