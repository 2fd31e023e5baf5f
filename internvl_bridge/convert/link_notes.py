"""What is said about files of an output that are links to files of the source."""

from collections.abc import Iterator, Sequence

from internvl_bridge.notes import Warn
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.storage.linking import Link
from internvl_bridge.storage.output_shards import OutputShard

WRITES_INTO = "A program that writes into one of them changes the source and the output alike."


def notes_on_links(shards: Sequence[OutputShard], link: Link | None) -> Iterator[str]:
    """What to know before ``shards`` are written, of which those that files of the source equal are linked."""
    if link is None:
        return
    if not any(shard.equals for shard in shards):
        yield Warn(
            "No file of the output equals a file of the source, so that --link has nothing to link: every file is "
            "written. Files can be equal where both formats have the same names: language models in shards, HF keys "
            "in the layout l1."
        )
    elif link == "hard":
        yield "A linked file keeps the owner and the permissions that it has in the source."
    else:
        yield "The output needs the source: its linked files are paths that lead there."


def links_text(count: int, of: int, size: int, of_size: int, link: str) -> str:
    """How many files are linked, of how many, and how many bytes need not be written."""
    kind = "hard links" if link == "hard" else "symbolic links"
    return (
        f"{count} of {of} files of weights are {kind} to files of the source: {human_size(of_size - size)} of "
        f"{human_size(of_size)} written. {WRITES_INTO}"
    )
