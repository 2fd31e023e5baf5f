"""Divide the files of an output among workers, evenly by their bytes."""

from collections.abc import Sequence
from heapq import heapify, heapreplace

from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.work.worker_number import Worker


def share_of(shards: Sequence[OutputShard], worker: Worker) -> list[OutputShard]:
    """Those of ``shards`` that ``worker`` writes."""
    names = set(shares(shards, worker.of)[worker.number - 1])
    return [shard for shard in shards if shard.name in names]


def shares(shards: Sequence[OutputShard], workers: int) -> list[list[str]]:
    """The names of the files of each of so many ``workers``: the largest first, each to the one that has least.

    That depends on names and sizes alone: all workers find the same shares, and none is asked.
    """
    found: list[list[str]] = [[] for _ in range(workers)]
    sizes = [(0, number) for number in range(workers)]
    heapify(sizes)
    for shard in sorted(shards, key=lambda shard: (-shard.size, shard.name)):
        size, least = sizes[0]
        found[least].append(shard.name)
        heapreplace(sizes, (size + shard.size, least))
    return found
