"""Directories of torch.distributed.checkpoint in which each tensor lies in two chunks, as trainers write them."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)


def save_in_chunks(directory: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write ``tensors``, cut in half by columns (vectors: by rows), and name the halves one tensor."""
    halves = {
        f"{key}#{number}": half.contiguous()
        for key, tensor in tensors.items()
        for number, half in enumerate(tensor.tensor_split(2, dim=min(1, tensor.dim() - 1)))
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        dcp.save(halves, checkpoint_id=directory, no_dist=True)
    path = directory / ".metadata"
    metadata = pickle.loads(path.read_bytes())  # noqa: S301 (it was just written)
    stored = {index.fqn: place for index, place in metadata.storage_data.items()}
    metadata.state_dict_metadata, metadata.storage_data = {}, {}
    for key, tensor in tensors.items():
        chunks = []
        for number in range(2):
            offset = [0] * tensor.dim()
            offset[min(1, tensor.dim() - 1)] = number * halves[f"{key}#0"].shape[min(1, tensor.dim() - 1)]
            chunks.append(ChunkStorageMetadata(torch.Size(offset), halves[f"{key}#{number}"].shape))
            metadata.storage_data[MetadataIndex(key, torch.Size(offset), number)] = stored[f"{key}#{number}"]
        properties = TensorProperties(dtype=tensor.dtype)
        metadata.state_dict_metadata[key] = TensorStorageMetadata(properties, tensor.shape, chunks)
    path.write_bytes(pickle.dumps(metadata))
