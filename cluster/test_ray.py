"""A Ray cluster of several nodes on this machine writes an output, and loses one of them meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from checkpoints import SMALL, files_of
from ray.cluster_utils import Cluster

import internvl_bridge
from internvl_bridge.errors import OptionError, OutputError
from internvl_bridge.storage.shard_tasks import Attempt, ShardTask, write_attempt
from internvl_bridge.work import ray_cluster
from internvl_bridge.work.ray_cluster import RayExecutor, ray_executor

BRIDGE = (sys.executable, "-m", "internvl_bridge")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that does no work, and three nodes of two cores."""
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(3):
        running.add_node(num_cpus=2)
    yield running
    ray.shutdown()
    running.shutdown()


def connect(cluster: Cluster) -> RayExecutor:
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    return RayExecutor(ray)


def write_unless_it_dies(task: ShardTask) -> Attempt:
    """Write a file; on the node that will be killed, wait for that. Leave a note about who began."""
    node, home = ray.get_runtime_context().get_node_id(), task.attempts.parent.parent
    (task.attempts / f"{task.name}.half").write_bytes(b"half")
    (home / "began" / f"{node}.{task.name}.{time.time_ns()}").touch()
    if (home / "victim").read_text() == node:
        time.sleep(120)
    return write_attempt(task)


def test_the_command_gives_its_work_to_a_cluster(cluster: Cluster, source: Path, expected: dict[str, bytes]):
    output = source.with_name("by-command")
    command = [*BRIDGE, "to-hf", str(source), str(output), *SMALL, "--ray", cluster.address]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "compared with what the workers had read of the source, by checksum" in done.stdout
    assert files_of(output) == expected


def test_a_node_that_dies_costs_its_files_only(
    cluster: Cluster, source: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("internvl_bridge.convert.write_on_executor.write_attempt", write_unless_it_dies)
    executor, output = connect(cluster), source.with_name("with-a-death")
    began = source.with_name("began")
    began.mkdir()
    victim = cluster.list_all_nodes()[-1]
    source.with_name("victim").write_text(victim.node_id)
    dead: list[str] = []

    def progress(_task: str, _total: int, _files: int) -> Callable[[int, int], None]:
        def report(_done: int, _finished: int) -> None:
            if not dead and [*began.glob(f"{victim.node_id}.*")]:
                dead.append(victim.node_id)
                cluster.remove_node(victim, allow_graceful=False)

        return report

    assert executor.at_a_time == 6
    report = internvl_bridge.to_hf(
        source, output, max_shard_size="60KB", executor=executor, workers=executor.at_a_time, progress=progress
    )
    assert dead
    assert report.kept == ()
    names = [path.name.split(".", 1)[1].rsplit(".", 1)[0] for path in began.iterdir()]
    assert len(names) > len({*names})  # some were begun twice
    assert {path.name.split(".")[0] for path in began.iterdir()} > {victim.node_id}
    assert files_of(output) == expected
    assert not [*output.parent.glob("*.partial")]


def test_when_all_workers_die_what_is_finished_is_kept(
    cluster: Cluster, source: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    def dying(task: ShardTask) -> Attempt:
        if "00021-of" in task.name:
            os._exit(1)
        return write_attempt(task)

    monkeypatch.setattr(ray_cluster, "_RETRIES", 1)
    executor, output = connect(cluster), source.with_name("all-dead")
    with monkeypatch.context() as patch:
        patch.setattr("internvl_bridge.convert.write_on_executor.write_attempt", dying)
        with pytest.raises(OutputError, match="a worker ended and reported nothing") as error:
            internvl_bridge.to_hf(source, output, max_shard_size="60KB", executor=executor, workers=1)
    assert any("20 finished file(s) are kept" in note for note in error.value.__notes__)
    assert len(internvl_bridge.to_hf(source, output, max_shard_size="60KB", executor=executor).kept) == 20
    assert files_of(output) == expected


def test_errors_of_the_work_are_those_of_the_work(cluster: Cluster, source: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_task: ShardTask) -> Attempt:
        raise OSError(28, "No space left on device", "/there")

    monkeypatch.setattr("internvl_bridge.convert.write_on_executor.write_attempt", full)
    with pytest.raises(OSError, match="No space left on device: '/there'"):
        internvl_bridge.to_hf(source, source.with_name("full"), executor=connect(cluster))
    assert not [*source.parent.glob("full*")]


def test_there_may_be_no_cluster():
    with pytest.raises(OptionError, match=r"There is no Ray cluster at 127.0.0.1:9"), ray_executor("127.0.0.1:9"):
        pytest.fail("nobody listens there")
