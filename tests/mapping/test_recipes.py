"""How tensors are made, in words."""

import pytest

from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec
from internvl_bridge.mapping.recipes import how_made, made_of

SOURCES = {
    "layers.3.a": TensorSpec("F32", (4, 2)),
    "b": TensorSpec("F32", (4, 2)),
    "layers.0.experts.e": TensorSpec("F32", (3, 4, 2)),
}


@pytest.mark.parametrize(
    ("key", "runs", "how", "text"),
    [
        ("b", [("b", 0, 8)], "kept", "b"),
        ("x", [("layers.3.a", 0, 8)], "renamed", "layers.*.a"),
        ("x", [("b", 4, 8), ("b", 0, 4)], "reordered", "b[2:4] + b[0:2]"),
        ("x", [("layers.3.a", 2, 6)], "split", "layers.*.a[1:3]"),
        ("x", [("b", 0, 2), ("b", 4, 6)], "split", "b[0:1] + b[2:3]"),
        ("x", [("layers.3.a", 0, 8), ("b", 0, 8)], "fused", "layers.*.a + b"),
        ("x", [("layers.0.experts.e", 12, 16)], "split", "layers.*.experts.e[*, 2:4]"),
        ("x", [(k, n, n + 2) for n in (0, 4) for k in ("layers.3.a", "b")], "fused", "4 runs of b, layers.*.a"),
    ],
)
def test_how_a_tensor_is_made(key: str, runs: list[tuple[str, int, int]], how: str, text: str):
    made = tuple(Run(*run) for run in runs)
    recipe = Recipe(TensorSpec("F32", (sum(run.stop - run.start for run in made),)), made)
    assert how_made(key, recipe, SOURCES) == how
    assert made_of(recipe, Plan(SOURCES, {key: recipe})) == text
