"""What makes a conversion the same one as another that was stopped."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_bridge._version import __version__
from internvl_bridge.convert.options import PATHS
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import new_checksum
from internvl_bridge.storage.journal import Identity
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.source_shards import Shard

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.computed_tensors import ComputedTensor


def identity_of(conversion: Conversion) -> Identity:
    """The identity of ``conversion``: version, format, options, the stamps of its source files, and its plan.

    If it computes, also what its results depend on.
    """
    machine: dict[str, str] = {}
    if conversion.computation is not None:
        from internvl_bridge.checkpoint.computed_files import machine as this_machine  # imports torch  # noqa: PLC0415

        machine = this_machine()
    options: dict[str, Any] = {
        "command": conversion.command,
        "format": conversion.wanted.value,
        **asdict(conversion.options),
    }
    for name in PATHS:
        options[name] = None if options[name] is None else str(Path(options[name]).resolve())
    options["adapter"] = [str(Path(adapter).resolve()) for adapter in options.pop("adapters")]  # as it is typed
    if conversion.execution.consume:
        options["consume"] = True
    shards = conversion.read_from
    names = _names([shard.path for shard in shards])
    plan = new_checksum()
    for shard in conversion.shards:
        plan.update(_described(shard, names))
    for tensor in conversion.computation.tensors.values() if conversion.computation else ():
        plan.update(_computed(tensor, names))
    source = conversion.model.source
    return Identity(
        program=__version__,
        options=options,
        source={"directory": conversion.execution.origin or str(source.weights.resolve())}
        | {names[shard.path]: _stamp(shard, conversion) for shard in shards},
        plan=plan.hexdigest(),
        machine=machine,
    )


def _stamp(shard: Shard, conversion: Conversion) -> list[int | str]:
    """What ``shard`` is known by: its size, when it was changed, and its header."""
    modified = _modified(shard, conversion) if conversion.execution.consume else shard.stamp.modified
    return [shard.stamp.size, modified, shard.stamp.header]


def _modified(shard: Shard, conversion: Conversion) -> int:
    """When ``shard`` was changed, where the source is deleted: a file that is brought back has the time that it had.

    A base is not deleted. So all that is made of it is compared with what it is now, whatever its time.
    """
    source, name = conversion.model.source, shard.path.name
    if shard.path != source.weights / name:
        return 0
    if source.consumption is not None and name in source.consumption.files:
        return source.consumption.files[name].modified
    return shard.stamp.modified


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Names of source files, no two alike: two directories can have one of the same name."""
    seen = Counter(path.name for path in paths)
    return {path: path.name if seen[path.name] == 1 else f"{path.name} ({n})" for n, path in enumerate(paths)}


def _described(shard: OutputShard, names: Mapping[Path, str]) -> bytes:
    return b"\0".join((shard.name.encode(), shard.header, _ranges(shard.ranges, names).encode()))


def _ranges(ranges: Iterable[ByteRange], names: Mapping[Path, str]) -> str:
    """``ranges`` by the names of their files; what is computed is called by its path."""
    return "\0".join(
        f"{names[part.path] if part.is_stored else part.path}\0{part.offset}\0{part.length}" for part in ranges
    )


def _computed(tensor: "ComputedTensor", names: Mapping[Path, str]) -> bytes:
    words = [tensor.key, tensor.dtype, str(tensor.shape)]
    words += [f"{piece.start}-{piece.stop} {piece.dtype} {_ranges(piece.ranges, names)}" for piece in tensor.pieces]
    for term in tensor.terms:
        words.append(f"{term.row} {term.scale.hex()}")
        factors = [factor for factor in (term.b, term.a, term.magnitude) if factor is not None]
        words += [f"{factor.region} {_ranges(factor.tensor.ranges, names)}" for factor in factors]
    return "\n".join(words).encode()
