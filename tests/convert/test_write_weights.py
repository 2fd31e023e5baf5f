"""What will be written is what was planned, and each file is a small job."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import ROOT, copy_custom

from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import Conversion, prepare
from internvl_bridge.convert.write_weights import check_layout, shard_jobs
from internvl_bridge.errors import ProofError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.output_shards import OutputShard


@pytest.fixture
def conversion(tmp_path: Path) -> Conversion:
    source = copy_custom("qwen2-300m", tmp_path / "source")
    return prepare(source, tmp_path / "output", (Format.CUSTOM, Format.HF), Options(max_shard_size="60KB"))


def checked(conversion: Conversion, first: OutputShard) -> None:
    check_layout((first, *conversion.shards[1:]), conversion.plan, conversion.model.checkpoint)


def test_the_planned_layout_is_accepted(conversion: Conversion) -> None:
    checked(conversion, conversion.shards[0])


def test_bytes_that_lie_elsewhere_are_refused(conversion: Conversion) -> None:
    first = conversion.shards[0]
    moved = tuple(ByteRange(part.path, part.offset + 2, part.length) for part in first.ranges)

    with pytest.raises(ProofError, match=f"{first.name} would not hold the tensors that were planned"):
        checked(conversion, replace(first, ranges=moved))


def test_a_dtype_that_was_not_planned_is_refused(conversion: Conversion) -> None:
    first = conversion.shards[0]

    with pytest.raises(ProofError, match="would not hold"):
        checked(conversion, replace(first, header=first.header.replace(b'"BF16"', b'"F16" ')))


def test_a_tensor_that_is_left_out_is_refused(conversion: Conversion) -> None:
    with pytest.raises(ProofError, match="The output would not hold"):
        check_layout(conversion.shards[1:], conversion.plan, conversion.model.checkpoint)


def test_a_job_of_the_largest_release_is_small(tmp_path: Path) -> None:
    """The shapes and the depth of InternVL3_5-241B-A28B, as sparse files; in both orders."""
    source = tmp_path / "241b"
    subprocess.run([sys.executable, ROOT / "examples" / "synthetic.py", source, "--preset", "241b"], check=True)
    for order in ("source", "name"):
        found = prepare(source, tmp_path / "output", (Format.CUSTOM, Format.HF), Options(order=order))
        jobs = shard_jobs(found.shards, tmp_path, [part.path for part in found.model.checkpoint.shards], verify=True)

        assert len(jobs) == 97
        assert max(len(pickle.dumps(job)) for job in jobs) < 100_000
