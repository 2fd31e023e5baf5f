"""What the callers of a conversion may choose."""

import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from internvl_bridge.errors import OptionError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.linking import Link
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.storage.output_place import partial_path

if TYPE_CHECKING:
    from concurrent.futures import Executor

Order = Literal["source", "name"]
"""Physical order of the tensors in a file."""
Layout = Literal["l1", "l2"]
"""How HF keys begin: as transformers writes them, or as ``model.state_dict()`` has them."""
ExpertsOption = Literal["split", "fused"]
"""Qwen3-MoE's experts: one tensor each, or one for all experts of a layer."""
Dtype = Literal["bfloat16", "float16", "float32"]
"""What weights are cast to."""
Tied = Literal["copy", "keep"]
"""What a custom checkpoint gets that shares its input embeddings with its output head: a copy, or no head."""

_CHOICES = {"order": Order, "layout": Layout, "experts": ExpertsOption, "tied": Tied, "dtype": Dtype, "link": Link}
_MAY_BE_NONE = {"tied", "dtype", "link"}
_OUTPUTS = {"layout": Format.HF, "experts": Format.HF, "system_message": Format.HF, "tied": Format.CUSTOM}
"""Choices that only an output of one format leaves."""
ACCEPTABLE = {
    "adapter": "weights with an adapter beside them, which the output does not have",
    "checksums": "weights that do not have the checksums that the source records",
    "fields": "a config.json that computes something else than the reference's",
    "fork": "a model whose own code may compute something else than InternVL's",
    "links": "small files that are links out of their directory",
    "small-shards": "a --max-shard-size below 1 MB",
}
"""What callers may accept by name, where a refusal names it: the name, and what it is."""
_DIRECTIONS = {"to-hf": Format.HF, "to-custom": Format.CUSTOM}
_OF_ADAPTERS = {"base", "target_base", "transformers"}
_LONGEST_MESSAGE = 100_000
PATHS = ("config", "fill_from", "reference", "tokenizer", "base")
"""Those of :class:`Options` that are directories."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the functions that make checkpoints let their callers choose."""

    config: str | Path | None = None
    state_dict: str | None = None
    fill_from: str | Path | None = None
    reference: str | Path | None = None
    tokenizer: str | Path | None = None
    system_message: str | None = None
    layout: Layout = "l1"
    experts: ExpertsOption = "split"
    tied: Tied | None = None
    max_shard_size: int | str | None = None
    order: Order = "source"
    base: str | Path | None = None
    target_base: str | None = None
    transformers: int = 5
    adapters: tuple[str | Path, ...] = ()
    alpha: float | None = None
    dtype: Dtype | None = None
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """How a conversion is carried out: nothing of it changes what is written.

    ``workers`` files are written at a time (None: as many as this machine has use for). ``overwrite`` replaces an
    existing output, ``restart`` throws away what an earlier run has left unfinished. ``accept`` has names of
    :data:`ACCEPTABLE`: what would be refused otherwise. ``read_links``: files that are linked are read all the same, to
    take their checksums. ``consume``: files of the source are deleted as soon as the output has their tensors.
    ``stream``: a source on the hub is read by ranges, and not downloaded. ``origin`` is the place elsewhere that the
    source is from. ``reads``: where its weights are read from. ``worker``: the share of that worker
    is written, and nothing is published. ``ray`` is the address of a cluster that writes the files. The command line
    acts upon these two. ``executor``: what writes the files, if not this process. ``rereads``: what is finished was
    made by others, and is read once more to take its checksum.
    """

    verify: bool = True
    workers: int | None = None
    overwrite: bool = False
    restart: bool = False
    accept: frozenset[str] = frozenset()
    read_links: bool = False
    consume: bool = False
    stream: bool = False
    worker: str | None = None
    ray: str | None = None
    origin: str | None = None
    reads: FileSystem = LOCAL
    executor: "Executor | None" = None
    rereads: bool = False


def wanted_format(direction: str) -> Format:
    """The format that "to-hf" or "to-custom" ends in. Raises OptionError for anything else."""
    if direction not in [*_DIRECTIONS]:  # a list, as what is asked for may have no hash
        raise OptionError(f"{direction!r} is not a direction.", f"Use {' or '.join(map(repr, _DIRECTIONS))}.")
    return _DIRECTIONS[direction]


