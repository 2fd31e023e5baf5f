"""The examples run as a user types them, and say what they promise. The notebook is one that can be executed."""

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from support import DATA, ROOT, copy_custom

import internvl_bridge

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "reports.ipynb"
ADAPTER = DATA / "adapters" / "custom" / "qwen2-300m-all-linear"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # transformers' own


@dataclass
class Done:
    """How a script ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script in a directory, as Python does; a process of its own would take seconds."""

    def running(home: Path, script: str, *arguments: str) -> Done:
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        code: object = None
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        stderr = f"{printed.err}{code}\n" if isinstance(code, str) else printed.err
        return Done(1 if isinstance(code, str) else int(str(code or 0)), printed.out, stderr)

    return running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a checkpoint in both formats."""
    directory = tmp_path_factory.mktemp("home")
    copy_custom("qwen2-300m", directory / "custom")
    internvl_bridge.to_hf(directory / "custom", directory / "hf")
    return directory


@pytest.mark.parametrize(
    ("command", "seen", "made"),
    [
        ("convert_and_verify.py custom to-hf", "73 tensors are equal bit for bit, 0 are not.", "to-hf.html"),
        ("convert_and_verify.py hf to-custom", "65 tensors are equal bit for bit, 0 are not.", "to-custom.html"),
        ("finetune_there_and_back.py custom work", "6 of 65 tensors have changed: mlp1.0.bias", "work/finetune.html"),
        ("load_without_converting.py custom", "custom was opened as InternVLForConditionalGeneration", None),
        ("stream_to_engine.py hf", "73 tensors came. Of 376,256 bytes, 4,224 waited", None),
        (f"convert_adapter.py {ADAPTER} custom adapter", "28 modules have the same factors in both, 0", "adapter"),
    ],
    ids=lambda value: value.partition(" ")[0] if value else "nothing",
)
def test_an_example_shows_what_it_promises(command: str, seen: str, made: str | None, home: Path, run: Run):
    done = run(home, *command.split())
    assert done.code == 0, done.stderr
    assert seen in done.stdout
    assert made is None or (home / made).exists()


@pytest.mark.parametrize(
    "command",
    [
        "convert_and_verify.py nothing output",
        "stream_to_engine.py nothing",
        "convert_adapter.py custom custom output",
    ],
)
def test_an_example_gives_the_reason_where_it_cannot_go_on(command: str, tmp_path: Path, run: Run):
    copy_custom("qwen2-300m", tmp_path / "custom")
    done = run(tmp_path, *command.split())
    assert done.code == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr  # no traceback


def test_the_notebook_is_stored_without_outputs_and_its_cells_compile():
    notebook = nbformat.reads(NOTEBOOK.read_text(), as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}
    for cell in cells:
        compile(cell.source, NOTEBOOK.name, "exec")
