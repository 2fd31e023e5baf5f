"""What kind of dump a directory holds, told by the names of its files. Imports no torch."""

from pathlib import Path

PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED_FILES = "pytorch_model*.bin"
METADATA_FILE = ".metadata"


def has_pickled_weights(directory: Path) -> bool:
    """Whether ``directory`` holds weights written by ``torch.save``, valid or not."""
    return (directory / PICKLED_INDEX).exists() or any(directory.glob(PICKLED_FILES))


def has_distributed_weights(directory: Path) -> bool:
    """Whether ``directory`` was written by ``torch.distributed.checkpoint``, valid or not."""
    return (directory / METADATA_FILE).exists()
