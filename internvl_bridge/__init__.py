"""Convert InternVL checkpoints between the custom format of their training code and transformers' own.

Importing this package imports neither torch nor transformers; the functions on tensors in memory
(:func:`convert_state_dict`, :func:`compute_l2_distance`) import torch when they are first called.
"""

from typing import TYPE_CHECKING

from internvl_bridge._version import __version__
from internvl_bridge.conversion import to_custom, to_hf
from internvl_bridge.errors import BridgeError, DifferenceError
from internvl_bridge.inspection import Inspection, inspect
from internvl_bridge.report import ConversionReport
from internvl_bridge.verification import Comparison
from internvl_bridge.verify_directories import verify

if TYPE_CHECKING:
    from internvl_bridge.tensors import compute_l2_distance, convert_state_dict

__all__ = [
    "BridgeError",
    "Comparison",
    "ConversionReport",
    "DifferenceError",
    "Inspection",
    "__version__",
    "compute_l2_distance",
    "convert_state_dict",
    "inspect",
    "to_custom",
    "to_hf",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import torch only for those who call a function on tensors (PEP 562)."""
    if name in {"compute_l2_distance", "convert_state_dict"}:
        from internvl_bridge import tensors  # noqa: PLC0415

        return getattr(tensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
