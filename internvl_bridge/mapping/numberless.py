"""Names of tensors and modules without the numbers of layers and experts, so that those that go alike share a line."""

_COUNTED = {"layer", "layers", "experts"}


def numberless(key: str) -> str:
    """``key`` with a star for each number of a layer or an expert."""
    parts = key.split(".")
    for place, before in enumerate(parts[:-1], 1):
        if before in _COUNTED and parts[place].isdigit():
            parts[place] = "*"
    return ".".join(parts)
