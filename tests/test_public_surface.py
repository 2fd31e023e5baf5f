"""One obvious public surface, and a repository that speaks to its users only."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import copy_custom

import internvl_bridge
from internvl_bridge import errors

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_exactly_these():
    assert sorted(internvl_bridge.__all__) == [
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


@pytest.mark.parametrize("name", [name for name in internvl_bridge.__all__ if name != "__version__"])
def test_every_public_name_exists_and_is_documented(name: str):
    assert inspect.getdoc(getattr(internvl_bridge, name))


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = internvl_bridge.frobnicate


def test_tab_completion_finds_the_public_names():
    assert dir(internvl_bridge) == sorted(internvl_bridge.__all__)


def test_no_room_takes_the_name_of_a_public_function():
    """Importing a room would put it in the place of the function."""
    rooms = {path.stem for path in (ROOT / "internvl_bridge").iterdir()}
    assert rooms.isdisjoint(internvl_bridge.__all__)


def test_the_tree_of_errors_is_the_one_that_is_drawn():
    drawn: list[str] = []
    levels: dict[int, str] = {}
    for line in inspect.getdoc(errors).splitlines():
        if found := re.search(r"([A-Z]\w+Error) {2,}", line):
            level = found.start(1) // 4
            levels[level] = found[1]
            drawn.append(f"{levels.get(level - 1)} <- {found[1]}")
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    real = [f"{kind.__bases__[0].__name__} <- {kind.__name__}" for kind in classes if kind is not errors.BridgeError]
    assert sorted(drawn[1:]) == sorted(real)


def test_reports_of_large_models_are_short_on_the_prompt(tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "source")
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    for value in (report, report.verification, report.found, internvl_bridge.verify_checksums(tmp_path / "hf")):
        assert len(repr(value)) < 1000
        assert repr(value).startswith(f"{type(value).__name__}(")
        json.dumps(value.as_json())


def test_the_listing_of_the_package_is_its_rooms():
    """At most seven modules lie loose: a reader sees the data's way in the names of the folders."""
    loose = [path.name for path in (ROOT / "internvl_bridge").glob("*.py")]
    assert len(loose) <= 7


def test_importing_the_package_imports_no_torch():
    code = "import sys, internvl_bridge; internvl_bridge.to_hf; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_says_in_its_first_line_what_it_is():
    for path in sorted((ROOT / "internvl_bridge").rglob("*.py")):
        if path.name == "__main__.py":
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert inspect.getdoc(importlib.import_module(module)), module
