"""Tensors of files as torch sees them without reading the files: mapped into memory, page by page as needed."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import torch

from internvl_bridge.checkpoint.byte_ranges import target_tensors
from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.storage.output_shards import TargetTensor
from internvl_bridge.storage.source_shards import Checkpoint


def mapped_tensors(plan: Plan, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The targets of ``plan``, whose sources ``checkpoint`` stores, on the CPU.

    A target that is one range of a file is a view of the mapped file; others are put together in memory. The
    mapping is private: writing to a tensor changes no file. The files must stay as they are as long as the tensors
    are in use, as with transformers' own loading.
    """
    return dict(each_mapped_tensor(plan, checkpoint))


def each_mapped_tensor(plan: Plan, checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """As :func:`mapped_tensors`, one by one: of those that are put together, only the last is in memory."""
    files = {shard.path: _mapped(shard.path) for shard in checkpoint.shards}
    for key, target in target_tensors(plan, checkpoint):
        yield key, _tensor(target, files)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _tensor(target: TargetTensor, files: dict[Path, mmap.mmap]) -> torch.Tensor:
    parts = [
        torch.frombuffer(files[byte_range.path], dtype=torch.uint8, count=byte_range.length, offset=byte_range.offset)
        for byte_range in target.ranges
    ]
    dtype = TORCH_DTYPES[target.dtype]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    if whole.data_ptr() % dtype.itemsize:  # a header of odd length: arithmetic on such tensors may be slow or fail
        whole = whole.clone()
    return whole.view(dtype).view(target.shape)
