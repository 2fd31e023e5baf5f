"""Plan what becomes of an adapter where its base model becomes one of another format or spelling."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from internvl_bridge.errors import ContradictionError, UnknownKeyError, UnsupportedModelError, first_few
from internvl_bridge.mapping.families import FAMILIES, GPT_OSS, Experts, Family, default_family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.factors import MERGE
from internvl_bridge.mapping.lora.keys import AdapterKey, Part, parsed_key
from internvl_bridge.mapping.lora.lifting import Findings, fused_ranks, lift
from internvl_bridge.mapping.lora.packing import PackedAdapter, packed_adapter
from internvl_bridge.mapping.lora.stored import STACKED, Adapter, Matrix, Orientation, Reading, stored_adapter
from internvl_bridge.mapping.make_plan import prove
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.schema import HEAD, hf_schema
from internvl_bridge.mapping.spellings import CUSTOM, L1, L2, MOST_COMPATIBLE, KeySpelling, respelled
from internvl_bridge.metadata.adapter_config import AdapterConfig, converted_config, notes_on_config
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.notes import Warn

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class AdapterTarget:
    """What an adapter of the format ``accepted`` shall become: its ``format``, and what it is for.

    ``transformers`` is 4 or 5: they hold experts in two ways, and neither loads an adapter for the other. ``base`` is
    the path of the base model that adapter_config.json shall name; None keeps what is there.
    """

    accepted: Format
    format: Format
    transformers: int = 5
    base: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """A converted adapter: its tensors, its config, and ``notes`` about what deserves attention.

    ``spelling`` is that of the source, ``adapter`` what its tensors were found to be. ``ranks`` are those of the parts
    of fused matrices. ``modules`` are all of the target's that PEFT could change.
    """

    spelling: KeySpelling
    adapter: Adapter
    packed: PackedAdapter
    config: Mapping[str, Any]
    ranks: Mapping[Matrix, tuple[int, ...]]
    modules: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """The keys of the tensors that each tensor of the target is made of."""
        packed, stored = self.packed, self.adapter.whole
        sources = {key: {block.source.key for block in made.blocks} for key, made in packed.factors.items()}
        sources |= {key: {source} for key, source in packed.renamed.items()}
        sources |= {key: {stored[run.key][0] for run in made.runs} for key, made in packed.whole.items()}
        return {key: tuple(sorted(found)) for key, found in sources.items()}


Look = Callable[[Adapter, Plan], Findings]
"""Looks at the values of an adapter, whose base becomes what the plan says, for what only they show."""


def plan_adapter(
    specs: Specs, config: AdapterConfig, base: ModelDescription, target: AdapterTarget, look: Look
) -> AdapterPlan:
    """Plan the conversion of an adapter with the tensors ``specs``, of the model ``base`` in either format.

    Raises UnknownKeyError or ContradictionError for tensors that do not fit the base. Raises UnsupportedModelError for
    what the target cannot say exactly. Raises ProofError if the plan of the base could not be walked back.
    """
    if not specs:
        raise ContradictionError(
            f"The adapter of {config.file.path} has no tensors.", "It is incomplete: save or copy it again."
        )
    family, dims = base.family, base.dims.text
    here = adapter_spelling(specs, config, base, target.accepted)
    if here.format is not target.accepted:
        raise _wrong_format(config, here.format)
    there = _spelling(family, target)
    route = Route(family, dims, here, there)
    ours = base_tensors(base, here)
    plan = plan_route(route, ours)
    prove(plan, partial(plan_route, route.reverse))
    others = other_names(here)
    reading = Reading(
        lambda module, rank: config.scaling_of(module, rank, others(module)),
        config.parameters,
        experts_way(family, here, target.transformers),
    )
    adapter = stored_adapter(specs, ours, reading)
    findings = look(adapter, plan)
    lifted = lift(adapter, plan, findings)
    dtypes = {key: spec.dtype for key, spec in specs.items()}
    packed = packed_adapter(lifted, plan.targets, dtypes, experts_way(family, there, target.transformers))
    _check_router(packed, there)
    made = converted_config(config, packed, plan.targets, target.format, target.base)
    notes = (
        *notes_on_config(config, made, target.format),
        *_notes_on_ranks(adapter, packed),
        *_notes_on_experts(packed, there, target.transformers),
        *_notes_on_family(base, target),
        *_notes_on_orientation(adapter, family, here, target.transformers),
    )
    weights = (key for key, spec in plan.targets.items() if key.endswith(".weight") and len(spec.shape) in {2, 4})
    modules = tuple(key.removesuffix(".weight") for key in weights)
    return AdapterPlan(here, adapter, packed, made, fused_ranks(adapter, plan, findings), modules, notes)


def read_packed(
    plan: AdapterPlan, specs: Specs, source: AdapterConfig, base: ModelDescription, target: AdapterTarget
) -> Adapter:
    """The adapter that ``plan`` makes, whose tensors have ``specs``, understood as one of ``base`` for ``target``."""
    spelling = _spelling(base.family, target)
    config = AdapterConfig(replace(source.file, values=plan.config))
    reading = Reading(config.scaling_of, config.parameters, experts_way(base.family, spelling, target.transformers))
    return stored_adapter(specs, base_tensors(base, spelling), reading)


def _spelling(family: Family, target: AdapterTarget) -> KeySpelling:
    """How the modules of adapters are called that are made here."""
    if target.format is Format.CUSTOM:
        return CUSTOM
    is_fused = target.transformers >= 5 and bool(family.split_experts)
    return KeySpelling(L2, Experts.FUSED if is_fused else Experts.SPLIT)


def adapter_spelling(
    specs: Collection[str], config: AdapterConfig, base: ModelDescription, accepted: Format
) -> KeySpelling:
    """How the modules of an adapter are spelled, which is taken for one of the format ``accepted`` if it can be.

    An adapter of the language model alone can be of both formats, unless its config says of which. Raises
    UnknownKeyError if it fits neither.
    """
    names = {key: parsed_key(key) for key in specs}
    hf = [KeySpelling(layout, experts) for layout in (L2, L1) for experts in base.family.expert_choices]
    strange: dict[KeySpelling, list[str]] = {}
    for spelling in (CUSTOM, *hf):
        known = base_tensors(base, spelling)
        strange[spelling] = [key for key, name in names.items() if not _is_in(name, known)]
    fewest = min(strange.values(), key=len)
    if fewest:
        raise _unknown(fewest, specs, base)
    found = [spelling for spelling, keys in strange.items() if not keys]
    stated = [spelling for spelling in found if spelling.format is config.format] or found
    return ([spelling for spelling in stated if spelling.format is accepted] or stated)[0]


def _wrong_format(config: AdapterConfig, format_: Format) -> UnsupportedModelError:
    other = "to-hf" if format_ is Format.CUSTOM else "to-custom"
    repair = "" if format_ is Format.CUSTOM else ", or 'internvl-bridge repair' if PEFT does not load all of it"
    return UnsupportedModelError(
        f"{config.file.path.parent} is an adapter of a model in the {format_.value} format.",
        f"Use 'internvl-bridge {other}' to convert it{repair}.",
    )


def _is_in(name: AdapterKey, base: Specs) -> bool:
    if name.part is Part.WHOLE:
        return name.name in base
    return f"{name.name}.weight" in base or any(f"{name.name}.{stacked}" in base for stacked in STACKED)


def _unknown(keys: Collection[str], specs: Collection[str], base: ModelDescription) -> UnknownKeyError:
    some = f"Only {len(specs) - len(keys)} of the adapter's {len(specs)} tensors fit"
    count = "No tensor of the adapter fits" if len(keys) == len(specs) else some
    return UnknownKeyError(
        f"{count} the model that {base.file.path} describes. Unknown are {first_few(sorted(keys))}.",
        "Give the base model that the adapter was trained on (to convert it: --base BASE, base=...).",
    )


def experts_way(family: Family, spelling: KeySpelling, transformers: int) -> Orientation:
    """How PEFT takes the experts of ``family``: classes of transformers 5 say that GPT-OSS's are transposed."""
    turned = family is GPT_OSS and spelling != CUSTOM and transformers >= 5
    return Orientation.TRANSPOSED if turned else Orientation.AS_STORED


