"""Convert one directory into another: what callers of the library use."""

from collections.abc import Collection
from pathlib import Path

from internvl_bridge.convert.options import Execution, ExpertsOption, Layout, Options, Order, Tied
from internvl_bridge.convert.prepare import prepare
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.convert.run import carry_out
from internvl_bridge.mapping.formats import Format
from internvl_bridge.work.progress import Progress, silent


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
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    accept: Collection[str] = (),
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

    ``output`` appears complete and verified, or not at all. What a run that was stopped has finished is kept beside
    it, and the same call goes on from there, unless ``restart`` throws it away; ``overwrite`` replaces an ``output``
    that exists, once the new one is complete. ``workers`` files are written at a time. ``accept`` has names with
    which refusals say that they can be lifted. Raises a BridgeError that names file, key and remedy for anything that
    is not fully understood, and DifferenceError if what was written is not what was read.
    """
    options = Options(
        reference=reference,
        tokenizer=tokenizer,
        system_message=system_message,
        layout=layout,
        experts=experts,
        max_shard_size=max_shard_size,
        order=order,
    )
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept))
    return carry_out(prepare(source, output, (Format.CUSTOM, Format.HF), options, execution), progress)


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
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    accept: Collection[str] = (),
    progress: Progress = silent,
) -> ConversionReport:
    """Convert the HF checkpoint ``source`` into the custom format of InternVL's own training code.

    As :func:`to_hf`, the other way round, from any spelling of HF keys. A model whose input embeddings serve as
    output head gets a copy of them for one (unless the sidecar remembers a custom checkpoint without), which
    :func:`to_hf` drops again as long as it is equal; ``tied="copy"`` and ``tied="keep"`` (no head) decide it.
    What HF's config does not state (the template, the tiling, whether a Llama was an InternLM2) comes from
    ``reference``, a custom checkpoint, or from a sidecar in ``source``; else from the defaults that the notes name.
    """
    options = Options(
        reference=reference,
        tokenizer=tokenizer,
        tied=tied,
        max_shard_size=max_shard_size,
        order=order,
    )
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept))
    return carry_out(prepare(source, output, (Format.HF, Format.CUSTOM), options, execution), progress)


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
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    accept: Collection[str] = (),
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
    )
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept))
    return carry_out(prepare(source, output, (Format.HF, Format.HF), options, execution), progress)
