"""Sizes in bytes, as people write them."""

import re
from fractions import Fraction

from internvl_bridge.errors import OptionError

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}{unit}": 1000**power for power, prefix in enumerate("KMGT", start=1) for unit in ("", "B")}
_UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", start=1)}


def parse_size(size: int | str) -> int:
    """Bytes of a size such as ``5GB`` or ``5G`` (10^9 bytes each), ``5GiB`` (2^30) or a plain number.

    Raises OptionError for anything else and for zero.
    """
    found = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Z]*)", str(size).strip().upper())
    number = 0 if found is None else int(Fraction(found[1]) * _UNITS.get(found[2], 0))
    if number == 0:
        raise OptionError(f"{size!r} is not a size.", "Write, for instance, 5GB, 800MiB or a number of bytes.")
    return number


def human_size(size: int) -> str:
    """A size for people, in binary units."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
