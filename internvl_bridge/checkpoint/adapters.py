"""An adapter on disk, read; and the base model that it belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.checkpoint.adapter_directory import ADAPTER_FILE
from internvl_bridge.checkpoint.byte_ranges import specs_of
from internvl_bridge.checkpoint.model import TORCH_NAMES, Source, read_model
from internvl_bridge.checkpoint.weights import holds_weights
from internvl_bridge.errors import CheckpointError, OptionError, UnsupportedModelError, shown
from internvl_bridge.mapping.lora.keys import parsed_key
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.metadata.adapter_config import AdapterConfig, read_adapter_config
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.json_files import is_present
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.source_shards import Checkpoint, open_file

PICKLED_ADAPTER = "adapter_model.bin"
_TOWER = "vit.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterOnDisk:
    """An adapter directory: its config, and the tensors of its one file of factors.

    ``crcs`` are the CRC-32 that the file states for parts of it.
    """

    directory: Path
    config: AdapterConfig
    checkpoint: Checkpoint
    specs: Mapping[str, TensorSpec]
    crcs: Mapping[ByteRange, int]


def read_adapter(directory: Path) -> AdapterOnDisk:
    """Read the config and the headers of an adapter; no tensor data.

    Raises CheckpointError if a file is missing or malformed. Raises UnsupportedModelError for what is not LoRA, and for
    a vision tower beside it, which the adapter alone would lose.
    """
    config = read_adapter_config(directory)
    if is_present(directory / _TOWER):
        raise UnsupportedModelError(
            f"{directory} holds {_TOWER} beside the adapter: the vision tower, which ms-swift has trained in full. The "
            f"adapter alone would lose it.",
            "Merge both into the base model (in ms-swift: swift export --merge_lora true), and convert that.",
        )
    crcs: Mapping[ByteRange, int] = {}
    if is_present(directory / ADAPTER_FILE):
        checkpoint = open_file(directory / ADAPTER_FILE)
    elif is_present(directory / PICKLED_ADAPTER):
        from internvl_bridge.checkpoint.dumps.pickled import open_pickled_file  # imports torch  # noqa: PLC0415

        opened = open_pickled_file(directory / PICKLED_ADAPTER)
        checkpoint, crcs = opened.checkpoint, opened.crcs
    else:
        raise CheckpointError(
            f"{directory} holds neither {ADAPTER_FILE} nor {PICKLED_ADAPTER}.", "Give the directory of an adapter."
        )
    specs = specs_of(checkpoint)
    if odd := next((key for key, spec in specs.items() if spec.dtype not in TORCH_NAMES), None):
        raise UnsupportedModelError(
            f"{odd} in {checkpoint.shards[0].path} has dtype {specs[odd].dtype}, which factors do not have.",
            "Save the adapter again in float32, float16 or bfloat16.",
        )
    return AdapterOnDisk(directory, config, checkpoint, specs, crcs)


def base_of(adapter: AdapterOnDisk, stated: Path | None) -> Path:
    """The directory of the base model: ``stated``, or the one that adapter_config.json names. Raises OptionError."""
    if stated is not None:
        return stated
    named = adapter.config.values.get("base_model_name_or_path")
    if isinstance(named, str) and named and Path(named).is_dir():
        return Path(named)
    raise OptionError(
        f"{adapter.config.file.path} names the base model {shown(named)}, which is not a directory here.",
        "Add --base BASE (base=...), a checkpoint of either format. Its config.json and headers are read, no weights.",
    )


def described_base(base: Path, adapter: AdapterOnDisk) -> ModelDescription:
    """What the base model is, from its config.json, and its headers where it has weights."""
    if holds_weights(base):
        return read_model(Source(base)).description
    names = {parsed_key(key).name: None for key in adapter.specs}
    return describe(read_config(base), [f"{name}.weight" for name in names])
