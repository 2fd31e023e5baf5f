"""What makes a conversion the same one as another that was stopped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from internvl_bridge._version import __version__
from internvl_bridge.convert.options import PATHS
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.storage.checksums import new_checksum
from internvl_bridge.storage.journal import Identity
from internvl_bridge.storage.output_shards import OutputShard


def identity_of(conversion: Conversion) -> Identity:
    """The identity of ``conversion``: version, format, options, the stamps of its source files, and its plan."""
    options: dict[str, Any] = {"format": conversion.wanted.value, **asdict(conversion.options)}
    for name in PATHS:
        options[name] = None if options[name] is None else str(Path(options[name]).resolve())
    shards = conversion.model.checkpoint.shards
    names = _names([shard.path for shard in shards])
    plan = new_checksum()
    for shard in conversion.shards:
        plan.update(_described(shard, names))
    source = conversion.model.source
    return Identity(
        program=__version__,
        options=options,
        source={"directory": str(source.weights.resolve())}
        | {names[shard.path]: [shard.stamp.size, shard.stamp.modified, shard.stamp.header] for shard in shards},
        plan=plan.hexdigest(),
    )


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Names of source files, no two alike: two directories can have one of the same name."""
    seen = Counter(path.name for path in paths)
    return {path: path.name if seen[path.name] == 1 else f"{path.name} ({n})" for n, path in enumerate(paths)}


def _described(shard: OutputShard, names: Mapping[Path, str]) -> bytes:
    ranges = "\0".join(
        f"{names[byte_range.path]}\0{byte_range.offset}\0{byte_range.length}" for byte_range in shard.ranges
    )
    return b"\0".join((shard.name.encode(), shard.header, ranges.encode()))
