"""Whether a directory is an adapter: asked of every source, and seldom so."""

import os
from pathlib import Path

from internvl_bridge.checkpoint.weights import holds_weights
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.json_files import CONFIG_FILE, is_present

ADAPTER_FILE = "adapter_model.safetensors"


def is_adapter_directory(directory: Path) -> bool:
    """Whether ``directory`` is an adapter, and not a whole checkpoint that has one beside it."""
    if not directory.is_dir() or not is_present(directory / ADAPTER_CONFIG):
        return False
    return not os.path.lexists(directory / CONFIG_FILE) or not holds_weights(directory)
