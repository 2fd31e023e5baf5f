"""Measure how soon commands start, as ratios within one run: ``python benchmarks/start.py [--directory DIR]``.

Needs about 50 MB in DIR: all but the tiny checkpoint are sparse files, of which only the headers are stored. The last
line is the time from the start of ``to-hf`` to the first byte of weights in its output; then it is killed. The table
has the least of all rounds, as other programs can only add to the time.
"""

import argparse
import contextlib
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BRIDGE = (sys.executable, "-m", "internvl_bridge")
_LOOK = 0.001
"""Seconds between two looks at the output."""
_BLOCK = 4096
"""File systems tell blocks from holes, and one block can have the end of a header and the first weights."""


def seconds(*command: str) -> float:
    """The wall seconds of a command; ``plan`` may say that the disk is too small."""
    start = time.perf_counter()
    code = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True).returncode
    if code not in {0, 2}:
        raise RuntimeError(f"{' '.join(command)} failed")
    return time.perf_counter() - start


def first_byte(source: Path, output: Path) -> float:
    """The wall seconds from the start of ``to-hf`` until its output has a byte of weights, behind all headers."""
    partial = output.with_name(f"{output.name}.partial")
    start = time.perf_counter()
    process = subprocess.Popen(
        (*_BRIDGE, "to-hf", "--quiet", "--no-verify", str(source), str(output)), cwd=_ROOT, stderr=subprocess.DEVNULL
    )
    try:
        while not any(_allocated(path) for path in (partial / "files").glob("*.safetensors")):
            if process.poll() is not None:
                raise RuntimeError(f"to-hf of {source} ended too soon")
            time.sleep(_LOOK)
        return time.perf_counter() - start
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(partial, ignore_errors=True)


def _allocated(path: Path) -> bool:
    """Whether a file has more on the disk, or on the way there, than a header."""
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        return os.lseek(file.fileno(), header + _BLOCK, os.SEEK_DATA) > 0
    return False


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description="Measure how soon commands start.")
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: /tmp)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    synthetic = runpy.run_path(str(_ROOT / "examples" / "synthetic.py"))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        for preset in ("tiny", "8b", "241b"):
            sparse = replace(synthetic["PRESETS"][preset], sparse=preset != "tiny")
            synthetic["make"](directory / preset, sparse)
        works: dict[str, Callable[[], float]] = {
            "`python -c pass`": lambda: seconds(sys.executable, "-c", "pass"),
            '`python -c "import json, typer"`': lambda: seconds(sys.executable, "-c", "import json, typer"),
            "`--version`": lambda: seconds(*_BRIDGE, "--version"),
            "`plan` of a tiny model": lambda: seconds(*_BRIDGE, "plan", str(directory / "tiny")),
            "`plan` of 8B": lambda: seconds(*_BRIDGE, "plan", str(directory / "8b")),
            "`plan` of 241B-A28B (37,540 tensors)": lambda: seconds(*_BRIDGE, "plan", str(directory / "241b")),
            "`to-hf` of 8B to the first byte": lambda: first_byte(directory / "8b", directory / "hf"),
        }
        costs: dict[str, list[float]] = {what: [] for what in works}
        for _ in range(arguments.rounds):
            for what, work in works.items():
                costs[what].append(work())
    python, typer, *_ = (min(rounds) for rounds in costs.values())
    print("| what | wall s | : `python -c pass` | : that with Typer |\n|---|---|---|---|")
    for what, rounds in costs.items():
        print(f"| {what} | {min(rounds):.3f} | {min(rounds) / python:.1f} | {min(rounds) / typer:.1f} |")


if __name__ == "__main__":
    main()
