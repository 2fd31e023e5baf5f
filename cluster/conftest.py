"""A checkpoint, and what one process makes of it."""

import runpy
from pathlib import Path

import pytest
from checkpoints import files_of

import internvl_bridge

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def source(tmp_path: Path) -> Path:
    example = runpy.run_path(str(ROOT / "examples" / "synthetic.py"))
    example["make"](tmp_path / "source", example["PRESETS"]["tiny"])
    return tmp_path / "source"


@pytest.fixture
def expected(source: Path) -> dict[str, bytes]:
    internvl_bridge.to_hf(source, source.with_name("expected"), max_shard_size="60KB")
    return files_of(source.with_name("expected"))
