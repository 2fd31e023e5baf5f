"""What kind of dump a directory holds, told by the names of its files. Imports no torch."""

from pathlib import Path

from internvl_bridge.stand_ins import other_directory, pickled_files

PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED_FILES = "pytorch_model*.bin"
METADATA_FILE = ".metadata"


def has_pickled_weights(directory: Path) -> bool:
    """Whether ``directory`` holds weights written by ``torch.save``, valid or not."""
    return has_named_pickled_weights(directory) or pickled_file(directory) is not None


def has_named_pickled_weights(directory: Path) -> bool:
    """Whether ``directory`` holds such weights under the names that transformers gives them."""
    names = (directory / PICKLED_INDEX, directory / PICKLED_FILE, *directory.glob("pytorch_model-*.bin"))
    return any(path.is_file() for path in names)


def pickled_file(directory: Path) -> str | None:
    """The one file that holds the weights of ``directory``: by its name, or as nothing else there can.

    None for several of other names, as nothing shows which is meant, and beside what a trainer keeps in parts.
    """
    if (directory / PICKLED_FILE).is_file():
        return PICKLED_FILE
    found = pickled_files(directory)
    return found[0] if len(found) == 1 and other_directory(directory) is None else None


def has_distributed_weights(directory: Path) -> bool:
    """Whether ``directory`` was written by ``torch.distributed.checkpoint``, valid or not."""
    return (directory / METADATA_FILE).exists()
