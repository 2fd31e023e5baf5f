"""Plans from any spelling of a model's keys to any other, by way of the custom format's names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import Family, Table
from internvl_bridge.mapping.make_plan import Direction, make_plan
from internvl_bridge.mapping.plan import Plan, TensorSpec, compose, identity
from internvl_bridge.mapping.spellings import Spelling, spelled_table

Keys = Spelling | None
"""How keys are spelled: in one of HF's ways, or (None) as the custom format has them, which has one way."""


@dataclass(frozen=True, slots=True)
class Route:
    """How the keys of a model of ``family`` are spelled, and how they shall be."""

    family: Family
    dims: TextDims
    source: Keys
    target: Keys

    @property
    def reverse(self) -> "Route":
        return Route(self.family, self.dims, self.target, self.source)

    @property
    def entrance(self) -> tuple[Table, Direction]:
        """The rows that claim the source's keys, and the direction in which they do."""
        if self.source is not None:
            return spelled_table(self.family, self.dims, self.source), Direction.TO_CUSTOM
        return self.reverse.entrance[0] if self.target is not None else (), Direction.TO_HF


def plan_route(route: Route, specs: Mapping[str, TensorSpec]) -> Plan:
    """Plan the way of ``specs`` along ``route``.

    Raises what :func:`internvl_bridge.mapping.planning.make_plan` raises, about keys of ``specs``; about experts that
    cannot be fused, between two HF spellings, with the names that the custom format has for them.
    """
    if route.source is None and route.target is None:
        return identity(specs)
    table, direction = route.entrance
    plan = make_plan(table, specs, direction)
    if route.source is None or route.target is None:
        return plan
    return compose(plan_route(replace(route, source=None), plan.targets), plan)


def renamed(route: Route, key: str) -> str:
    """What ``key``, of a tensor that keeps its elements, becomes along ``route``."""
    [name] = plan_route(route, {key: TensorSpec("any", (1,))}).recipes
    return name
