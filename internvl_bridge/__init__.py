"""Convert InternVL checkpoints between the custom format of their training code and transformers' own.

The names below are imported when they are first used. So ``import internvl_bridge`` costs nothing, and only the
functions on tensors in memory import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from internvl_bridge._version import __version__

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.adapter_inspection import AdapterInspection, inspect_adapter
    from internvl_bridge.checkpoint.inspection import Inspection, inspect
    from internvl_bridge.convert.api import finish, repair, to_custom, to_hf
    from internvl_bridge.convert.arithmetic_api import cast, extract, merge
    from internvl_bridge.convert.extraction import Extraction
    from internvl_bridge.convert.report import ConversionReport
    from internvl_bridge.diagnosis.examination import diagnose
    from internvl_bridge.diagnosis.findings import Diagnosis
    from internvl_bridge.errors import (
        BridgeError,
        CheckpointError,
        DifferenceError,
        OptionError,
        OutputError,
        TensorError,
        UnsupportedModelError,
    )
    from internvl_bridge.in_memory.adapters import convert_adapter_state_dict
    from internvl_bridge.in_memory.converter import Converter
    from internvl_bridge.in_memory.load_check import check_load
    from internvl_bridge.in_memory.load_check_result import LoadCheck
    from internvl_bridge.in_memory.loading import load_pretrained, load_processor
    from internvl_bridge.in_memory.state_dict import compute_l2_distance, convert_state_dict
    from internvl_bridge.in_memory.streaming import iter_converted
    from internvl_bridge.pages.api import save_report
    from internvl_bridge.sharing.card import model_card
    from internvl_bridge.sharing.pushing import Pushed, push_to_hub
    from internvl_bridge.verification.adapters import AdapterComparison, verify_adapters
    from internvl_bridge.verification.checksums import ChecksumReport, verify_checksums
    from internvl_bridge.verification.directories import verify
    from internvl_bridge.verification.tensors import Comparison
    from internvl_bridge.work.progress import Progress

_HOMES = {
    "AdapterComparison": "verification.adapters",
    "AdapterInspection": "checkpoint.adapter_inspection",
    "BridgeError": "errors",
    "CheckpointError": "errors",
    "ChecksumReport": "verification.checksums",
    "Comparison": "verification.tensors",
    "ConversionReport": "convert.report",
    "Converter": "in_memory.converter",
    "Diagnosis": "diagnosis.findings",
    "DifferenceError": "errors",
    "Extraction": "convert.extraction",
    "Inspection": "checkpoint.inspection",
    "LoadCheck": "in_memory.load_check_result",
    "OptionError": "errors",
    "OutputError": "errors",
    "Progress": "work.progress",
    "Pushed": "sharing.pushing",
    "TensorError": "errors",
    "UnsupportedModelError": "errors",
    "cast": "convert.arithmetic_api",
    "check_load": "in_memory.load_check",
    "compute_l2_distance": "in_memory.state_dict",
    "convert_adapter_state_dict": "in_memory.adapters",
    "convert_state_dict": "in_memory.state_dict",
    "diagnose": "diagnosis.examination",
    "extract": "convert.arithmetic_api",
    "finish": "convert.api",
    "inspect": "checkpoint.inspection",
    "inspect_adapter": "checkpoint.adapter_inspection",
    "iter_converted": "in_memory.streaming",
    "load_pretrained": "in_memory.loading",
    "load_processor": "in_memory.loading",
    "merge": "convert.arithmetic_api",
    "model_card": "sharing.card",
    "push_to_hub": "sharing.pushing",
    "repair": "convert.api",
    "save_report": "pages.api",
    "to_custom": "convert.api",
    "to_hf": "convert.api",
    "verify": "verification.directories",
    "verify_adapters": "verification.adapters",
    "verify_checksums": "verification.checksums",
}

__all__ = [
    "AdapterComparison",
    "AdapterInspection",
    "BridgeError",
    "CheckpointError",
    "ChecksumReport",
    "Comparison",
    "ConversionReport",
    "Converter",
    "Diagnosis",
    "DifferenceError",
    "Extraction",
    "Inspection",
    "LoadCheck",
    "OptionError",
    "OutputError",
    "Progress",
    "Pushed",
    "TensorError",
    "UnsupportedModelError",
    "__version__",
    "cast",
    "check_load",
    "compute_l2_distance",
    "convert_adapter_state_dict",
    "convert_state_dict",
    "diagnose",
    "extract",
    "finish",
    "inspect",
    "inspect_adapter",
    "iter_converted",
    "load_pretrained",
    "load_processor",
    "merge",
    "model_card",
    "push_to_hub",
    "repair",
    "save_report",
    "to_custom",
    "to_hf",
    "verify",
    "verify_adapters",
    "verify_checksums",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return [*__all__]
