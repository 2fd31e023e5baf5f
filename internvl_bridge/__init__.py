"""Convert InternVL checkpoints between the custom format of their training code and transformers' own.

The names below are imported when they are first used, so that ``import internvl_bridge`` costs nothing
and only the functions on tensors in memory import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from internvl_bridge._version import __version__

if TYPE_CHECKING:
    from internvl_bridge.conversion import repair, to_custom, to_hf
    from internvl_bridge.errors import BridgeError, DifferenceError
    from internvl_bridge.inspection import Inspection, inspect
    from internvl_bridge.loading import load_pretrained, load_processor
    from internvl_bridge.report import ConversionReport
    from internvl_bridge.streaming import iter_converted
    from internvl_bridge.tensors import compute_l2_distance, convert_state_dict
    from internvl_bridge.verification import Comparison
    from internvl_bridge.verify_directories import verify
    from internvl_bridge.verify_files import ChecksumReport, verify_checksums

_HOMES = {
    "BridgeError": "errors",
    "ChecksumReport": "verify_files",
    "Comparison": "verification",
    "ConversionReport": "report",
    "DifferenceError": "errors",
    "Inspection": "inspection",
    "compute_l2_distance": "tensors",
    "convert_state_dict": "tensors",
    "inspect": "inspection",
    "iter_converted": "streaming",
    "load_pretrained": "loading",
    "load_processor": "loading",
    "repair": "conversion",
    "to_custom": "conversion",
    "to_hf": "conversion",
    "verify": "verify_directories",
    "verify_checksums": "verify_files",
}

__all__ = [
    "BridgeError",
    "ChecksumReport",
    "Comparison",
    "ConversionReport",
    "DifferenceError",
    "Inspection",
    "__version__",
    "compute_l2_distance",
    "convert_state_dict",
    "inspect",
    "iter_converted",
    "load_pretrained",
    "load_processor",
    "repair",
    "to_custom",
    "to_hf",
    "verify",
    "verify_checksums",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