def base_tensors(base: ModelDescription, spelling: KeySpelling) -> Specs:
    """The tensors of ``base`` as ``spelling`` has them, with a head of its own, and before they are quantised."""
    schema = hf_schema(base.family, base.dims, {HEAD})
    l1 = {key: TensorSpec("any", shape) for key, shape in schema.items()}
    if spelling == MOST_COMPATIBLE:
        return l1
    return plan_route(Route(base.family, base.dims.text, MOST_COMPATIBLE, spelling), l1).targets


def _check_router(packed: PackedAdapter, spelling: KeySpelling) -> None:
    """Refuse routers of experts that transformers 5 holds in classes that PEFT does not change."""
    routers = [module for module in packed.modules if module.endswith((".mlp.gate", ".mlp.router"))]
    if routers and spelling.experts is Experts.FUSED:
        raise UnsupportedModelError(
            f"The adapter changes routers of experts ({first_few(routers)}), which PEFT cannot "
            f"change in transformers 5.",
            f"Convert it for transformers 4 (--transformers 4). {MERGE}",
        )


def other_names(spelling: KeySpelling) -> Callable[[str], tuple[str, ...]]:
    """The names that modules of L1 have in transformers: those of L2, which patterns are written for.

    The language model of a custom checkpoint can have the names of L1, too.
    """

    def others(module: str) -> tuple[str, ...]:
        key = f"{module}.weight"
        if spelling.layout is L2 or not L1.explains(key):
            return ()
        return (respelled(key, L1, L2).removesuffix(".weight"),)

    return others


