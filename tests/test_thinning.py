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
    cases = [*product("abcd", range(4))]

    few = each_value(cases)

    assert 4 <= sum(one in cases for one in few) < 10
    assert all(
        one in (case, pytest.param(*case, marks=pytest.mark.exhaustive)) for case, one in zip(cases, few, strict=True)
    )


def test_a_product_of_the_same_values_is_more_than_its_diagonal():
    chosen = each_choice({case: frozenset(enumerate(case)) for case in product(range(9), repeat=2)})

    assert len([left for left, right in chosen if left != right]) > 5


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
