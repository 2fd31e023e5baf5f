"""Measure the converter against ``cp -r`` and against plain reading, as ratios within one run.

    python benchmarks/convert.py [--directory DIR] [--rounds N]

Needs about 7 GB in DIR. Machines are noisy and disks differ, so that only ratios between neighbours of
the same round mean anything; the table gives their medians. Everything is synced to the disk (cp by
``sync``, the converter by its own fsync), and page caches are warm.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_ROOT = Path(__file__).resolve().parent.parent
_BRIDGE = (sys.executable, "-m", "internvl_bridge")
_SMALLEST_APP = """
import typer
app = typer.Typer()
@app.command()
def one(name: str) -> None: "One."
@app.command()
def two(name: str) -> None: "Two."
app()
"""


@dataclass(frozen=True)
class Cost:
    """What a command took: wall and CPU seconds, peak resident memory in MiB."""

    wall: float
    cpu: float
    peak: float


def run(*command: str) -> Cost:
    """Run a command to its end and weigh it. Raises RuntimeError if it fails."""
    start = time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, cwd=_ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def fresh(directory: Path, work: Callable[[], Cost]) -> Cost:
    """Do ``work``, which makes ``directory``, on a quiet disk; then remove what it made."""
    os.sync()
    cost = work()
    shutil.rmtree(directory)
    return cost


def copy(source: Path, target: Path) -> Cost:
    """``cp -r`` and sync."""
    return run("sh", "-c", f"cp -r '{source}' '{target}' && sync")


def convert(command: str, source: Path, target: Path, *options: str) -> Cost:
    """One conversion by the command line."""
    return run(*_BRIDGE, command, "--quiet", *options, str(source), str(target))


def verification(source: Path, output: Path) -> tuple[Cost, Cost]:
    """One plain read of both sides, and the verification of a conversion, in one process of their own."""
    script = _ROOT / "benchmarks" / "verification.py"
    done = subprocess.run(
        [sys.executable, script, source, output], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    shutil.rmtree(output)
    read, verified = (float(word) for word in done.stdout.split())
    return Cost(read, read, 0), Cost(verified, verified, 0)


def row(name: str, costs: Sequence[Cost], base: Sequence[Cost] | None, limit: str) -> str:
    """A line of the table: the median ratio of ``costs`` to ``base``, round by round, if there is one."""
    ratio = f"{median(c.wall / other.wall for c, other in zip(costs, base, strict=True)):.2f}" if base else "-"
    cpu = median(cost.cpu for cost in costs)
    peak = f"{max(cost.peak for cost in costs):.0f}" if costs[0].peak else "-"
    wall = median(cost.wall for cost in costs)
    return f"| {name} | {ratio} | {limit} | {wall:.2f} | {cpu:.2f} | {peak} |"


def conversions(directory: Path, rounds: int) -> list[str]:
    """The lines about a checkpoint of 2 GiB."""
    custom, hf, output = directory / "custom", directory / "hf", directory / "output"
    run(sys.executable, "examples/synthetic.py", str(custom), "--preset", "2b")
    convert("to-hf", custom, hf)
    kinds: dict[str, list[Cost]] = {}
    for _ in range(rounds):
        for name, work in (
            ("cp", lambda: copy(custom, output)),
            ("to-hf", lambda: convert("to-hf", custom, output, "--no-verify")),
            ("to-custom", lambda: convert("to-custom", hf, output, "--no-verify")),
            ("to-hf, verified", lambda: convert("to-hf", custom, output)),
        ):
            kinds.setdefault(name, []).append(fresh(output, work))
        read, verified = verification(custom, output)
        kinds.setdefault("read", []).append(read)
        kinds.setdefault("verification", []).append(verified)
    return [
        row("`cp -r`, then sync", kinds["cp"], kinds["cp"], "1"),
        row("`to-hf --no-verify` : cp", kinds["to-hf"], kinds["cp"], "1.10"),
        row("`to-custom --no-verify` : cp", kinds["to-custom"], kinds["cp"], "1.10"),
        row("`to-hf` with verification : cp", kinds["to-hf, verified"], kinds["cp"], "-"),
        row("one read of both sides", kinds["read"], kinds["read"], "1"),
        row("what verification adds : that", kinds["verification"], kinds["read"], "1.5"),
    ]


def commands(directory: Path, rounds: int) -> list[str]:
    """The lines about commands that move no data."""
    app = directory / "smallest.py"
    app.write_text(_SMALLEST_APP, encoding="utf-8")
    pairs = [(run(sys.executable, str(app), "--help"), run(*_BRIDGE, "--help")) for _ in range(5 * rounds)]
    smallest, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    for preset in ("241b", "many"):
        run(sys.executable, "examples/synthetic.py", str(directory / preset), "--preset", preset)
    plan = [convert("to-hf", directory / "241b", directory / "output", "--dry-run") for _ in range(rounds)]
    there = convert("to-hf", directory / "many", directory / "hf-many")
    back = convert("to-custom", directory / "hf-many", directory / "back-many")
    convert(
        "to-hf", directory / "many", directory / "fused-many", "--layout", "l2", "--experts", "fused", "--no-verify"
    )
    repaired = convert("repair", directory / "fused-many", directory / "repaired-many")
    return [
        row("smallest Typer app `--help`", smallest, smallest, "1"),
        row("`internvl-bridge --help` : that", ours, smallest, "1.3"),
        row("plan of 241B-A28B (37,540 tensors)", plan, None, "2 s, 200 MiB"),
        row("`to-hf`, verified, of as many tensors", [there], None, "96 MiB"),
        row("`to-custom`, verified, of as many tensors", [back], None, "96 MiB"),
        row("`repair`, verified, of L2 with fused experts into as many", [repaired], None, "96 MiB"),
    ]


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description="Measure the converter, as ratios within one run.")
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: /tmp)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        lines = [*conversions(Path(name), arguments.rounds), *commands(Path(name), arguments.rounds)]
    print("| what | ratio | at most | wall s | CPU s | peak MiB |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
