"""What the tests of clusters convert."""

from pathlib import Path

SMALL = ("--max-shard-size", "60KB", "--accept", "small-shards")


def files_of(directory: Path) -> dict[str, bytes]:
    """The files of ``directory``, without the record of how they were made."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "internvl_bridge.json"}
