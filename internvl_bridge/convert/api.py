"""Convert one directory into another: what callers of the library use."""

from collections.abc import Collection
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.convert.adapters import prepare_adapter
from internvl_bridge.convert.at_hand import at_hand
from internvl_bridge.convert.finishing import shared_conversion
from internvl_bridge.convert.options import Execution, ExpertsOption, Layout, Options, Order, Tied
from internvl_bridge.convert.prepare import prepare
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.convert.run import carry_out
from internvl_bridge.convert.run_adapter import carry_out_adapter
from internvl_bridge.mapping.formats import Format
from internvl_bridge.storage.linking import Link
from internvl_bridge.work.progress import Progress, silent


def to_hf(
    source: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    state_dict: str | None = None,
    fill_from: str | Path | None = None,
    reference: str | Path | None = None,
    tokenizer: str | Path | None = None,
    system_message: str | None = None,
    layout: Layout = "l1",
    experts: ExpertsOption = "split",
    max_shard_size: int | str | None = None,
    order: Order = "source",
    link: Link | None = None,
    read_links: bool = False,
    verify: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    consume: bool = False,
    stream: bool = False,
    executor: Executor | None = None,
    accept: Collection[str] = (),
    base: str | Path | None = None,
    target_base: str | None = None,
    transformers: Literal[4, 5] = 5,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert the custom checkpoint ``source`` into a directory that transformers loads.

    Copies byte ranges in bounded memory. Imports neither torch nor transformers, except to measure distances to a
    reference. ``output`` appears complete and verified, or not at all.

    Args:
        source: Directory of the custom checkpoint, or its place on the hub: ``hf://owner/name[@revision][/folder]``.
        output: Directory to create, with its parents.
        config: Directory of config.json and the tokenizer, if they are not in ``source``.
        state_dict: Which model is meant, where ``source`` holds several, such as a model and its average.
        fill_from: Directory of a checkpoint of either format. Tensors that ``source`` lacks are taken from it.
        reference: Directory of an HF checkpoint to compare the output with. Its config.json is kept where it means the
            same as that of ``source``.
        tokenizer: Directory to take the tokenizer's files from, instead of ``source``.
        system_message: What the chat template renders for conversations without a system message. By default
            upstream's; "none" stands for none.
        layout: How HF keys begin: "l1" as every transformers from 4.52 on reads them, "l2" as in
            ``model.state_dict()``.
        experts: The experts of Qwen3-MoE: "split" into one tensor each, or "fused" into one for all of a layer.
        max_shard_size: Size of the files of weights, in bytes or as a text such as "5GB". By default the shards and
            their order are those of ``source``.
        order: Order of the tensors in a file: "source", or "name" as ``safetensors.torch.save`` has it.
        link: Let files of weights that equal a file of ``source`` be "hard" or "symbolic" links to it, instead of
            writing them. A program that writes into a linked file changes ``source`` and ``output`` alike.
        read_links: Read the files that are linked, to take their checksums.
        verify: Read the output back and compare it with the source, bit for bit.
        workers: Files to write at a time. By default one for each core, at most four.
        overwrite: Replace an ``output`` that exists, if it is a checkpoint and holds nothing else, once the new one is
            complete.
        restart: Throw away what a run that was stopped has finished. By default the same call goes on from there.
        consume: Delete each file of weights in ``source`` as soon as ``output`` has its tensors, read back and
            compared. If it is stopped, the same call goes on. Nobody is asked.
        stream: Read a ``source`` on the hub by ranges, and keep no copy of it. By default it is downloaded into
            huggingface_hub's cache.
        executor: What writes the files of weights: any :class:`concurrent.futures.Executor`, of threads, of processes,
            or of other machines that see ``source`` and ``output`` under the same paths. Unless ``verify`` is
            off, each file is read once more, and compared by checksum with what was read of ``source``. It gets
            ``workers`` files at a time.
        accept: Names with which refusals say that they can be lifted.
        base: For an adapter: directory of its base model, of either format. By default the one that its
            adapter_config.json names.
        target_base: For an adapter: the path of the base model that the output's adapter_config.json names.
        transformers: For an adapter that changes experts: the major version that it is for, 4 or 5.
        progress: Sees how far the work has come, see :class:`internvl_bridge.Progress`.

    Returns:
        What was found, written and verified, with warnings and notes.

    Raises:
        OptionError: An argument cannot be used.
        CheckpointError: A file is malformed, missing, or contradicts another.
        UnsupportedModelError: The model has no counterpart in the other format.
        TensorError: The tensors are not those that config.json describes.
        OutputError: The output cannot be made, or exists already.
        DifferenceError: What was written is not what was read.

    Example:
        >>> import internvl_bridge
        >>> report = internvl_bridge.to_hf("InternVL3_5-8B", "InternVL3_5-8B-HF")
        >>> report.verification.identical
        True
    """
    options = Options(
        config=config,
        state_dict=state_dict,
        fill_from=fill_from,
        reference=reference,
        tokenizer=tokenizer,
        system_message=system_message,
        layout=layout,
        experts=experts,
        max_shard_size=max_shard_size,
        order=order,
        link=link,
        base=base,
        target_base=target_base,
        transformers=transformers,
    )
    accepted = frozenset(accept)
    execution = Execution(verify, workers, overwrite, restart, accepted, read_links, consume, stream, executor=executor)
    return _converted(source, output, (Format.CUSTOM, Format.HF), options, execution, progress)


def to_custom(
    source: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    state_dict: str | None = None,
    fill_from: str | Path | None = None,
    reference: str | Path | None = None,
    tokenizer: str | Path | None = None,
    tied: Tied | None = None,
    max_shard_size: int | str | None = None,
    order: Order = "source",
    link: Link | None = None,
    read_links: bool = False,
    verify: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    consume: bool = False,
    stream: bool = False,
    executor: Executor | None = None,
    accept: Collection[str] = (),
    base: str | Path | None = None,
    target_base: str | None = None,
    transformers: Literal[4, 5] = 5,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert the HF checkpoint ``source`` into the custom format of InternVL's own training code.

    The other way round than :func:`to_hf`, from any spelling of HF keys. What HF's config.json does not state is the
    template, the tiling, and whether a Llama was an InternLM2. It comes from ``reference``, or from a sidecar in
    ``source``, or from defaults that the warnings name.

    Args:
        source: Directory of the HF checkpoint, or its place on the hub: ``hf://owner/name[@revision][/folder]``.
        output: Directory to create, with its parents.
        config: Directory of config.json and the tokenizer, if they are not in ``source``.
        state_dict: Which model is meant, where ``source`` holds several, such as a model and its average.
        fill_from: Directory of a checkpoint of either format. Tensors that ``source`` lacks are taken from it.
        reference: Directory of a custom checkpoint to compare the output with. It also gives what HF cannot state, and
            its Python modules.
        tokenizer: Directory to take the tokenizer's files from, instead of ``source``.
        tied: What a model gets whose input embeddings serve as output head: a "copy" of them as its head, or none
            ("keep"). By default a copy, unless the sidecar remembers a custom checkpoint without one. :func:`to_hf`
            drops the copy again as long as it is equal.
        max_shard_size: Size of the files of weights, in bytes or as a text such as "5GB". By default the shards and
            their order are those of ``source``.
        order: Order of the tensors in a file: "source", or "name" as ``safetensors.torch.save`` has it.
        link: Let files of weights that equal a file of ``source`` be "hard" or "symbolic" links to it, instead of
            writing them. A program that writes into a linked file changes ``source`` and ``output`` alike.
        read_links: Read the files that are linked, to take their checksums.
        verify: Read the output back and compare it with the source, bit for bit.
        workers: Files to write at a time. By default one for each core, at most four.
        overwrite: Replace an ``output`` that exists, if it is a checkpoint and holds nothing else, once the new one is
            complete.
        restart: Throw away what a run that was stopped has finished. By default the same call goes on from there.
        consume: Delete each file of weights in ``source`` as soon as ``output`` has its tensors, read back and
            compared. If it is stopped, the same call goes on. Nobody is asked.
        stream: Read a ``source`` on the hub by ranges, and keep no copy of it. By default it is downloaded into
            huggingface_hub's cache.
        executor: What writes the files of weights: any :class:`concurrent.futures.Executor`, of threads, of processes,
            or of other machines that see ``source`` and ``output`` under the same paths. Unless ``verify`` is
            off, each file is read once more, and compared by checksum with what was read of ``source``. It gets
            ``workers`` files at a time.
        accept: Names with which refusals say that they can be lifted.
        base: For an adapter: directory of its base model, of either format. By default the one that its
            adapter_config.json names.
        target_base: For an adapter: the path of the base model that the output's adapter_config.json names.
        transformers: For an adapter that changes experts: the major version that it is for, 4 or 5.
        progress: Sees how far the work has come, see :class:`internvl_bridge.Progress`.

    Returns:
        What was found, written and verified, with warnings and notes.

    Raises:
        OptionError: An argument cannot be used.
        CheckpointError: A file is malformed, missing, or contradicts another.
        UnsupportedModelError: The model has no counterpart in the other format.
        TensorError: The tensors are not those that config.json describes.
        OutputError: The output cannot be made, or exists already.
        DifferenceError: What was written is not what was read.

    Example:
        >>> import internvl_bridge
        >>> report = internvl_bridge.to_custom("my-finetune-HF", "my-finetune", reference="InternVL3_5-8B")
        >>> report.reference.complete
        True
    """
    options = Options(
        config=config,
        state_dict=state_dict,
        fill_from=fill_from,
        reference=reference,
        tokenizer=tokenizer,
        tied=tied,
        max_shard_size=max_shard_size,
        order=order,
        link=link,
        base=base,
        target_base=target_base,
        transformers=transformers,
    )
    accepted = frozenset(accept)
    execution = Execution(verify, workers, overwrite, restart, accepted, read_links, consume, stream, executor=executor)
    return _converted(source, output, (Format.HF, Format.CUSTOM), options, execution, progress)


def repair(
    source: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    state_dict: str | None = None,
    fill_from: str | Path | None = None,
    tokenizer: str | Path | None = None,
    system_message: str | None = None,
    layout: Layout = "l1",
    experts: ExpertsOption = "split",
    max_shard_size: int | str | None = None,
    order: Order = "source",
    link: Link | None = None,
    read_links: bool = False,
    verify: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    consume: bool = False,
    stream: bool = False,
    executor: Executor | None = None,
    accept: Collection[str] = (),
    base: str | Path | None = None,
    target_base: str | None = None,
    transformers: Literal[4, 5] = 5,
    progress: Progress = silent,
) -> ConversionReport:
    """Make the HF checkpoint ``source``, in any spelling, one that every transformers from 4.52 on loads.

    The output has the keys that all versions read, and one tensor per expert. It has a config.json in both spellings,
    and a complete processor. No bit of a tensor changes, and repairing once more changes nothing. Weights that an old
    version of transformers replaced by random ones cannot be brought back; the warnings name them.

    Args:
        source: Directory of the HF checkpoint, or its place on the hub: ``hf://owner/name[@revision][/folder]``.
        output: Directory to create, with its parents.
        config: Directory of config.json and the tokenizer, if they are not in ``source``.
        state_dict: Which model is meant, where ``source`` holds several, such as a model and its average.
        fill_from: Directory of a checkpoint of either format. Tensors that ``source`` lacks are taken from it.
        tokenizer: Directory to take the tokenizer's files from, instead of ``source``.
        system_message: What the chat template renders for conversations without a system message. By default
            upstream's; "none" stands for none.
        layout: How HF keys begin: "l1" as every transformers from 4.52 on reads them, "l2" as in
            ``model.state_dict()``.
        experts: The experts of Qwen3-MoE: "split" into one tensor each, or "fused" into one for all of a layer.
        max_shard_size: Size of the files of weights, in bytes or as a text such as "5GB". By default the shards and
            their order are those of ``source``.
        order: Order of the tensors in a file: "source", or "name" as ``safetensors.torch.save`` has it.
        link: Let files of weights that equal a file of ``source`` be "hard" or "symbolic" links to it, instead of
            writing them. A program that writes into a linked file changes ``source`` and ``output`` alike.
        read_links: Read the files that are linked, to take their checksums.
        verify: Read the output back and compare it with the source, bit for bit.
        workers: Files to write at a time. By default one for each core, at most four.
        overwrite: Replace an ``output`` that exists, if it is a checkpoint and holds nothing else, once the new one is
            complete.
        restart: Throw away what a run that was stopped has finished. By default the same call goes on from there.
        consume: Delete each file of weights in ``source`` as soon as ``output`` has its tensors, read back and
            compared. If it is stopped, the same call goes on. Nobody is asked.
        stream: Read a ``source`` on the hub by ranges, and keep no copy of it. By default it is downloaded into
            huggingface_hub's cache.
        executor: What writes the files of weights: any :class:`concurrent.futures.Executor`, of threads, of processes,
            or of other machines that see ``source`` and ``output`` under the same paths. Unless ``verify`` is
            off, each file is read once more, and compared by checksum with what was read of ``source``. It gets
            ``workers`` files at a time.
        accept: Names with which refusals say that they can be lifted.
        base: For an adapter: directory of its base model, of either format. By default the one that its
            adapter_config.json names.
        target_base: For an adapter: the path of the base model that the output's adapter_config.json names.
        transformers: For an adapter that changes experts: the major version that it is for, 4 or 5.
        progress: Sees how far the work has come, see :class:`internvl_bridge.Progress`.

    Returns:
        What was found, written and verified, with warnings and notes.

    Raises:
        OptionError: An argument cannot be used.
        CheckpointError: A file is malformed, missing, or contradicts another.
        UnsupportedModelError: The model has no counterpart in the other format.
        TensorError: The tensors are not those that config.json describes.
        OutputError: The output cannot be made, or exists already.
        DifferenceError: What was written is not what was read.

    Example:
        >>> import internvl_bridge
        >>> report = internvl_bridge.repair("my-finetune-HF", "repaired")
        >>> report.found.spelling
        'L1'
    """
    options = Options(
        config=config,
        state_dict=state_dict,
        fill_from=fill_from,
        tokenizer=tokenizer,
        system_message=system_message,
        layout=layout,
        experts=experts,
        max_shard_size=max_shard_size,
        order=order,
        link=link,
        base=base,
        target_base=target_base,
        transformers=transformers,
    )
    accepted = frozenset(accept)
    execution = Execution(verify, workers, overwrite, restart, accepted, read_links, consume, stream, executor=executor)
    return _converted(source, output, (Format.HF, Format.HF), options, execution, progress)


def finish(
    output: str | Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    accept: Collection[str] = (),
    progress: Progress = silent,
) -> ConversionReport:
    """Publish an ``output`` whose files of weights several workers have written (``--worker`` of the command line).

    All files are read once more, and compared with the checksums that the workers wrote down. Source and options are
    those of the workers.

    Args:
        output: The directory that was given to the workers.
        workers: Files to read at a time. By default one for each core, at most four; with an executor, 64.
        overwrite: Replace an ``output`` that exists, if it is a checkpoint and holds nothing else.
        executor: What reads the files, as for :func:`to_hf`. By default this machine does.
        accept: Names with which refusals say that they can be lifted. What the workers accepted is.
        progress: Sees how far the work has come, see :class:`internvl_bridge.Progress`.

    Returns:
        What was found, written and verified, with warnings and notes.

    Raises:
        OutputError: No workers have begun ``output``, one is at work, or files are missing.
        BridgeError: As :func:`to_hf`.

    Example:
        >>> import internvl_bridge
        >>> internvl_bridge.finish("shared-HF").by_workers
        True
    """
    execution = Execution(workers=workers, overwrite=overwrite, executor=executor, accept=frozenset(accept))
    with shared_conversion(Path(output), execution) as conversion:
        return carry_out(conversion, progress)


def _converted(
    source: str | Path,
    output: str | Path,
    formats: tuple[Format, Format],
    options: Options,
    execution: Execution,
    progress: Progress,
) -> ConversionReport:
    with at_hand(source, options, execution) as found:
        if is_adapter_directory(found.source):
            adapter = prepare_adapter(found.source, Path(output), formats, found.options, found.execution)
            return carry_out_adapter(adapter, progress)
        return carry_out(prepare(found.source, output, formats, found.options, found.execution), progress)
