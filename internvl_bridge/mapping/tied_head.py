"""The one sanctioned exception to "every element once": an output head that is a copy of the input embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import Family
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.routes import Route, renamed
from internvl_bridge.mapping.schema import EMBEDDINGS, HEAD
from internvl_bridge.mapping.spellings import MOST_COMPATIBLE, KeySpelling


@dataclass(frozen=True, slots=True)
class TiedHead:
    """The keys of the input embeddings, and of the output head that is a copy of them."""

    embeddings: str
    head: str

    def dropped(self, specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """``specs`` without the copy. Only for one whose bits have been compared."""
        return {key: spec for key, spec in specs.items() if key != self.head}

    def copied(self, plan: Plan) -> Plan:
        """``plan`` with the copy among its targets, which then uses the embeddings twice."""
        return Plan(plan.sources, {**plan.recipes, self.head: plan.recipes[self.embeddings]})


def tied_head(family: Family, dims: TextDims, keys: KeySpelling) -> TiedHead:
    """The names of both tensors, spelled as ``keys``."""
    route = Route(family, dims, MOST_COMPATIBLE, keys)
    return TiedHead(renamed(route, EMBEDDINGS), renamed(route, HEAD))
