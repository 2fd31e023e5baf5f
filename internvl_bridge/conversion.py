"""Convert one directory into another: copy, verify and publish what was prepared."""

from pathlib import Path

from internvl_bridge.byte_plan import target_tensors
from internvl_bridge.errors import DifferenceError
from internvl_bridge.metadata.config_file import Format
from internvl_bridge.options import ExpertsOption, Layout, Options, Order, Tied
from internvl_bridge.preparation import Conversion, prepare
from internvl_bridge.progress import Progress, silent
from internvl_bridge.report import ConversionReport
from internvl_bridge.storage.checkpoint import INDEX_FILE, open_checkpoint
from internvl_bridge.storage.copying import write_file
from internvl_bridge.storage.publishing import copy_file, publishing, write_bytes, write_json
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.verification import Comparison, compare
from internvl_bridge.verify_directories import compare_models
from internvl_bridge.weights import holds_weights, stored_plan


def to_hf(
    source: str | Path,
    output: str | Path,
    *,
    reference: str | Path | None = None,
    tokenizer: str | Path | None = None,
    system_message: str | None = None,
    layout: Layout = "l1",
    experts: ExpertsOption = "split",
    max_shard_size: int | str | None = None,
    order: Order = "source",
    verify: bool = True,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert the custom checkpoint ``source`` into a directory that transformers loads.

    Copies byte ranges in bounded memory; imports neither torch nor transformers, except to measure
    distances to ``reference``, an HF checkpoint to compare with (and to take unstated config from).
    ``tokenizer`` is a directory to take tokenizer files from instead of ``source``. The chat template renders
    ``system_message`` for conversations that bring none: by default upstream's, with "none" none. Keys are spelled
    as every transformers from 4.52 on reads them, unless ``layout="l2"`` (that of ``model.state_dict()``) or
    ``experts="fused"`` (one tensor for all experts of a layer of Qwen3-MoE) say otherwise. Shards and their
    physical order are those of ``source``, unless ``max_shard_size`` (bytes, or for instance "5GB")
    or ``order="name"`` (the order of ``safetensors.torch.save``) say otherwise.

    ``output`` appears complete and verified, or not at all. Raises a BridgeError that names file, key
    and remedy for anything that is not fully understood, and DifferenceError if what was written is
    not what was read.
    """
    options = Options(
        reference=reference,
        tokenizer=tokenizer,
        system_message=system_message,
        layout=layout,
        experts=experts,
        max_shard_size=max_shard_size,
        order=order,
        verify=verify,
    )
    return carry_out(prepare(source, output, (Format.CUSTOM, Format.HF), options), progress)


def to_custom(
    source: str | Path,
    output: str | Path,
    *,
    reference: str | Path | None = None,
    tokenizer: str | Path | None = None,
    tied: Tied | None = None,
    max_shard_size: int | str | None = None,
    order: Order = "source",
    verify: bool = True,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert the HF checkpoint ``source`` into the custom format of InternVL's own training code.

    As :func:`to_hf`, the other way round, from any spelling of HF keys. A model whose input embeddings serve as
    output head gets a copy of them for one (unless the sidecar remembers a custom checkpoint without), which
    :func:`to_hf` drops again as long as it is equal; ``tied="copy"`` and ``tied="keep"`` (no head) say so themselves.
    ``reference``, a custom checkpoint, also tells what HF's
    config cannot: the template, the tiling, whether a Llama was an InternLM2; without it a sidecar in
    ``source`` does, else the defaults that the report's notes name.
    """
    options = Options(
        reference=reference,
        tokenizer=tokenizer,
        tied=tied,
        max_shard_size=max_shard_size,
        order=order,
        verify=verify,
    )
    return carry_out(prepare(source, output, (Format.HF, Format.CUSTOM), options), progress)


def repair(
    source: str | Path,
    output: str | Path,
    *,
    tokenizer: str | Path | None = None,
    system_message: str | None = None,
    layout: Layout = "l1",
    experts: ExpertsOption = "split",
    max_shard_size: int | str | None = None,
    order: Order = "source",
    verify: bool = True,
    progress: Progress = silent,
) -> ConversionReport:
    """Make the HF checkpoint ``source``, in any spelling, one that every transformers from 4.52 on loads.

    Keys as all versions read them, one tensor per expert, a config.json in both spellings, and a complete
    processor; no bit of a tensor changes, and repairing once more changes nothing. The arguments are those of
    :func:`to_hf`. What cannot be brought back (weights that an old version of transformers replaced by random
    ones) is named in the report's notes.
    """
    options = Options(
        tokenizer=tokenizer,
        system_message=system_message,
        layout=layout,
        experts=experts,
        max_shard_size=max_shard_size,
        order=order,
        verify=verify,
    )
    return carry_out(prepare(source, output, (Format.HF, Format.HF), options), progress)


def carry_out(conversion: Conversion, progress: Progress = silent) -> ConversionReport:
    """Write what was decided: complete, verified (unless told not to) and then published by a rename."""
    model, output = conversion.model, conversion.output
    verification = None
    with publishing(output) as partial:
        for path in conversion.copies:
            copy_file(path, partial / path.name)
        for name, text in conversion.texts.items():
            write_bytes(partial / name, text.encode())
        if conversion.index is not None:
            write_json(partial / INDEX_FILE, conversion.index)
        advance = progress("Converting", conversion.data_bytes)
        with FileReader() as readers:
            for job in conversion.jobs:
                write_file(partial, job, readers, advance)
        if conversion.verify:
            expected = target_tensors(stored_plan(conversion.plan, model.weights), model.checkpoint)
            written = open_checkpoint(partial).tensors
            verification = compare(expected, written, progress("Verifying", conversion.data_bytes))
            if not verification.identical:
                raise DifferenceError(_describe_failure(verification), _DAMAGED_OUTPUT)
    return ConversionReport(
        source=model.directory,
        output=output,
        format=conversion.wanted.value,
        found=conversion.found,
        family=model.described.family.name,
        tensors=len(conversion.plan.recipes),
        bytes=conversion.data_bytes,
        files=conversion.files,
        left_behind=conversion.left_behind,
        notes=conversion.notes,
        verification=verification,
        reference=_compare_with_reference(output, conversion.reference, progress),
    )


def _compare_with_reference(output: Path, reference: Path | None, progress: Progress) -> Comparison | None:
    if reference is None or not holds_weights(reference):
        return None
    return compare_models(output, reference, progress)


def _describe_failure(comparison: Comparison) -> str:
    if comparison.differences:
        first = comparison.differences[0]
        return (
            f"What was written is not what was read: {len(comparison.differences)} tensors differ, first "
            f"{first.key} at element {first.element}."
        )
    wrong = (*comparison.missing, *comparison.unexpected, *comparison.mismatched)
    return f"What was written is not what was planned: {', '.join(wrong[:3])}."


_DAMAGED_OUTPUT = (
    "The output was removed. The disk or the memory of this machine may be failing, or another program "
    "changed the source meanwhile: check both, then convert again."
)
