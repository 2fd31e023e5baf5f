"""Decide everything about a merge or a cast: which tensors of a checkpoint are computed, and of what."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from internvl_bridge.checkpoint.adapters import read_adapter
from internvl_bridge.checkpoint.byte_ranges import in_source_shards, target_tensor
from internvl_bridge.checkpoint.computed_tensors import AdapterTensors, computed_tensor
from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.model_plan import not_merged
from internvl_bridge.checkpoint.weights import stored_plan, tensor_locations
from internvl_bridge.checkpoint.wrapped_adapter import wrapped_adapter
from internvl_bridge.convert.computation import Computation
from internvl_bridge.convert.integrity import notes_on_adapter
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.same_format import Opened, Weights, conversion_of, open_source
from internvl_bridge.errors import OptionError
from internvl_bridge.mapping.lora.changes import TensorChange
from internvl_bridge.mapping.packing import packed_dtypes
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.config.edited import edited_config
from internvl_bridge.metadata.json_files import is_present
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.notes import Warn
from internvl_bridge.planning.merge_plan import FLOATS, BaseModel, MergePlan, Same, StatedAdapter, plan_merge
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.output_place import check_apart
from internvl_bridge.storage.output_shards import ShardContents, TargetTensor
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import Shard
from internvl_bridge.work.progress import nothing

_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_WIDER = {"BF16": ("F32", "F64"), "F16": ("F32", "F64"), "F32": ("F64",)}
"""The dtypes that hold every number of another one."""
_NOTHING = MergePlan({}, {}, unties=False, notes=())


@dataclass(frozen=True, slots=True)
class _Adapters:
    """The adapters to merge: what their headers state, where their tensors are, and the files that hold them."""

    stated: tuple[StatedAdapter, ...] = ()
    tensors: tuple[AdapterTensors, ...] = ()
    shards: tuple[Shard, ...] = ()
    crcs: Mapping[ByteRange, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def prepare_merge(source: Path, output: Path, options: Options, execution: Execution) -> Conversion:
    """Decide everything about merging adapters into ``source``, those beside its weights included; write nothing.

    Raises OptionError if there is none, or if nothing says how one is scaled.
    """
    opened = open_source(source, [output], options, execution)
    adapters = _adapters(opened.model, options, output, execution.accept)
    if not adapters.stated:
        raise OptionError(
            f"{source} holds no adapter beside its weights, and none is given.", "Add --adapter DIR (adapters=[...])."
        )
    model, planned = opened.model, opened.planned
    base = BaseModel(model.description, model.specs, model.keys, planned.head, planned.tie)
    merge = plan_merge(base, adapters.stated, options.transformers, _same(model, adapters))
    return _decided("merge", opened, output, merge, adapters)


def prepare_cast(source: Path, output: Path, options: Options, execution: Execution) -> Conversion:
    """Decide everything about casting ``source`` to another dtype; write nothing."""
    opened = open_source(source, [output], options, execution)
    if opened.model.is_unwrapped:
        raise not_merged(opened.model)
    return _decided("cast", opened, output, _NOTHING, _Adapters())


def _adapters(model: Model, options: Options, output: Path, accepted: Collection[str]) -> _Adapters:
    """The adapters to merge: the one beside the weights first, then those that are given."""
    found = _Adapters()
    if model.is_unwrapped:
        own = wrapped_adapter(model, options.alpha)
        found = _Adapters((own.stated,), (own.tensors,), notes=own.notes)
    elif options.alpha is not None:
        raise OptionError(
            f"alpha is for factors beside the weights, and {model.source.weights} has none. An adapter's own config "
            f"states its alpha.",
            "Leave out --alpha.",
        )
    for place in map(Path, options.adapters):
        check_apart(output, place, "adapter")
        _check_adapter(place)
        adapter = read_adapter(place)
        stated = StatedAdapter(str(place), adapter.specs, adapter.config, adapter.config.scaling_of)
        found = _Adapters(
            (*found.stated, stated),
            (*found.tensors, adapter.checkpoint.tensors),
            (*found.shards, *adapter.checkpoint.shards),
            {**found.crcs, **adapter.crcs},
            (*found.notes, *notes_on_adapter(adapter, accepted)),
        )
    return found


def _same(model: Model, adapters: _Adapters) -> Same:
    """Looks whether what replaces a tensor of ``model`` as a whole has the same elements, be it in a wider dtype."""
    located = tensor_locations(model.weights)

    def same(number: int, key: str, change: TensorChange) -> bool:
        ours = located.get(key)
        theirs = adapters.tensors[number][change.replaced[0].key]
        if ours is None or ours.shape != theirs.shape or theirs.dtype not in {ours.dtype, *_WIDER.get(ours.dtype, ())}:
            return False
        from internvl_bridge.checkpoint.computed_files import ComputedFiles  # imports torch  # noqa: PLC0415

        cast = computed_tensor(key, theirs.dtype, TargetTensor(ours.dtype, ours.shape, ours.ranges))
        with FileReader(ComputedFiles({cast.path: cast})) as one, FileReader() as other:
            left, right = one.windows(cast.target.ranges), other.windows(theirs.ranges, buffers=2)
            return first_difference(left, right, nothing) is None

    return same


def _check_adapter(place: Path) -> None:
    """Raise OptionError for what is given as an adapter and is something else."""
    if not place.is_dir():
        refusal = not_a_directory(place)
        raise OptionError(f"For --adapter: {refusal.reason}", refusal.remedy)
    if not is_present(place / ADAPTER_CONFIG):
        raise OptionError(
            f"{place} holds no {ADAPTER_CONFIG}, so it is not an adapter as PEFT saves it.",
            "Give the directory of an adapter (--adapter DIR, adapters=[...]).",
        )


def _decided(command: str, opened: Opened, output: Path, merge: MergePlan, adapters: _Adapters) -> Conversion:
    """A merge or a cast: how each tensor is made, in the shards of the source."""
    model, dtype = opened.model, opened.options.dtype
    planned = replace(opened.planned, plan=merge.plan_with_head(opened.planned))
    stored = stored_plan(planned.plan, model.weights)
    dtypes = {} if dtype is None else _cast(model, planned, _DTYPES[dtype])
    made = {
        key: computed_tensor(
            key,
            dtypes.get(key, recipe.spec.dtype),
            target_tensor(recipe, model.checkpoint),
            merge.changes.get(key, ()),
            adapters.tensors,
        )
        for key, recipe in stored.recipes.items()
    }
    targets = {key: tensor.target for key, tensor in made.items()}
    shards = [
        ShardContents({key: targets[key] for key in shard.tensors}, shard.metadata)
        for shard in in_source_shards(stored, model.checkpoint)
    ]
    computed = {key: tensor for key, tensor in made.items() if not tensor.is_moved}
    computation = Computation(computed, merge.modules, adapters.shards, adapters.crcs, dtype)
    config = edited_config(model.description, dtype=dtype, is_merged=bool(adapters.stated), unties=merge.unties)
    told = (*adapters.notes, *merge.notes, *_notes_on_cast(planned, computation))
    return conversion_of(command, opened, output, Weights(planned, shards, computation, targets), config, told)


def _cast(model: Model, planned: ModelPlan, dtype: str) -> Mapping[str, str]:
    """``dtype`` for each tensor that is cast: weights, but none of what makes up a quantised one."""
    packed = {} if planned.packed is None else packed_dtypes(planned.packed.packing, model.specs)
    return {key: dtype for key, spec in planned.plan.targets.items() if spec.dtype in FLOATS and key not in packed}


def _notes_on_cast(planned: ModelPlan, computation: Computation) -> Iterator[str]:
    if computation.dtype is None:
        return
    if planned.packed is not None:
        yield (
            f"The model is quantised ({planned.packed.packing.name}). What makes up a quantised weight is copied as it "
            f"is, the rest is {computation.dtype}."
        )
    if not computation.tensors:
        yield Warn(f"All weights are in {computation.dtype} already: the output has the same bytes.")
