"""By what differences are sorted, for command lines, which need not know what a difference is."""

from typing import Literal

Sort = Literal["relative", "l2", "largest", "name"]
"""By a number, the largest first, or by name."""
