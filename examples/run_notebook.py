"""Execute a notebook from beginning to end, in a temporary directory, and say whether each cell ran.

    python examples/run_notebook.py examples/reports.ipynb

The notebook stays as it is: its outputs are thrown away. The exit code is 1 if a cell raises an exception, which is
printed. It needs ``pip install nbclient ipykernel``.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


def run(notebook: Path) -> int:
    """Execute all cells of ``notebook``, and return how many of them are code."""
    # The kernel finds what lies beside the notebook, and makes its temporary files where they are removed.
    paths = [str(notebook.resolve().parent), os.environ.get("PYTHONPATH", "")]
    read: Any = nbformat.read  # it has no types
    cells = read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "TMPDIR": home}
        client = NotebookClient(cells, timeout=600, kernel_name="python3", resources={"metadata": {"path": home}})
        client.execute(env=environment)
    return sum(cell.cell_type == "code" for cell in cells.cells)


def main() -> None:
    """Parse the command line, and execute one notebook."""
    parser = argparse.ArgumentParser(description="Execute a notebook, and say whether each cell ran.")
    parser.add_argument("notebook", type=Path)
    arguments = parser.parse_args()
    try:
        cells = run(arguments.notebook)
    except CellExecutionError as error:
        sys.exit(str(error))
    print(f"All {cells} code cells of {arguments.notebook} ran.")


if __name__ == "__main__":
    main()
