"""Plan the conversion of all tensors of a model, its output head included."""

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_bridge.mapping.packing import MXFP4, Packed, Packing
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.spellings import KeySpelling
from internvl_bridge.mapping.tied_head import TiedHead, tied_head
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.planning.checked_plan import checked_plan
from internvl_bridge.planning.output_head import OutputHead, SameBits, output_head, plan_with_head, specs_to_plan


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A proved plan, and what the tensors say that config.json cannot overrule.

    ``head`` is what the source's output head is, and ``tie`` how the output spells it. ``packed`` is how the language
    model is quantised, None if it is not.
    """

    plan: Plan
    head: OutputHead
    tie: TiedHead
    packed: Packed | None

    @property
    def tied(self) -> bool:
        """Whether the input embeddings serve as output head, however often they are stored."""
        return self.head is not OutputHead.OWN

    @property
    def linear_packing(self) -> Packing | None:
        """How linear layers are quantised, None if they are not; experts of GPT-OSS do not count."""
        return None if self.packed is None or self.packed.packing is MXFP4 else self.packed.packing

    @property
    def adds_head(self) -> bool:
        """Whether the output has a copy of the embeddings that the source does not have."""
        return self.head is OutputHead.SHARED and self.tie.head in self.plan.recipes

    @property
    def drops_head(self) -> bool:
        """Whether the source has a copy of the embeddings that the output does not have."""
        return self.head is OutputHead.COPY and self.tie.head not in self.plan.recipes


def plan_tensors(
    model: ModelDescription,
    specs: Mapping[str, TensorSpec],
    route: tuple[KeySpelling, KeySpelling],
    same: SameBits,
    *,
    stores_copy: bool,
) -> ModelPlan:
    """Plan the conversion of ``specs`` along ``route``, checked against config.json and proved.

    ``stores_copy``: where the input embeddings serve as output head, the target stores a copy of them. Raises
    what :func:`internvl_bridge.planning.checked_plan.checked_plan` raises.
    """
    source, target = route
    here, there = (tied_head(model.family, model.dims.text, keys) for keys in route)
    head = output_head(here, specs, same, may_be_tied=model.may_be_tied)
    checked = checked_plan(model, specs_to_plan(head, here, specs, stores_copy=stores_copy), source, target)
    plan = plan_with_head(head, there, checked.plan, stores_copy=stores_copy)
    return ModelPlan(plan, head, there, checked.packed)
