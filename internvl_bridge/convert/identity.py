"""What makes a conversion the same one as another that was stopped."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from internvl_bridge._version import __version__
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.storage.checksums import new_checksum
from internvl_bridge.storage.journal import Identity
from internvl_bridge.storage.output_shards import OutputShard


def identity_of(conversion: Conversion) -> Identity:
    """The identity of ``conversion``: version, format, options, the stamps of its source files, and its plan."""
    options: dict[str, Any] = {"format": conversion.wanted.value, **asdict(conversion.options)}
    for name in ("reference", "tokenizer"):
        options[name] = None if options[name] is None else str(Path(options[name]).resolve())
    plan = new_checksum()
    for shard in conversion.shards:
        plan.update(_described(shard))
    shards = conversion.model.checkpoint.shards
    return Identity(
        program=__version__,
        options=options,
        source={"directory": str(conversion.model.directory.resolve())}
        | {shard.path.name: [shard.stamp.size, shard.stamp.modified, shard.stamp.header] for shard in shards},
        plan=plan.hexdigest(),
    )


def _described(shard: OutputShard) -> bytes:
    ranges = "\0".join(
        f"{byte_range.path.name}\0{byte_range.offset}\0{byte_range.length}" for byte_range in shard.ranges
    )
    return b"\0".join((shard.name.encode(), shard.header, ranges.encode()))
