"""The commands that compute, as functions: merge adapters, take one out, cast weights."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from internvl_bridge.convert.arithmetic import prepare_cast, prepare_merge
from internvl_bridge.convert.at_hand import at_hand
from internvl_bridge.convert.extraction import Extraction, carry_out_extraction, prepare_extraction
from internvl_bridge.convert.options import Dtype, Execution, Options
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.convert.run import carry_out
from internvl_bridge.work.progress import Progress, silent


def merge(
    source: str | Path,
    output: str | Path,
    *,
    adapters: Sequence[str | Path] = (),
    alpha: float | None = None,
    dtype: Dtype | None = None,
    config: str | Path | None = None,
    state_dict: str | None = None,
    transformers: Literal[4, 5] = 5,
    max_shard_size: int | str | None = None,
    verify: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    accept: Collection[str] = (),
    progress: Progress = silent,
) -> ConversionReport:
    """Merge LoRA adapters into the checkpoint ``source``, or the one that a trainer has left in its weights.

    This is arithmetic: an adapted weight W becomes W + s B A. The sum is computed in float64, and rounded once to the
    dtype of W. Biases, modules that were trained in full, trained tokens, rsLoRA and DoRA are merged, too. All other
    tensors are copied as bytes. The output has the format of ``source``. Imports torch.

    Args:
        source: Directory of a checkpoint of either format. If PEFT has wrapped it, the adapter in it is merged.
        output: Directory to create, with its parents.
        adapters: Directories of adapters for a base of either format. Their changes are added up before rounding.
        alpha: The lora_alpha of the training, for factors in ``source`` where nothing there states it.
        dtype: What all weights are cast to: "bfloat16", "float16" or "float32". By default they keep their own.
        config: Directory of config.json and the tokenizer, if they are not in ``source``.
        state_dict: Which model is meant, where ``source`` holds several, such as a model and its average.
        transformers: The major version that an adapter of experts is for, 4 or 5, where its shapes do not show it.
        max_shard_size: Size of the files of weights, in bytes or as a text such as "5GB". By default the shards and
            their order are those of ``source``.
        verify: Read the output back, and compute it once more to compare it, bit for bit.
        workers: Files to write at a time. By default one for each core, at most four.
        overwrite: Replace an ``output`` that exists, if it is a checkpoint and holds nothing else, once the new one is
            complete.
        restart: Throw away what a run that was stopped has finished. By default the same call goes on from there.
        accept: Names with which refusals say that they can be lifted.
        progress: As for :func:`internvl_bridge.to_hf`.

    Returns:
        What was found, computed, written and verified, with warnings and notes. ``computed`` names all merged modules.

    Raises:
        OptionError: There is no adapter, or nothing says how one is scaled.
        TensorError: An adapter does not fit the model, or a result is out of the range of its dtype.
        UnsupportedModelError: An adapter is not LoRA, or the weights that it changes are quantised.
        CheckpointError: A file is malformed, missing, or contradicts another.
        OutputError: The output cannot be made, or exists already.
        DifferenceError: What was written is not what was computed.

    Example:
        >>> import internvl_bridge
        >>> report = internvl_bridge.merge("InternVL3_5-8B", "my-merged", adapters=["my-lora"])
        >>> report.verification.identical
        True
    """
    options = Options(
        adapters=tuple(adapters),
        alpha=alpha,
        dtype=dtype,
        config=config,
        state_dict=state_dict,
        transformers=transformers,
        max_shard_size=max_shard_size,
    )
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept))
    with at_hand(source, options, execution) as found:
        return carry_out(prepare_merge(found.source, Path(output), found.options, found.execution), progress)


def cast(
    source: str | Path,
    output: str | Path,
    *,
    dtype: Dtype,
    config: str | Path | None = None,
    state_dict: str | None = None,
    max_shard_size: int | str | None = None,
    verify: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    accept: Collection[str] = (),
    progress: Progress = silent,
) -> ConversionReport:
    """Cast the weights of the checkpoint ``source`` to another dtype, each rounded once to the nearest.

    Half-way between two numbers the even one is taken. Integers and what makes up quantised weights are copied as they
    are. config.json states the new dtype. The output has the format of ``source``. Imports torch.

    Args:
        source: Directory of a checkpoint of either format.
        output: Directory to create, with its parents.
        dtype: "bfloat16", "float16" or "float32".
        config: Directory of config.json and the tokenizer, if they are not in ``source``.
        state_dict: Which model is meant, where ``source`` holds several, such as a model and its average.
        max_shard_size: Size of the files of weights, in bytes or as a text such as "5GB". By default the shards and
            their order are those of ``source``.
        verify: Read the output back, and compute it once more to compare it, bit for bit.
        workers: Files to write at a time. By default one for each core, at most four.
        overwrite: Replace an ``output`` that exists, if it is a checkpoint and holds nothing else, once the new one is
            complete.
        restart: Throw away what a run that was stopped has finished. By default the same call goes on from there.
        accept: Names with which refusals say that they can be lifted.
        progress: As for :func:`internvl_bridge.to_hf`.

    Returns:
        What was found, written and verified. ``computed.roundings`` has the largest relative error of each part.

    Raises:
        OptionError: An argument cannot be used.
        TensorError: A number is out of the range of ``dtype``, or the tensors are not those of the model.
        UnsupportedModelError: The model holds an adapter that is not merged.
        CheckpointError: A file is malformed, missing, or contradicts another.
        OutputError: The output cannot be made, or exists already.
        DifferenceError: What was written is not what was computed.

    Example:
        >>> import internvl_bridge
        >>> report = internvl_bridge.cast("my-finetune-HF", "my-bfloat16", dtype="bfloat16")
        >>> report.computed.dtype
        'bfloat16'
    """
    options = Options(dtype=dtype, config=config, state_dict=state_dict, max_shard_size=max_shard_size)
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept))
    with at_hand(source, options, execution) as found:
        return carry_out(prepare_cast(found.source, Path(output), found.options, found.execution), progress)


def extract(
    source: str | Path,
    output: str | Path,
    *,
    alpha: float | None = None,
    config: str | Path | None = None,
    state_dict: str | None = None,
    max_shard_size: int | str | None = None,
    verify: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    accept: Collection[str] = (),
    progress: Progress = silent,
) -> Extraction:
    """Take the LoRA adapter out of the checkpoint ``source``: its base model and the adapter, byte for byte.

    ``output/base`` is a checkpoint in the format of ``source``, and ``output/adapter`` an adapter as PEFT saves it.
    Each of them appears complete and verified, or not at all. :func:`merge` of both is that of ``source``, bit for bit.

    Args:
        source: Directory of a checkpoint whose modules PEFT has wrapped, as InternVL's own trainer saves it.
        output: Directory to create, with its parents.
        alpha: The lora_alpha of the training, where nothing in ``source`` states it.
        config: Directory of config.json and the tokenizer, if they are not in ``source``.
        state_dict: Which model is meant, where ``source`` holds several, such as a model and its average.
        max_shard_size: Size of the files of weights, in bytes or as a text such as "5GB". By default the shards and
            their order are those of ``source``.
        verify: Read the output back and compare it with the source, bit for bit.
        workers: Files to write at a time. By default one for each core, at most four.
        overwrite: Replace what exists, if it is a checkpoint and an adapter, once the new one is complete.
        restart: Throw away what a run that was stopped has finished. By default the same call goes on from there.
        accept: Names with which refusals say that they can be lifted.
        progress: As for :func:`internvl_bridge.to_hf`.

    Returns:
        The reports of both.

    Raises:
        OptionError: There is no adapter in ``source``, or nothing says how it is scaled.
        TensorError: The tensors are not those that config.json describes.
        CheckpointError: A file is malformed, missing, or contradicts another.
        OutputError: The output cannot be made, or exists already.
        DifferenceError: What was written is not what was read.

    Example:
        >>> import internvl_bridge
        >>> parts = internvl_bridge.extract("my-trained", "parts")
        >>> parts.base.ok and parts.adapter.ok
        True
    """
    options = Options(alpha=alpha, config=config, state_dict=state_dict, max_shard_size=max_shard_size)
    execution = Execution(verify, workers, overwrite, restart, frozenset(accept))
    with at_hand(source, options, execution) as found:
        both = prepare_extraction(found.source, Path(output), found.options, found.execution)
        return carry_out_extraction(both, progress)