def check_options(options: Options) -> None:
    """Raise OptionError for a choice that there is not, and for a system message that could not be written."""
    for name, choices in _CHOICES.items():
        chosen = getattr(options, name)
        if chosen not in get_args(choices) and not (chosen is None and name in _MAY_BE_NONE):
            raise OptionError(
                f"{chosen!r} is not a choice for {name}.",
                f"Use {' or '.join(map(repr, get_args(choices)))}.",
            )
    if options.transformers not in {4, 5}:
        raise OptionError(f"{options.transformers!r} is not a choice for transformers.", "Use 4 or 5.")
    message = options.system_message or ""
    if len(message) > _LONGEST_MESSAGE or re.search("[\ud800-\udfff]", message):
        raise OptionError(
            f"The system message is not valid Unicode, or has more than {_LONGEST_MESSAGE} characters.",
            "State a shorter one, in the encoding of this system.",
        )


def check_kind(options: Options, *, is_adapter: bool) -> None:
    """Raise OptionError for a choice of whole checkpoints where there is an adapter, or the other way round."""
    usual = Options()
    for name in (option.name for option in fields(Options)):
        if (name in _OF_ADAPTERS) is not is_adapter and getattr(options, name) != getattr(usual, name):
            kinds = ("whole checkpoints", "an adapter") if is_adapter else ("adapters", "a whole checkpoint")
            raise OptionError(
                f"{name} is a choice for {kinds[0]} only, and this is {kinds[1]}.",
                f"Leave out --{name.replace('_', '-')}.",
            )


def check_links_to_read(options: Options, execution: Execution) -> None:
    """Raise OptionError if files that are linked shall be read, and none are linked."""
    if execution.read_links and options.link is None:
        raise OptionError("--read-links reads files that --link links.", "Add --link hard, or leave out --read-links.")


def check_streaming(options: Options, execution: Execution) -> None:
    """Raise OptionError for what a source that is not here cannot give."""
    if execution.stream and options.link is not None:
        raise OptionError("--stream keeps no copy of the source that --link could link.", "Leave out one of them.")


def check_several_processes(execution: Execution, output: Path, *, is_adapter: bool = False) -> None:
    """Raise OptionError for what cannot be done when several processes make one output, and for an adapter."""
    ways = {"--worker": execution.worker, "--ray": execution.ray, "executor": execution.executor}
    way = next((name for name, value in ways.items() if value is not None), None)
    if way is None:
        return
    if is_adapter:
        raise OptionError("An adapter is one file, which one process writes.", f"Leave out {way}.")
    if execution.worker is not None and execution.ray is not None:
        raise OptionError("--ray has workers of its own.", "Leave out --worker, or --ray.")
    if execution.consume:
        raise OptionError(f"--consume does not go with {way}: it writes one file after the other.", "Leave out one.")
    if execution.worker is not None and execution.restart:
        raise OptionError(
            "--restart would remove what other workers have finished.",
            f"Remove {partial_path(output)} when no worker runs: then all start over.",
        )
    if execution.worker is None and execution.stream:
        raise OptionError(f"--stream does not go with {way}.", "Leave out --stream, or use --worker.")
    if execution.worker is not None and execution.read_links:
        raise OptionError("--read-links does not go with --worker, which links nothing.", "Leave out --read-links.")


def check_accepted(names: Collection[str]) -> None:
    """Raise OptionError for a name that nothing can be accepted by."""
    for name in sorted(names):
        if name not in ACCEPTABLE:
            known = ", ".join(f"{known} ({what})" for known, what in ACCEPTABLE.items())
            raise OptionError(
                f"{name!r} is not a name that can be accepted.",
                f"A refusal names the one that lifts it. Known: {known}.",
            )


def check_applies(options: Options, wanted: Format) -> None:
    """Raise OptionError for a choice that an output of the format ``wanted`` does not leave."""
    for name, format_ in _OUTPUTS.items():
        if format_ is not wanted and getattr(options, name) != getattr(Options(), name):
            raise OptionError(
                f"{name} is a choice for outputs in the {format_.value} format only, and this is in the "
                f"{wanted.value} format.",
                f"Leave out --{name.replace('_', '-')}.",
            )
