"""Find the conversion that workers have carried out, so that it can be finished from its output's name alone."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from internvl_bridge.convert.at_hand import at_hand
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.options import ACCEPTABLE, Execution, Options
from internvl_bridge.convert.prepare import FORMATS, Conversion, prepare
from internvl_bridge.convert.resuming import resuming_command
from internvl_bridge.convert.run_share import ACCEPTED, CHANGED, STREAMED, changes_of, copied_shards
from internvl_bridge.convert.shares import shares
from internvl_bridge.errors import InUseError, OptionError, OutputError, first_few
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.places.names import hub_name
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.storage.finished_by_workers import WorkerDirectory, worker_directories
from internvl_bridge.storage.journal import JOURNAL, Record, check_same, foreign, open_journal
from internvl_bridge.storage.output_place import SUFFIX, partial_path
from internvl_bridge.storage.partial_directory import check_ours
from internvl_bridge.storage.publishing import finished_files
from internvl_bridge.storage.workspace import FILES, opened_place

_NUMBERS = {"max_shard_size", "transformers"}
"""Those of the options that can be numbers."""


@contextmanager
def shared_conversion(output: Path, execution: Execution) -> Iterator[Conversion]:
    """The conversion whose workers have made all files of weights of ``output``, prepared once more.

    Their checksums count if nothing has touched the source since. Otherwise their files are compared with the source.
    Raises OutputError if no workers have begun it, if one of them is at work, or if files are missing.
    """
    if not output.name:
        raise OutputError(f"{output} is not a name for a directory.", "Give the output that was given to the workers.")
    partial = partial_path(output)
    record, workers = _begun(output, partial)
    options, source = _options(partial, record), record.source_directory
    if not isinstance(source, str):
        raise foreign(partial)
    stated = [worker.record.remembered.get(ACCEPTED) for worker in workers]
    accepted = {name for names in stated if isinstance(names, list) for name in names if name in [*ACCEPTABLE]}
    streams = hub_name(source) is not None and any(worker.record.remembered.get(STREAMED) for worker in workers)
    if streams and (execution.executor is not None or execution.ray is not None):
        raise OptionError(f"The workers streamed {source}, and executors do not.", "Leave out --ray, or the executor.")
    how = replace(execution, accept=execution.accept | accepted, stream=streams)
    with at_hand(source, options, how) as found:
        formats = FORMATS[str(record.identity["options"]["command"])]
        conversion = prepare(found.source, output, formats, found.options, found.execution)
        check_same(partial / JOURNAL, identity_of(conversion), record, is_shared=True)
        _check_complete(conversion, record, workers)
        rereads = all(worker.record.remembered.get(CHANGED) == _changes(conversion) for worker in workers)
        yield replace(conversion, execution=replace(conversion.execution, rereads=rereads))


def _changes(conversion: Conversion) -> dict[str, int]:
    return changes_of({shard.path: shard.stamp for shard in conversion.there})


def _begun(output: Path, partial: Path) -> tuple[Record, list[WorkerDirectory]]:
    """What was begun for ``output``, and by which workers."""
    record, workers = None, list[WorkerDirectory]()
    if os.path.lexists(partial):
        check_ours(partial)
    if (partial / JOURNAL).is_file():
        try:
            with opened_place(output) as place, open_journal(place.around) as journal:
                record, workers = journal.read(), worker_directories(place.around)
        except InUseError as error:
            raise InUseError(
                f"A run still writes to {partial}.", f"When it has ended: {_typed('finish', output)}"
            ) from error
    is_there = output.is_dir() and not (partial / FILES).is_dir()
    if workers and record is not None and not is_there:
        return record, workers
    if record is not None and not is_there and (command := resuming_command(record.identity, output)):
        raise OutputError(f"{partial} is not what workers have left.", f"It goes on with: {command}")
    if output.name.endswith(SUFFIX) and (output / JOURNAL).is_file():
        whole = output.with_name(output.name.removesuffix(SUFFIX))
        raise OutputError(f"{output} is where {whole} is collected.", f"Give that: {_typed('finish', whole)}")
    if is_there:
        state = "complete" if (output / SIDECAR_FILE).is_file() else "there, and workers have not begun it"
        raise OutputError(f"There is nothing to finish: {output} is {state}.", f"See {_typed('inspect', output)}")
    raise OutputError(
        f"There is nothing to finish: {partial} is not there.",
        "Start the workers first, each with the same command and its own --worker I/N.",
    )


def _options(partial: Path, record: Record) -> Options:
    """The options with which the workers were started. Raises OutputError if the journal is not of this program."""
    values = record.identity.get("options")
    if not isinstance(values, dict) or values.get("command") not in [*FORMATS]:
        raise foreign(partial)
    chosen = {field.name: values[field.name] for field in fields(Options) if values.get(field.name) is not None}
    if not all(isinstance(value, str | int if name in _NUMBERS else str) for name, value in chosen.items()):
        raise foreign(partial)
    return Options(**chosen)


def _check_complete(conversion: Conversion, record: Record, workers: list[WorkerDirectory]) -> None:
    """Raise OutputError if files of weights are missing, with the workers that have to be started once more."""
    there = finished_files(conversion.output, identity_of(conversion))
    copied = copied_shards(conversion)
    missing = [shard.name for shard in copied if shard.name not in there]
    if not missing:
        return
    of = Counter(worker.of for worker in workers).most_common(1)[0][0]
    late = [number for number, names in enumerate(shares(copied, of), start=1) if not {*missing}.isdisjoint(names)]
    command = resuming_command(record.identity, conversion.output) or "the same command"
    again = " ".join([command, *_accepted(conversion), f"--worker {late[0]}/{of}"])
    raise OutputError(
        f"{len(missing)} of {len(copied)} files of weights are missing: {first_few(missing)}. "
        f"They are the share of {first_few([f'worker {number}/{of}' for number in late])}.",
        f"Start {'it' if len(late) == 1 else 'each of them'} again, for instance: {again} Then: "
        f"{_typed('finish', conversion.output)}",
    )


def _accepted(conversion: Conversion) -> list[str]:
    return [f"--accept {shlex.quote(name)}" for name in sorted(conversion.execution.accept)]


def _typed(command: str, output: Path) -> str:
    return f"internvl-bridge {command} {typed_path(output)}"