def _notes_on_orientation(adapter: Adapter, family: Family, spelling: KeySpelling, version: int) -> Iterator[str]:
    if adapter.guessed and spelling != CUSTOM and family is GPT_OSS:
        yield Warn(
            f"The experts' matrices are square: their shapes do not show for which transformers the adapter was made. "
            f"It is taken for one of transformers {version} (--transformers)."
        )


def _notes_on_family(base: ModelDescription, target: AdapterTarget) -> Iterator[str]:
    """That an HF base can be of several custom classes, of which one is taken."""
    family = base.family
    others = [known.name for known in FAMILIES if known.hf_model_type == family.hf_model_type and known is not family]
    if (
        base.format is Format.HF
        and target.format is Format.CUSTOM
        and others
        and family is default_family(family.hf_model_type)
    ):
        yield Warn(
            f"The base model is in the HF format, which has one class for {family.name} and {', '.join(others)}. It is "
            f"taken for {family.name}. If it is one of the others, give its custom checkpoint as --base."
        )


def _notes_on_ranks(adapter: Adapter, packed: PackedAdapter) -> Iterator[str]:
    before = max((lora.scaling.rank for lora in adapter.matrices.values()), default=0)
    after = max((scaling.rank for scaling in {**packed.modules, **packed.parameters}.values()), default=0)
    if after > before:
        yield Warn(
            f"The largest rank was {before} and is {after}: where modules are fused, their ranks add up. Serving "
            f"engines have a maximum (vLLM: --max-lora-rank)."
        )


def _notes_on_experts(packed: PackedAdapter, spelling: KeySpelling, transformers: int) -> Iterator[str]:
    experts = [module for module in packed.modules if ".mlp.experts." in module]
    if (packed.parameters or experts) and spelling != CUSTOM:
        other = 9 - transformers
        yield Warn(
            f"The adapter changes experts, in the way of transformers {transformers}. Version {other} loads it without "
            f"them, or not at all: convert it again with --transformers {other} for that."
        )
