"""Refuse links that lead out of a checkpoint, where their contents would get into the output."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from internvl_bridge.checkpoint.weights import INDEX_FILES
from internvl_bridge.errors import CheckpointError, first_few
from internvl_bridge.metadata.files import is_text_name


def files_that_are_told(files: Collection[Path], source: Path) -> set[Path]:
    """Those of ``files``, and of the texts in ``source``, whose contents an output has: as copies or in its sidecar.

    Of an index the output has nothing: it may be a link, like the weights.
    """
    texts = {path for path in source.iterdir() if is_text_name(path.name)}
    return {path for path in {*files, *texts} if path.name not in INDEX_FILES}


def check_links(directories: Iterable[Path], files: Collection[Path]) -> None:
    """Raise CheckpointError if any of ``files`` is a link that leads out of the one of ``directories`` that it is in.

    A link to the blobs of a hub cache is fine: there a snapshot consists of links.
    """
    for directory in directories:
        home = Path(os.path.realpath(directory))
        caches = (commit.parent.parent for commit in (home, *home.parents) if commit.parent.name == "snapshots")
        allowed = {home, *(cache / "blobs" for cache in caches)}
        targets = {path: Path(os.path.realpath(path)) for path in files if path.parent == directory and path.is_file()}
        leading_out = [
            f"{path.name} to {target}" for path, target in targets.items() if not allowed & {*target.parents}
        ]
        if leading_out:
            raise CheckpointError(
                f"{directory} holds links that lead out of it: {first_few(sorted(leading_out))}. The output would have "
                f"what they lead to.",
                "Put copies in their place, or add --accept links if that is meant.",
            )
