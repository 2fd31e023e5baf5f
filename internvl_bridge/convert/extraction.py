"""Take an adapter out of a checkpoint that PEFT has wrapped: two outputs, its base model and the adapter."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.adapter_directory import ADAPTER_FILE
from internvl_bridge.checkpoint.byte_ranges import in_source_shards
from internvl_bridge.checkpoint.weights import stored_plan
from internvl_bridge.checkpoint.wrapped_adapter import WrappedAdapter, wrapped_adapter
from internvl_bridge.convert.conversion_report import conversion_report
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.prepare import Conversion, check_places
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.convert.run import carry_out
from internvl_bridge.convert.same_format import Weights, conversion_of, open_source
from internvl_bridge.errors import OptionError
from internvl_bridge.mapping.plan import TensorSpec, identity
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.config.edited import edited_config
from internvl_bridge.metadata.json_files import as_text
from internvl_bridge.planning.merge_plan import plan_extraction
from internvl_bridge.reporting.tables import as_html
from internvl_bridge.storage.output_shards import ShardContents, TargetTensor, by_name, output_shards
from internvl_bridge.work.progress import Progress, silent

BASE, ADAPTER = "base", "adapter"
"""The two directories of an extraction."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The result of :func:`internvl_bridge.extract`: the reports of the base model, and of the adapter."""

    base: ConversionReport
    adapter: ConversionReport

    def _repr_html_(self) -> str:
        """The reports for notebooks."""
        return as_html((*conversion_report(self.base), *conversion_report(self.adapter)))

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {"base": self.base.as_json(), "adapter": self.adapter.as_json()}


@dataclass(frozen=True, slots=True)
class PlannedExtraction:
    """Both outputs, decided; nothing has been written."""

    base: Conversion
    adapter: Conversion

    @property
    def by_name(self) -> dict[str, Conversion]:
        """Both, by what reports call them."""
        return {"base model": self.base, "adapter": self.adapter}


def prepare_extraction(source: Path, output: Path, options: Options, execution: Execution) -> PlannedExtraction:
    """Decide everything about taking the adapter out of ``source``; write nothing.

    Raises OptionError if there is none, or if nothing says how it is scaled.
    """
    opened = open_source(source, [output / BASE], options, execution)
    is_left = (output / ADAPTER).exists() and not (output / BASE).exists()
    again = replace(execution, overwrite=True) if is_left else execution  # a run was stopped between both
    check_places(output / ADAPTER, opened.inputs, again)
    model, planned = opened.model, opened.planned
    if not model.is_unwrapped:
        raise OptionError(f"{source} holds no adapter beside its weights.", "There is nothing to extract.")
    own = wrapped_adapter(model, options.alpha)
    shards = in_source_shards(stored_plan(planned.plan, model.weights), model.checkpoint)
    config = edited_config(model.description, dtype=None, is_merged=True, unties=False)
    base = conversion_of("extract", opened, output / BASE, Weights(planned, shards), config, own.notes)
    return PlannedExtraction(base, replace(_adapter(base, own, output), execution=again))


def carry_out_extraction(planned: PlannedExtraction, progress: Progress = silent) -> Extraction:
    """Write both outputs. The adapter appears just before the base model does, which takes longer.

    So where a run was stopped, the same command goes on with the base model.
    """
    reports: list[ConversionReport] = []
    base = carry_out(planned.base, progress, lambda: reports.append(carry_out(planned.adapter, progress)))
    return Extraction(base, reports[0])


def _adapter(base: Conversion, own: WrappedAdapter, output: Path) -> Conversion:
    """The second output: the adapter of the model that ``base`` is of."""
    found = plan_extraction(own.stated, base.model.description, base.model.keys, str(output / BASE))
    stored = {key: own.tensors[old] for key, old in found.tensors.items()}
    targets = {key: TargetTensor(tensor.dtype, tensor.shape, tensor.ranges) for key, tensor in stored.items()}
    [shard] = output_shards([by_name(ShardContents(targets, {"format": "pt"}))])
    return replace(
        base,
        output=output / ADAPTER,
        plan=identity({key: TensorSpec(tensor.dtype, tensor.shape) for key, tensor in stored.items()}),
        shards=(replace(shard, name=ADAPTER_FILE),),
        index=None,
        texts={ADAPTER_CONFIG: as_text(found.config)},
        copies=(),
        sidecar={},
        left_behind=(),
        warnings=(),
        notes=(),
        engines=(),
        placed=targets,
    )
