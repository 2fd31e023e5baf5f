"""A model that trainers of the HF world take, and the checkpoint that it was made from."""

from pathlib import Path

import pytest
from start import Start
from support import copy_custom

import internvl_bridge


@pytest.fixture(params=["qwen2-300m", "qwen3moe-6b"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    custom = copy_custom(request.param, tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    return Start(custom, tmp_path / "hf")
