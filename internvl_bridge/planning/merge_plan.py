"""Plan what becomes of a checkpoint's tensors where adapters are merged into it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from internvl_bridge.errors import ContradictionError, TensorError, UnsupportedModelError, first_few
from internvl_bridge.mapping.families import GPT_OSS
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.changes import TensorChange, changes_of
from internvl_bridge.mapping.lora.factors import Scaling
from internvl_bridge.mapping.lora.keys import Part, parsed_key
from internvl_bridge.mapping.lora.lifting import lift
from internvl_bridge.mapping.lora.packing import packed_adapter
from internvl_bridge.mapping.lora.stored import Adapter, Reading, stored_adapter
from internvl_bridge.mapping.lora.wrapped import modules_of
from internvl_bridge.mapping.plan import Plan, TensorSpec, identity
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.spellings import L2, KeySpelling
from internvl_bridge.mapping.tied_head import TiedHead
from internvl_bridge.metadata.adapter_config import AdapterConfig, converted_config
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.trained_lora import ScalingOfNames
from internvl_bridge.notes import Warn
from internvl_bridge.planning.adapter_plan import adapter_spelling, base_tensors, experts_way, other_names
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.planning.tensor_plan import ModelPlan

Specs = Mapping[str, TensorSpec]
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes of weights that are computed with."""


@dataclass(frozen=True, slots=True)
class StatedAdapter:
    """An adapter as its headers and its config state it; ``name`` is what messages call it.

    ``scaling_of`` gives the scaling of its modules: most often what the config says.
    """

    name: str
    specs: Specs
    config: AdapterConfig
    scaling_of: ScalingOfNames


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The checkpoint that adapters are merged into: its tensors ``specs``, how their ``keys`` are spelled.

    ``head`` is what its output head is, and ``tie`` the keys of that and of its embeddings.
    """

    description: ModelDescription
    specs: Specs
    keys: KeySpelling
    head: OutputHead
    tie: TiedHead


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What adapters change, by the key of the tensor: the number of each adapter, and its change.

    ``modules`` are those that were merged, and by what each product of factors is multiplied. ``unties``: the output
    head is a tensor of its own afterwards, and was the input embeddings before.
    """

    changes: Mapping[str, tuple[tuple[int, TensorChange], ...]]
    modules: Mapping[str, tuple[Scaling, ...]]
    unties: bool
    notes: tuple[str, ...]

    def plan_with_head(self, planned: ModelPlan) -> Plan:
        """The plan, with an output head that begins as the input embeddings where it becomes a tensor of its own."""
        is_there = planned.tie.head in planned.plan.recipes
        return planned.tie.copied(planned.plan) if self.unties and not is_there else planned.plan


Same = Callable[[int, str, TensorChange], bool]
"""Whether the tensor of the adapter of that number which replaces the tensor of that key has the same bits."""


def plan_merge(
    base: BaseModel, adapters: Sequence[StatedAdapter], transformers: int = 5, same: Same = lambda *_: False
) -> MergePlan:
    """Plan to merge ``adapters`` of either format into ``base``; sums do not depend on the format.

    ``transformers`` is the major version that adapters of experts are for, where shapes do not show it. ``same`` finds
    what replaces nothing: with factors of embeddings, PEFT saves these, too. Raises UnknownKeyError or
    ContradictionError for tensors that do not fit the base, or are not all there. Raises UnsupportedModelError for DoRA
    beside another adapter, and for weights that are quantised.
    """
    changes: dict[str, list[tuple[int, TensorChange]]] = {}
    modules: dict[str, list[Scaling]] = {}
    notes: list[str] = []
    mirrored: list[bool] = []
    for number, stated in enumerate(adapters):
        if not stated.specs:
            raise ContradictionError(
                f"The adapter in {stated.name} has no tensors.", "It is incomplete: save or copy it again."
            )
        here = adapter_spelling(stated.specs, stated.config, base.description, base.keys.format)
        plan = _plan(base, here)
        found = _understood(stated, base, here, transformers)
        _check_complete(stated, found, plan.sources)
        tokens = {name: _rows_of(stated.config, name) for name in found.tokens}
        for key, change in changes_of(found, plan, tokens).items():
            if change.rows and change.replaces(plan.recipes[key].spec.elements):
                if same(number, key, change):
                    change = replace(change, replaced=())  # noqa: PLW2901 (what is left of it)
                else:
                    notes.append(_on_own_copy(stated.name, key))
            changes.setdefault(key, []).append((number, change))
        for name, scaling in _modules(found):
            modules.setdefault(name, []).append(scaling)
        mirrored.append(bool(stated.config.values.get("ensure_weight_tying")) or bool(found.tokens))
        if found.guessed and base.description.family is GPT_OSS and here.format is Format.HF:
            notes.append(_on_guess(stated.name, transformers))
    _check_alone(changes, adapters)
    _check_replaced_once(changes, adapters)
    unties = _untie(changes, base, mirrored)
    _check_stored(changes, base)
    if unties:
        notes.append(_on_head(base))
    return MergePlan(
        {key: tuple(found) for key, found in sorted(changes.items())},
        {name: tuple(found) for name, found in sorted(modules.items())},
        unties,
        tuple(notes),
    )


