"""What an output head is, and whether a target stores it: the one rule for heads that are the input embeddings."""

from collections.abc import Callable, Mapping
from enum import Enum

from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.tied_head import TiedHead

SameBits = Callable[[str, str], bool]
"""Whether two tensors, given by their keys, which agree in dtype and shape, agree in every bit."""


class OutputHead(Enum):
    """OWN: a tensor of its own. SHARED: no tensor, the input embeddings serve. COPY: a tensor that copies them."""

    OWN = "own"
    SHARED = "shared"
    COPY = "copy"

    def is_stored(self, *, stores_copy: bool) -> bool:
        """Whether a target has a tensor for it: always for its own, else if the target ``stores_copy``."""
        return self is OutputHead.OWN or stores_copy


def output_head(
    tie: TiedHead, specs: Mapping[str, TensorSpec], same_bits: SameBits, *, may_be_tied: bool
) -> OutputHead:
    """What the output head is among tensors of ``specs``, where ``tie`` has its key and that of the embeddings.

    The presence of its tensor decides, and its bits: only where config.json calls the model tied, a tensor can be a
    copy.
    """
    if tie.head not in specs:
        return OutputHead.SHARED
    could_be = may_be_tied and specs.get(tie.embeddings) == specs[tie.head]
    return OutputHead.COPY if could_be and same_bits(tie.head, tie.embeddings) else OutputHead.OWN


def specs_to_plan(
    head: OutputHead, tie: TiedHead, specs: Mapping[str, TensorSpec], *, stores_copy: bool
) -> Mapping[str, TensorSpec]:
    """Those of the source's ``specs`` that are planned: a copy that the target does not store is left out."""
    return specs if head.is_stored(stores_copy=stores_copy) else tie.dropped(specs)


def plan_with_head(head: OutputHead, tie: TiedHead, plan: Plan, *, stores_copy: bool) -> Plan:
    """``plan`` with the head that the target stores, where the source has none; ``tie`` has the target's keys.

    Without embeddings there is nothing to copy.
    """
    if tie.head in plan.recipes or not head.is_stored(stores_copy=stores_copy):
        return plan
    return tie.copied(plan) if tie.embeddings in plan.recipes else plan
