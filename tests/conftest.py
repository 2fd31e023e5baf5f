"""Fixtures and settings of the whole suite."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support import copy_custom
from thinning import thinned

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: the tests need no network

# torchvision's wheel is built for CUDA's torch. Beside a CPU's it lacks only these two operators, which image
# processors do not use; its import wants them declared.
_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("suite")


@pytest.fixture
def custom(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a complete, writable copy of a stored custom checkpoint."""
    return lambda name: copy_custom(name, tmp_path / name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let all cases be asked for."""
    parser.addoption("--exhaustive", action="store_true", help="also the cases that `make test` leaves out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only an exhaustive run needs."""
    if not config.getoption("exhaustive"):
        left, out = thinned(items)
        config.hook.pytest_deselected(items=out)
        items[:] = left
