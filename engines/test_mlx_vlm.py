"""mlx-vlm loads what it knows with every tensor in its place, and computes the same from both formats."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_vlm.utils import load_config, load_model

Checkpoints = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "kinds"), [("qwen3-300m", ("custom", "hf", "back")), ("qwen2-300m", ("custom", "back"))]
)
def test_it_computes_the_same_from_every_format_that_it_takes(
    name: str, kinds: tuple[str, ...], checkpoints: Checkpoints
):
    root = checkpoints(name)
    answers = []
    for kind in kinds:
        model = load_model(root / kind)
        logits = model.language_model(mx.array([[5, 17, 3, 99]])).logits
        answers.append(np.array(logits.astype(mx.float32)))
    assert np.isfinite(answers[0]).all()
    assert all(np.array_equal(answers[0], answer) for answer in answers[1:])


def test_the_tiling_is_read_from_the_top_of_config_json(checkpoints: Checkpoints):
    config = load_config(checkpoints("qwen3-300m") / "hf")
    assert [config[name] for name in ("min_dynamic_patch", "max_dynamic_patch", "use_thumbnail")] == [1, 12, True]