def _understood(stated: StatedAdapter, base: BaseModel, here: KeySpelling, transformers: int) -> Adapter:
    others = other_names(here)
    reading = Reading(
        lambda module, rank: stated.scaling_of(module, rank, others(module)),
        stated.config.parameters,
        experts_way(base.description.family, here, transformers),
    )
    try:
        return stored_adapter(stated.specs, base_tensors(base.description, here), reading)
    except TensorError as error:
        raise type(error)(f"In {stated.name}: {error.reason}", error.remedy) from error


def _check_complete(stated: StatedAdapter, found: Adapter, base: Specs) -> None:
    """Raise ContradictionError unless the adapter has all that its config names."""
    incomplete = "The adapter is incomplete: save or copy it again."
    values = stated.config.values
    if values.get("use_dora"):
        without = [m.key for m, lora in found.matrices.items() if m.expert is None and Part.MAGNITUDE not in lora.rows]
        if without:
            raise ContradictionError(
                f"{stated.name} is of DoRA by its config, but has no magnitudes for {first_few(without)}.", incomplete
            )
    if values.get("modules_to_save"):
        modules = {module for key in base for module in modules_of(key)}
        saved = {module for key in found.whole for module in modules_of(key)}
        for name in values["modules_to_save"]:
            meant = {module for module in modules if f".{module}".endswith(f".{name}")}
            if meant and meant.isdisjoint(saved):
                raise ContradictionError(
                    f"{stated.name} should hold the module {name} by its config (modules_to_save), and does not.",
                    incomplete,
                )


def _plan(base: BaseModel, here: KeySpelling) -> Plan:
    tensors = base_tensors(base.description, here)
    if here == base.keys:
        return identity(tensors)
    return plan_route(Route(base.description.family, base.description.dims.text, here, base.keys), tensors)


def _rows_of(config: AdapterConfig, weight: str) -> tuple[int, ...]:
    """The tokens whose rows of ``weight`` were trained; none where the config does not say which."""
    stated = config.values.get("trainable_token_indices")
    if isinstance(stated, dict):
        module = weight.removesuffix(".weight")
        stated = next((indices for name, indices in stated.items() if module.endswith(name)), None)
    rows = stated if isinstance(stated, list) else []
    return tuple(row for row in rows if type(row) is int)


def _modules(adapter: Adapter) -> Iterator[tuple[str, Scaling]]:
    """The modules that have factors, each once: experts in one parameter count as one."""
    seen = {matrix.key: lora.scaling for matrix, lora in adapter.matrices.items()}
    seen |= {weight: changed.scaling for weight, changed in adapter.renamed.items()}
    return ((key.removesuffix(".weight"), scaling) for key, scaling in seen.items())


def _check_alone(changes: Mapping[str, Sequence[tuple[int, TensorChange]]], adapters: Sequence[StatedAdapter]) -> None:
    if len(adapters) < 2:
        return
    for key, found in changes.items():
        for number, change in found:
            if any(rows.magnitude for rows in change.rows):
                raise UnsupportedModelError(
                    f"{adapters[number].name} changes {key} with DoRA, which scales what it finds. Beside another "
                    f"adapter the result would depend on their order.",
                    "Merge it alone, and the others into the result.",
                )


def _check_replaced_once(
    changes: Mapping[str, Sequence[tuple[int, TensorChange]]], adapters: Sequence[StatedAdapter]
) -> None:
    for key, found in changes.items():
        replacing = [adapters[number].name for number, change in found if change.replaced]
        if len(replacing) > 1:
            raise UnsupportedModelError(
                f"{first_few(replacing)} replace {key}. Only one of them can.",
                "Merge only one of them.",
            )


