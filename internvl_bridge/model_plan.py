"""Plan the conversion of all tensors of a model, its output head included."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from internvl_bridge.checked_plan import checked_plan
from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.routes import Keys
from internvl_bridge.mapping.tied import TiedHead, tied_head
from internvl_bridge.metadata.described import Described
from internvl_bridge.model import TORCH_NAMES, Model
from internvl_bridge.output_head import Head, SameBits, output_head
from internvl_bridge.weights import same_bits


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A proved plan, and what the tensors say that config.json cannot overrule.

    ``head`` is what the source's output head is, and ``tie`` how the output spells it. ``mxfp4``: experts are
    stored in 4-bit blocks.
    """

    plan: Plan
    head: Head
    tie: TiedHead
    mxfp4: bool

    @property
    def tied(self) -> bool:
        """Whether the input embeddings serve as output head, however often they are stored."""
        return self.head is not Head.OWN

    @property
    def adds_head(self) -> bool:
        """Whether the output has a copy of the embeddings that the source does not have."""
        return self.head is Head.SHARED and self.tie.head in self.plan.recipes

    @property
    def drops_head(self) -> bool:
        """Whether the source has a copy of the embeddings that the output does not have."""
        return self.head is Head.COPY and self.tie.head not in self.plan.recipes


def plan_tensors(
    model: Described,
    specs: Mapping[str, TensorSpec],
    route: tuple[Keys, Keys],
    same: SameBits,
    *,
    stores_copy: bool,
) -> ModelPlan:
    """Plan the conversion of ``specs`` along ``route``, checked against config.json and proved.

    ``stores_copy``: where the input embeddings serve as output head, the target stores a copy of them. Raises
    what :func:`internvl_bridge.checked_plan.checked_plan` raises.
    """
    source, target = route
    here, there = (tied_head(model.family, model.dims.text, keys) for keys in route)
    head = output_head(model, specs, source, same)
    if head is Head.COPY and not stores_copy:
        specs = here.dropped(specs)
    checked = checked_plan(model, specs, source, target)
    plan = there.copied(checked.plan) if head is Head.SHARED and stores_copy else checked.plan
    return ModelPlan(plan, head, there, checked.mxfp4)


def plan_model(model: Model, target: Keys, *, stores_copy: bool) -> ModelPlan:
    """As :func:`plan_tensors`, for a checkpoint on disk.

    Reads its embeddings if only their bits tell whether the output head is a copy of them. Raises
    UnsupportedModelError, too, for dtypes that mean quantised weights.
    """
    same = partial(same_bits, model.weights)
    planned = plan_tensors(model.described, model.specs, (model.keys, target), same, stores_copy=stores_copy)
    check_dtypes(model, mxfp4=planned.mxfp4)
    return planned


def check_dtypes(model: Model, *, mxfp4: bool) -> None:
    """Raise UnsupportedModelError for dtypes that mean quantised weights."""
    for key, spec in model.specs.items():
        packed = mxfp4 and key.endswith(("_blocks", "_scales"))
        if (spec.dtype == "U8") if packed else (spec.dtype in TORCH_NAMES):
            continue
        raise UnsupportedModelError(
            f"{key} has dtype {spec.dtype}: either the checkpoint is quantised, or the tensor is no weight.",
            "Convert a checkpoint in BF16, F16, F32 or F64 (GPT-OSS experts may be MXFP4 blocks in U8).",
        )
