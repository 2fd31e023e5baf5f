"""Dask's executor writes an output."""

from pathlib import Path

from checkpoints import files_of
from dask.distributed import Client, LocalCluster

import internvl_bridge


def test_dask_has_an_executor(source: Path, expected: dict[str, bytes]):
    output = source.with_name("by-dask")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        client.get_executor(retries=3) as executor,
    ):
        internvl_bridge.to_hf(source, output, max_shard_size="60KB", executor=executor)
    assert files_of(output) == expected
