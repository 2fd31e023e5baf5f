"""Lifting refuses a plan that loses rows of what an adapter changes, as a plan of weights never does."""

import pytest

from internvl_bridge.errors import ContradictionError
from internvl_bridge.mapping.lora.factors import Region, Scaling
from internvl_bridge.mapping.lora.lifting import lift
from internvl_bridge.mapping.lora.stored import Reading, stored_adapter
from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec

SPECS = {"a.weight": TensorSpec("any", (4, 3))}
HALF = Plan(SPECS, {"b.weight": Recipe(TensorSpec("any", (2, 3)), (Run("a.weight", 0, 6),))})
READING = Reading(lambda _, rank: Scaling(1, rank, is_rslora=False))


def test_rows_of_a_change_that_would_be_lost() -> None:
    tensors = {"a.lora_A.weight": TensorSpec("F32", (2, 3)), "a.lora_B.weight": TensorSpec("F32", (4, 2))}
    with pytest.raises(ContradictionError, match=r"does not say what becomes of a\.weight.*report it"):
        lift(stored_adapter(tensors, SPECS, READING), HALF)


def test_a_parameter_that_would_be_lost() -> None:
    adapter = stored_adapter({"a.weight": SPECS["a.weight"]}, SPECS, READING)
    with pytest.raises(ContradictionError, match=r"does not say what becomes of a\.weight"):
        lift(adapter, Plan(SPECS, {}))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_part_of_a_region_is_that_of_what_it_takes(transposed: bool) -> None:
    rows = [[10 * row + column for column in range(12)] for row in range(6)]

    def taken(region: Region) -> list[list[int]]:
        columns = range(*region.columns, region.step)
        matrix = [[rows[row][column] for column in columns] for row in range(*region.rows)]
        return [list(column) for column in zip(*matrix, strict=True)] if region.transposed else matrix

    region = Region("x", (1, 5), (2, 11), step=3, transposed=transposed)
    whole = taken(region)
    assert region.shape == (len(whole), len(whole[0]))
    assert taken(region.part(rows=(1, 3), columns=(0, 2))) == [row[0:2] for row in whole[1:3]]
