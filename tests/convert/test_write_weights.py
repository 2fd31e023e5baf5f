"""Each file of an output is a small job."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, copy_custom
from thinning import rarely

import internvl_bridge
from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import prepare
from internvl_bridge.convert.tensor_places import places_in
from internvl_bridge.convert.write_weights import shard_jobs
from internvl_bridge.mapping.formats import Format
from internvl_bridge.work.progress import silent


@pytest.mark.parametrize("order", ["source", rarely("name")])
def test_a_job_of_the_largest_release_is_small(order: str, tmp_path: Path) -> None:
    """The shapes and the depth of InternVL3_5-241B-A28B, as sparse files."""
    source = tmp_path / "241b"
    subprocess.run([sys.executable, ROOT / "examples" / "synthetic.py", source, "--preset", "241b"], check=True)
    found = prepare(source, tmp_path / "output", (Format.CUSTOM, Format.HF), Options(order=order))
    shards = zip(found.shards, places_in(found.shards, {}, {}), strict=True)
    jobs = shard_jobs(shards, tmp_path, [part.path for part in found.model.checkpoint.shards], verify=True)

    assert len(jobs) == 97
    assert max(len(pickle.dumps(job)) for job in jobs) < 100_000


@pytest.mark.parametrize("verify", [True, False])
def test_progress_counts_each_byte_and_each_file_once(verify: bool, tmp_path: Path) -> None:
    totals: list[tuple[int, int]] = []
    steps: list[tuple[int, int]] = []

    def progress(task: str, *total: int):
        if not task.startswith("Converting"):
            return silent(task, *total)
        totals.append(total)
        return lambda *step: steps.append(step)

    source, output = copy_custom("qwen2-300m", tmp_path / "source"), tmp_path / "output"
    internvl_bridge.to_hf(source, output, max_shard_size="90KB", verify=verify, progress=progress)

    sizes = [path.stat().st_size for path in output.glob("*.safetensors")]
    assert totals == [(sum(sizes), len(sizes))]
    assert tuple(map(sum, zip(*steps, strict=True))) == totals[0]
