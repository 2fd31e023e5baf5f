"""Git LFS pointers: what a clone without git-lfs has in the place of a large file."""

from pathlib import Path

from internvl_bridge.errors import CheckpointError

POINTER_START = b"version https://git-lfs"


def lfs_pointer(path: Path, missing: str) -> CheckpointError:
    """The refusal of a pointer ``path`` in the place of what is ``missing``."""
    return CheckpointError(f"{path} is a Git LFS pointer, not {missing}.", "Fetch all files: git lfs pull.")
