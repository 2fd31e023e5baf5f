"""An output that is pushed after its source is hardly uploaded: the store of the hub has its chunks already."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

import internvl_bridge

_PUSH = """
import runpy, sys
from pathlib import Path
new_bytes = runpy.run_path(sys.argv[1])["new_bytes"]
for place in sys.argv[3:]:
    print(*new_bytes(Path(place), Path(sys.argv[2])))
"""


def test_a_push_of_the_output_after_its_source_has_few_new_bytes(tmp_path: Path):
    pytest.importorskip("hf_xet", reason="the client that uploads to the hub in chunks is not installed")
    example = runpy.run_path(str(ROOT / "examples" / "synthetic.py"))
    vision, text = example["Tower"](256, 1024, 6, 8, 56, big=False), example["Qwen3"](20_000, 512, 1024, 6, 8, 2, 64)
    custom, output = tmp_path / "custom", tmp_path / "output"
    example["make"](custom, example["Preset"](vision, text, shard_bytes=30_000_000))
    internvl_bridge.to_hf(custom, output)
    command = [sys.executable, "-c", _PUSH, ROOT / "benchmarks" / "push.py", tmp_path / "store", custom, output]
    home = {**os.environ, "HF_HOME": str(tmp_path / "home")}  # the client makes directories when it is imported
    told = subprocess.run(command, env=home, check=True, capture_output=True, text=True).stdout
    (total, new), (total_again, new_again) = ([int(word) for word in line.split()] for line in told.splitlines())
    assert total_again > 50_000_000
    assert new == total
    assert new_again < total_again / 200  # chunks of some 64 KiB at each end of each file; 0.005 % of 2 GB
