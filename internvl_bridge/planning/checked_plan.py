"""Plan a conversion of tensors that are exactly those which config.json describes, and prove it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from internvl_bridge.errors import ContradictionError
from internvl_bridge.mapping.families import Experts
from internvl_bridge.mapping.make_plan import prove
from internvl_bridge.mapping.packing import Packed, Packing, packed, packed_schema, packing_in
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.schema import HEAD, hf_schema
from internvl_bridge.mapping.schema_check import check_against
from internvl_bridge.mapping.spellings import MOST_COMPATIBLE, KeySpelling
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.unsupported import check_expressible

Specs = Mapping[str, TensorSpec]

_MOST_EXPERTS = 200_000
"""In all layers together; the largest release has 12,032."""
_MOST_LAYERS = 10_000
"""In one tower; the largest release has 94."""


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A proved plan, and how the keys say that the language model is quantised; None if it is not."""

    plan: Plan
    packed: Packed | None


def checked_plan(model: ModelDescription, specs: Specs, source: KeySpelling, target: KeySpelling) -> CheckedPlan:
    """Plan the conversion of all tensors of ``model`` from keys spelled as ``source`` into those of ``target``.

    ``model`` may be described in either format. Raises UnsupportedModelError for what the other format
    cannot express, and UnknownKeyError, IncompleteGroupError, MissingKeyError or ContradictionError,
    naming keys of ``specs``; ProofError if converting back would not restore every element.
    """
    if source.format is not target.format:
        check_expressible(model)
    _check_sizes(model, specs, fused=source.experts is Experts.FUSED)
    _check_experts(model)
    route = Route(model.family, model.dims.text, source, target)
    direct = MOST_COMPATIBLE in (source, target)  # then one plan says what is expected and what to do
    plan = plan_route(route if direct else replace(route, target=MOST_COMPATIBLE), specs)
    l1_specs = specs if source == MOST_COMPATIBLE else plan.targets
    packing = packing_in(l1_specs)
    if schema := _other_schema(model, l1_specs, packing):
        expected = plan_route(replace(route, source=MOST_COMPATIBLE, target=source), schema).targets
        check_against({key: spec.shape for key, spec in expected.items()}, specs)
    if not direct:
        plan = plan_route(route, specs)
    prove(plan, partial(plan_route, route.reverse))
    return CheckedPlan(plan, None if packing is None else packed(packing, _weights(model, l1_specs), _shapes(l1_specs)))


def check_config(model: ModelDescription) -> None:
    """Refuse what config.json alone rules out between the formats, before any tensor is seen.

    Raises as :func:`checked_plan`.
    """
    check_expressible(model)
    _check_experts(model)


def described_specs(model: ModelDescription, keys: KeySpelling) -> Specs:
    """The tensors that config.json alone describes, of any dtype, spelled as ``keys``; none of them is quantised.

    A model that may be tied has no output head. Raises as :func:`check_config`.
    """
    check_config(model)
    for layers in (model.dims.vision.layers, model.dims.text.layers):
        if layers > _MOST_LAYERS:
            raise ContradictionError(
                f"{model.file.path} says that num_hidden_layers is {layers}: no model has so many.",
                "Use the config.json that this model was saved with.",
            )
    schema = _weights(model, {})
    specs = {key: TensorSpec("any", shape) for key, shape in schema.items()}
    return plan_route(Route(model.family, model.dims.text, MOST_COMPATIBLE, keys), specs).targets


def _other_schema(model: ModelDescription, l1_specs: Specs, packing: Packing | None) -> Specs | None:
    """The tensors that ``model`` has, if they are not those of ``l1_specs``; of any dtype."""
    shapes = _shapes(l1_specs)
    schema = _weights(model, l1_specs)
    if packing is not None:
        schema = packed_schema(packing, schema, shapes)
    return None if schema == shapes else {key: TensorSpec("any", shape) for key, shape in schema.items()}


def _shapes(specs: Specs) -> dict[str, tuple[int, ...]]:
    return {key: spec.shape for key, spec in specs.items()}


def _weights(model: ModelDescription, l1_specs: Specs) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that ``model`` has before its linear layers are quantised."""
    return hf_schema(model.family, model.dims, l1_specs.keys() if model.may_be_tied else l1_specs.keys() | {HEAD})


def _check_sizes(model: ModelDescription, specs: Specs, *, fused: bool) -> None:
    """Refuse what would make enumerating absurd: every layer and every expert has a tensor with elements."""
    empty = next((key for key, spec in specs.items() if 0 in spec.shape), None)
    if empty is not None:
        raise ContradictionError(
            f"{empty} has shape {list(specs[empty].shape)[:8]}, which holds nothing.",
            "The checkpoint is damaged (a sharded trainer may have saved placeholders): save it again.",
        )
    text, vision = model.dims.text, model.dims.vision
    _check_count(model, "vision_config's num_hidden_layers", vision.layers, specs)
    _check_count(model, "num_hidden_layers", text.layers, specs)
    if text.experts and model.family.split_experts and not fused:
        count = text.experts.experts * text.experts.layers_of(text.layers)
        _check_count(model, "num_experts of all layers together", count, specs)


def _check_experts(model: ModelDescription) -> None:
    """Refuse numbers of experts that would be absurd to enumerate: fused ones are not counted by their tensors."""
    text = model.dims.text
    total = text.experts.experts * text.experts.layers_of(text.layers) if text.experts else 0
    if total > _MOST_EXPERTS:
        raise ContradictionError(
            f"{model.file.path} says that num_experts of all layers together is {total}: no model has so many.",
            "Use the config.json that this checkpoint was saved with.",
        )


def _check_count(model: ModelDescription, name: str, count: int, specs: Specs) -> None:
    if count > len(specs):
        raise ContradictionError(
            f"{model.file.path} says that {name} is {count}, but the checkpoint has only {len(specs)} tensors.",
            "Use the config.json that this checkpoint was saved with.",
        )
