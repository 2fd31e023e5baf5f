"""`make test` leaves out combinations of values, never a value."""

from itertools import product

import pytest
from thinning import choices_of, each_choice, each_value


def test_each_value_is_left_and_few_cases_are():
    cases = {case: frozenset(enumerate(case)) for case in product("abc", range(7), [True, False])}

    chosen = [*each_choice(cases)]

    assert [set(values) for values in zip(*chosen, strict=True)] == [set("abc"), set(range(7)), {True, False}]
    assert len(chosen) < 10


def test_what_is_left_out_of_a_list_is_marked():
    few = each_value([("a", 1), ("b", 2), ("a", 2), ("c", 2)])

    assert few[:2] == [("a", 1), ("b", 2)]
    assert few[2] == pytest.param("a", 2, marks=pytest.mark.exhaustive)
    assert few[3] == ("c", 2)


@pytest.fixture(params=["x"])
def four(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("one", [1])
@pytest.mark.parametrize(("two", "three"), [(2, 3)])
def test_each_decorator_is_one_choice(one: int, two: int, three: int, four: str, request: pytest.FixtureRequest):
    assert dict(choices_of(request.node)) == {
        ("one",): (id(one),),
        ("two", "three"): (id(two), id(three)),
        ("four",): (id(four),),
    }
