"""Measure how long a custom checkpoint takes to open: ``python benchmarks/loading.py [--directory DIR]``.

Opens a synthetic checkpoint in 1B's shapes (2 GB) in two ways, each in a process of its own. ``load_pretrained``
converts nothing on disk. transformers' ``from_pretrained`` opens what ``to-hf`` has made. Needs 5 GB in DIR. Files are
in the page cache, and the table has the least of all rounds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BEFORE = "import sys; sys.path.insert(0, 'tests'); import conftest; "
"""Beside a CPU's torch there may be a torchvision that was built for another one: the tests mend that."""
_OURS = f"{_BEFORE}import internvl_bridge; model = internvl_bridge.load_pretrained(sys.argv[1])"
_THEIRS = (
    f"{_BEFORE}from transformers import AutoModelForImageTextToText as Auto; model = Auto.from_pretrained(sys.argv[1])"
)
_SUM = "; sum(float(parameter.sum()) for parameter in model.parameters())"
"""Reads every parameter: files that are only mapped into memory are not yet read."""


def measured(code: str, *arguments: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MiB of a Python process."""
    start = time.perf_counter()
    process = subprocess.Popen((sys.executable, "-c", code, *arguments), cwd=_ROOT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{code} failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Measure how long a custom checkpoint takes to open.")
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: /tmp)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        custom, hf = Path(name) / "custom", Path(name) / "hf"
        synthetic = (sys.executable, "examples/synthetic.py", str(custom), "--preset", "1b")
        subprocess.run(synthetic, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
        converting, _, _ = measured(
            "import internvl_bridge, sys; internvl_bridge.to_hf(*sys.argv[1:])", str(custom), str(hf)
        )
        works = {
            "`from_pretrained` of the converted directory": (_THEIRS, hf),
            "`load_pretrained` of the custom one": (_OURS, custom),
            "`from_pretrained`, and every parameter read": (_THEIRS + _SUM, hf),
            "`load_pretrained`, and every parameter read": (_OURS + _SUM, custom),
        }
        rounds = [
            {what: measured(code, str(place)) for what, (code, place) in works.items()} for _ in range(arguments.rounds)
        ]
    first = min(costs[next(iter(works))][0] for costs in rounds)
    print("| what | wall s | ratio | CPU s | peak MiB |\n|---|---|---|---|---|")
    for what in works:
        wall, cpu, peak = (min(costs[what][number] for costs in rounds) for number in range(3))
        print(f"| {what} | {wall:.2f} | {wall / first:.2f} | {cpu:.2f} | {peak:.0f} |")
    print(f"\nConverting, verified, took {converting:.2f} s.")


if __name__ == "__main__":
    main()
