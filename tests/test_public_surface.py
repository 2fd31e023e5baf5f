"""One obvious public surface, and a repository that speaks to its users only."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import internvl_bridge

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_exactly_these():
    assert sorted(internvl_bridge.__all__) == [
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


@pytest.mark.parametrize("name", [name for name in internvl_bridge.__all__ if name != "__version__"])
def test_every_public_name_exists_and_is_documented(name: str):
    assert inspect.getdoc(getattr(internvl_bridge, name))


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = internvl_bridge.frobnicate


def test_importing_the_package_imports_no_torch():
    code = "import sys, internvl_bridge; internvl_bridge.to_hf; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_says_in_its_first_line_what_it_is():
    for path in sorted((ROOT / "internvl_bridge").rglob("*.py")):
        if path.name == "__main__.py":
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert inspect.getdoc(importlib.import_module(module)), module