def _untie(changes: dict[str, list[tuple[int, TensorChange]]], base: BaseModel, mirrored: Sequence[bool]) -> bool:
    """Whether the head becomes a tensor of its own, as only one of both changes.

    PEFT trains tokens of both at once, and modules where ensure_weight_tying is set (peft 0.21, tuners/tuners_utils).
    """
    if base.head is OutputHead.OWN:
        return False
    embeddings, head = changes.get(base.tie.embeddings, []), changes.get(base.tie.head, [])
    has_factors = {number for number, change in head if change.rows}  # then those of the embeddings are not meant twice
    of_both = [
        (number, change)
        for number, change in embeddings
        if mirrored[number] and not (change.rows and number in has_factors)
    ]
    stays_tied = not head and of_both == embeddings
    if head + of_both and not (stays_tied and base.head is OutputHead.SHARED):
        changes[base.tie.head] = head + of_both  # trained tokens count, whatever was replaced as a whole
    return not stays_tied


def _check_stored(changes: Collection[str], base: BaseModel) -> None:
    """Raise UnsupportedModelError for a weight that is quantised."""
    for key in changes:
        if key == base.tie.head and base.head is OutputHead.SHARED:
            continue
        spec = base.specs.get(key)
        if spec is None or spec.dtype not in FLOATS:
            raise UnsupportedModelError(
                f"The adapter changes {key}, which the base model has quantised. A sum of it cannot be stored.",
                "Merge the adapter into the base model before it was quantised, and quantise the result.",
            )


def _on_head(base: BaseModel) -> str:
    return Warn(
        f"The model was tied: its input embeddings served as output head. The adapter changes one of them. The output "
        f"has {base.tie.head} as a tensor of its own, and its config.json says tie_word_embeddings false."
    )


def _on_own_copy(name: str, key: str) -> str:
    return Warn(
        f"{name} has its own copy of {key} beside the factors, which differs from the base's. The copy takes its "
        f"place, as in PEFT: what another adapter or a training made of the base's is lost."
    )


def _on_guess(name: str, version: int) -> str:
    return Warn(
        f"The experts' matrices are square: their shapes do not show for which transformers {name} was made. It is "
        f"taken for one of transformers {version} (--transformers)."
    )


@dataclass(frozen=True, slots=True)
class ExtractedAdapter:
    """An adapter that was found beside weights, as PEFT stores it: where its tensors are from, and its config.

    ``tensors`` are the keys that they were found by, by those that they get.
    """

    tensors: Mapping[str, str]
    config: Mapping[str, Any]


def plan_extraction(stated: StatedAdapter, base: ModelDescription, keys: KeySpelling, path: str) -> ExtractedAdapter:
    """Plan the adapter that was found beside the weights of ``base``, which are at ``path`` afterwards.

    Modules of an HF model get the names that they have in transformers 5. Of an adapter whose training nothing
    describes, ranks and alphas are those of its modules. Raises as :func:`plan_merge`.
    """
    tensors, others = base_tensors(base, keys), other_names(keys)
    there = keys if keys.format is Format.CUSTOM else KeySpelling(L2, keys.experts)
    plan = identity(tensors) if there == keys else plan_route(Route(base.family, base.dims.text, keys, there), tensors)
    way = experts_way(base.family, keys, 5)
    reading = Reading(
        lambda module, rank: stated.scaling_of(module, rank, others(module)), stated.config.parameters, way
    )
    adapter = stored_adapter(stated.specs, tensors, reading)
    _check_complete(stated, adapter, tensors)
    dtypes = {key: spec.dtype for key, spec in stated.specs.items()}
    packed = packed_adapter(lift(adapter, plan), plan.targets, dtypes, way)
    found = {key: made.blocks[0].source.key for key, made in packed.factors.items()} | {**packed.renamed}
    found |= {key: adapter.whole[made.runs[0].key][0] for key, made in packed.whole.items()}
    scalings = Counter([*packed.modules.values(), *packed.parameters.values()])
    usual = scalings.most_common(1)[0][0] if scalings else Scaling(1, 1, is_rslora=False)
    parts = {parsed_key(key).part for key in stated.specs}
    values = {
        **stated.config.values,
        "auto_mapping": {},
        "r": usual.rank,
        "lora_alpha": usual.alpha,
        "use_dora": Part.MAGNITUDE in parts,
        "lora_bias": Part.BIAS in parts,
    }
    config = AdapterConfig(replace(stated.config.file, values=values))
    return ExtractedAdapter(found, converted_config(config, packed, plan.targets, keys.format, path))
