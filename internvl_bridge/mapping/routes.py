"""Plans from any spelling of a model's keys to any other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import explain_unknown_keys, make_plan, unmatched_keys
from internvl_bridge.mapping.plan import Plan, TensorSpec, compose, identity, whole
from internvl_bridge.mapping.spellings import CUSTOM, KeySpelling, respelled, spelled_table
from internvl_bridge.mapping.tables import Table


@dataclass(frozen=True, slots=True)
class Route:
    """How the keys of a model of ``family`` are spelled, and how they shall be."""

    family: Family
    dims: TextDims
    source: KeySpelling
    target: KeySpelling

    @property
    def reverse(self) -> "Route":
        return replace(self, source=self.target, target=self.source)

    @property
    def first_table(self) -> Table:
        """The rows that claim the source's keys: they lead into the other format than the source's."""
        hf = self.target if self.source == CUSTOM else self.source
        return () if hf == CUSTOM else spelled_table(self.family, self.dims, hf)


def plan_route(route: Route, specs: Mapping[str, TensorSpec]) -> Plan:
    """Plan the way of ``specs`` along ``route``.

    Raises what :func:`internvl_bridge.mapping.make_plan.make_plan` raises, about keys of ``specs``; about experts that
    cannot be fused, between two HF spellings, with the names that the custom format has for them.
    """
    if route.source == route.target == CUSTOM:
        return identity(specs)
    stays_hf = Format.HF is route.source.format is route.target.format
    if stays_hf and route.source.experts is route.target.experts:
        return _respelled(route, specs)
    plan = make_plan(route.first_table, specs, route.source.format.other)
    return compose(plan_route(replace(route, source=CUSTOM), plan.targets), plan) if stays_hf else plan


def _respelled(route: Route, specs: Mapping[str, TensorSpec]) -> Plan:
    """The plan between two layouts of HF keys, which only renames: nothing is fused on the way."""
    if unknown := unmatched_keys(route.first_table, Format.CUSTOM, specs):
        raise explain_unknown_keys(unknown)
    names = {key: respelled(key, route.source.layout, route.target.layout) for key in specs}
    return Plan(specs, {names[key]: whole(key, spec) for key, spec in specs.items()})


def renamed(route: Route, key: str) -> str:
    """What ``key``, of a tensor that keeps its elements, becomes along ``route``."""
    [name] = plan_route(route, {key: TensorSpec("any", (1,))}).recipes
    return name
