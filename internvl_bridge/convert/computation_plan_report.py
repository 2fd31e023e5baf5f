"""What a merge or a cast would do, as a report."""

from collections.abc import Iterator

from internvl_bridge.convert.computation import Computation
from internvl_bridge.convert.computed_report import how_computed, module_lines
from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.convert.plan_report import cost_facts, intention, remarks_on_plan
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.reporting.tables import Part


def computation_plan(conversion: Conversion, computation: Computation, budget: Budget) -> Iterator[Part]:
    """What a merge or a cast would do."""
    yield intention(conversion)
    yield cost_facts(conversion, budget)
    yield from how_it_computes(conversion, computation)
    yield from remarks_on_plan(conversion)


def how_it_computes(conversion: Conversion, computation: Computation) -> Iterator[Part]:
    """By what arithmetic, and of which modules."""
    count = len(conversion.plan.recipes)
    yield how_computed(len(computation.tensors), count, computation.dtype, merges=bool(computation.modules))
    scales = {name: [scaling.value for scaling in found] for name, found in computation.modules.items()}
    yield from module_lines(scales, every=False)
