"""Plan between custom keys and HF keys in any spelling, always through the portable spelling (L1)."""

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_bridge.mapping.plan import Plan, TensorSpec, compose, identity
from internvl_bridge.mapping.planning import Direction, explain_unknown_keys, make_plan, unmatched_keys
from internvl_bridge.mapping.spellings import L1, Spelling
from internvl_bridge.mapping.transforms import Transform

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Route:
    """The rows of a family's table, and the spelling of the HF keys at its end."""

    table: tuple[Transform, ...]
    spelling: Spelling

    def plan(self, specs: Specs, direction: Direction) -> Plan:
        """The plan that takes ``specs`` along this route; refusals name keys of ``specs``."""
        if direction is Direction.TO_HF:
            plan = make_plan(self.table, specs, direction)
            return plan if self.spelling is L1 else compose(respell(plan.targets, L1, self.spelling), plan)
        if self.spelling is L1:
            return make_plan(self.table, specs, direction)
        portable = respell(specs, self.spelling, L1)
        unknown = unmatched_keys(self.table, portable.recipes, direction)
        if unknown:
            raise explain_unknown_keys([portable.recipes[key].runs[0].key for key in unknown])
        return compose(make_plan(self.table, portable.targets, direction), portable)


def respell(specs: Specs, old: Spelling, new: Spelling) -> Plan:
    """The plan that renames HF tensors from one spelling to another."""
    if old is new:
        return identity(specs)
    portable = make_plan(old.renames, specs, Direction.TO_CUSTOM)
    return compose(make_plan(new.renames, portable.targets, Direction.TO_HF), portable)
