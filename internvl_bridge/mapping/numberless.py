"""Names of tensors and modules without the numbers of layers and experts, so that those that go alike share a line."""

_COUNTED = {"layer", "layers", "experts"}
_EXPERTS, _FEW = ".experts.", frozenset(map(str, range(1024)))
"""What stands before the number of an expert, and the numbers that experts have."""


def numberless(key: str) -> str:
    """``key`` with a star for each number of a layer or an expert."""
    parts = key.split(".")
    for place, before in enumerate(parts[:-1], 1):
        if before in _COUNTED and parts[place].isdigit():
            parts[place] = "*"
    return ".".join(parts)


def of_first_expert(key: str) -> str:
    """``key`` with 0 for the number of an expert. Nearly all tensors of a model with experts are theirs, and go alike.

    Example:
        >>> of_first_expert("language_model.model.layers.7.mlp.experts.31.up_proj.weight")
        'language_model.model.layers.7.mlp.experts.0.up_proj.weight'
    """
    before, _, after = key.partition(_EXPERTS)
    number, dot, rest = after.partition(".")
    return f"{before}{_EXPERTS}0.{rest}" if dot and number in _FEW else key
