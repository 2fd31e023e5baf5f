"""Measure the converter against ``cp``, a plain converter and plain reading, as ratios within one run.

    python benchmarks/convert.py [--directory DIR] [--rounds N] [--sizes 1b 8b]

Needs about 11 GB in DIR for 1b (2 GB of weights) and 62 GB for 8b (12 GB). Machines are noisy and disks differ, so that
only ratios between neighbours of the same round mean anything; the table gives their medians. Everything is synced to
the disk (the others by ``sync``, the converter by its own fsync), and every source is read just before, so that the
page cache holds it as far as it can. The line of ``dd`` is the disk itself: as many bytes, from memory, past the page
cache; nothing that writes them can be faster. In a DIR whose file system shares blocks (XFS, btrfs) the table has a
line for ``cp --reflink``, and the limits are those of cloning.

How long ``cp`` takes depends on the memory that the page cache gets for it. In a virtual machine, memory that was not
in use before costs more than the disk: the first ``cp`` after a while may take three times as long as the next one.
The table gives the least ratio of all rounds, too.
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
_DIRECT = ("status=none", "oflag=direct", "conv=fsync")
_LIMITS = {"1b": "0.70", "8b": "0.45"}
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


def run(*command: str, accepted: Sequence[int] = (0,)) -> Cost:
    """Run a command to its end and weigh it. Raises RuntimeError for an exit code that is not ``accepted``."""
    start = time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:
        expected = nowhere if len(accepted) > 1 else None
        process = subprocess.Popen(command, stdout=nowhere, stderr=expected, cwd=_ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        raise RuntimeError(f"{' '.join(command)} failed")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def fresh(source: Path, output: Path, work: Callable[[], Cost]) -> Cost:
    """Do ``work``, which makes ``output``, on a quiet disk and with ``source`` in memory; then remove what it made."""
    for path in source.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass
    os.sync()
    cost = work()
    shutil.rmtree(output)
    return cost


def synced(*command: str) -> Cost:
    """A command, and all that it wrote brought to the disk."""
    return run("sh", "-c", '"$@" && sync', "sh", *command)


def zeros(output: Path, size: int) -> Cost:
    """The disk itself: ``size`` bytes of zeros into one file, in pieces of 2 MiB, past the page cache if it can be."""
    output.mkdir()
    try:
        return run("dd", "if=/dev/zero", f"of={output / 'zeros'}", "bs=2M", f"count={size >> 21}", *_DIRECT)
    except RuntimeError:  # tmpfs before Linux 6.6, some network file systems
        return run("dd", "if=/dev/zero", f"of={output / 'zeros'}", "bs=2M", f"count={size >> 21}", _DIRECT[-1])


def zeros_read_back(output: Path, size: int) -> Cost:
    """As :func:`zeros`, then all of them once more from the disk: what verifying costs at least."""
    written = zeros(output, size)
    try:
        read = run("dd", f"if={output / 'zeros'}", "of=/dev/null", "bs=2M", "iflag=direct", "status=none")
    except RuntimeError:
        read = run("dd", f"if={output / 'zeros'}", "of=/dev/null", "bs=2M", "status=none")
    return Cost(written.wall + read.wall, written.cpu + read.cpu, max(written.peak, read.peak))


def convert(command: str, source: Path, target: Path, *options: str) -> Cost:
    """One conversion by the command line."""
    return run(*_BRIDGE, command, "--quiet", *options, str(source), str(target))


def shares_blocks(directory: Path) -> bool:
    """Whether ``cp --reflink=always`` works in ``directory``."""
    one, other = directory / "one", directory / "other"
    one.write_bytes(bytes(4096))
    done = subprocess.run(["cp", "--reflink=always", one, other], check=False, capture_output=True)
    one.unlink()
    other.unlink(missing_ok=True)
    return done.returncode == 0


def row(name: str, costs: Sequence[Cost], base: Sequence[Cost] | None, limit: str) -> str:
    """A line of the table: the median ratios of ``costs`` to ``base``, round by round, if there is one."""
    if base is None:
        ratio = least = cpu_ratio = "-"
    else:
        pairs = list(zip(costs, base, strict=True))
        ratios = [c.wall / other.wall for c, other in pairs]
        ratio, least = f"{median(ratios):.2f}", f"{min(ratios):.2f}"
        cpu_ratio = f"{median(c.cpu / other.cpu for c, other in pairs):.2f}"
    wall, cpu = median(cost.wall for cost in costs), median(cost.cpu for cost in costs)
    peak = max(cost.peak for cost in costs)
    return f"| {name} | {ratio} | {least} | {limit} | {cpu_ratio} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |"


def conversions(directory: Path, size: str, rounds: int) -> list[str]:
    """The lines about a checkpoint of ``size``."""
    custom, hf, output = directory / "custom", directory / "hf", directory / "output"
    run(sys.executable, "examples/synthetic.py", str(custom), "--preset", size)
    convert("to-hf", custom, hf)
    shared = shares_blocks(directory)
    adapter = directory / "adapter"
    run(sys.executable, "benchmarks/adapter.py", str(custom), str(adapter))
    merging = ("--adapter", str(adapter))
    plain = (sys.executable, "benchmarks/plain.py", str(custom), str(output))
    pieces, eaten = directory / "pieces", directory / "eaten"
    convert("to-custom", hf, pieces, "--max-shard-size", "500MB", "--no-verify")
    stored = sum(path.stat().st_size for path in custom.iterdir())

    def consume() -> Cost:
        shutil.copytree(pieces, eaten)
        os.sync()
        cost = convert("to-hf", eaten, output, "--consume", "--yes")
        shutil.rmtree(eaten)
        return cost

    works: dict[str, tuple[Path, Callable[[], Cost]]] = {
        "cp": (custom, lambda: synced("cp", "-r", "--reflink=never", str(custom), str(output))),
        "to-hf": (custom, lambda: convert("to-hf", custom, output, "--no-verify")),
        "to-hf, verified": (custom, lambda: convert("to-hf", custom, output)),
        "plain": (custom, lambda: synced(*plain)),
        "dd": (custom, lambda: zeros(output, stored)),
        "dd, read back": (custom, lambda: zeros_read_back(output, stored)),
        "link": (pieces, lambda: convert("to-hf", pieces, output, "--link", "hard")),
        "consume": (pieces, consume),
        "merge": (custom, lambda: convert("merge", custom, output, *merging, "--no-verify")),
        "merge, verified": (custom, lambda: convert("merge", custom, output, *merging)),
        "to-custom": (hf, lambda: convert("to-custom", hf, output, "--no-verify")),
        "to-custom, verified": (hf, lambda: convert("to-custom", hf, output)),
    }
    if shared:
        works["reflink"] = (custom, lambda: synced("cp", "-r", "--reflink=always", str(custom), str(output)))
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (source, work) in works.items():
            costs[name].append(fresh(source, output, work))
    compared = comparisons(directory, size, rounds)
    for place in (custom, adapter, pieces):
        shutil.rmtree(place)
    cp, back, limit = costs["cp"], costs["dd, read back"], "0.10" if shared else _LIMITS[size]
    merging_limit = "2.00" if size == "8b" else "-"  # less than that is mostly the start of torch
    reflink = [row(f"{size}: `cp -r --reflink`, then sync", costs["reflink"], cp, "-")] if shared else []
    return [
        row(f"{size}: `cp -r`, then sync", cp, cp, "1"),
        *reflink,
        row(f"{size}: `dd` of zeros past the page cache : cp", costs["dd"], cp, "-"),
        row(f"{size}: `to-hf --no-verify` : cp", costs["to-hf"], cp, limit),
        row(f"{size}: `to-custom --no-verify` : cp", costs["to-custom"], cp, limit),
        row(f"{size}: `to-hf`, verified : cp", costs["to-hf, verified"], cp, "1.30"),
        row(f"{size}: `to-custom`, verified : cp", costs["to-custom, verified"], cp, "1.30"),
        row(f"{size}: `to-hf`, verified : `dd`, written and read back", costs["to-hf, verified"], back, "-"),
        row(f"{size}: `to-custom`, verified : that", costs["to-custom, verified"], back, "-"),
        row(f"{size}: `to-hf --link hard` of files of 500 MB : cp", costs["link"], cp, "-"),
        row(f"{size}: `to-hf --consume` of them : `to-hf`, verified", costs["consume"], costs["to-hf, verified"], "-"),
        row(f"{size}: `merge --no-verify` of all-linear, rank 16 : `dd`", costs["merge"], costs["dd"], merging_limit),
        row(f"{size}: `merge`, verified : `dd`", costs["merge, verified"], costs["dd"], "-"),
        row(f"{size}: safetensors and torch, synced : cp", costs["plain"], cp, "-"),
        row(f"{size}: that : `to-hf --no-verify`", costs["plain"], costs["to-hf"], "at least 5"),
        row(f"{size}: `to-hf --no-verify` : `dd`", costs["to-hf"], costs["dd"], "-"),
        *compared,
    ]


def comparisons(directory: Path, size: str, rounds: int) -> list[str]:
    """The lines about comparing the checkpoint in custom with its HF twin, which goes, and with one that differs."""
    custom, hf, merged = directory / "custom", directory / "hf", directory / "merged"

    def measured(other: Path) -> tuple[list[Cost], list[Cost]]:
        both = [str(path) for place in (custom, other) for path in place.glob("*.safetensors")]
        reading, verifying = [], []
        for _ in range(rounds):
            run("cat", *both, accepted=(0, 1))
            reading.append(run("cat", *both, accepted=(0, 1)))
            verifying.append(run(*_BRIDGE, "verify", str(custom), str(other), accepted=(0, 1)))
        return verifying, reading

    equal, reading = measured(hf)
    shutil.rmtree(hf)
    convert("merge", custom, merged, "--adapter", str(directory / "adapter"))
    different, reading_others = measured(merged)
    report = ("--report", str(directory / "report.html"))
    reported = [run(*_BRIDGE, "verify", str(custom), str(merged), *report, accepted=(1,)) for _ in range(rounds)]
    shutil.rmtree(merged)
    return [
        row(f"{size}: `verify` of equal ones : `cat` of both", equal, reading, "-"),
        row(f"{size}: `verify` of ones that differ : `cat` of both", different, reading_others, "-"),
        row(f"{size}: that with `--report` : without", reported, different, "-"),
    ]


def commands(directory: Path, rounds: int) -> list[str]:
    """The lines about commands that move little or no data."""
    app = directory / "smallest.py"
    app.write_text(_SMALLEST_APP, encoding="utf-8")
    pairs = [(run(sys.executable, str(app), "--help"), run(*_BRIDGE, "--help")) for _ in range(5 * rounds)]
    smallest, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    for preset in ("241b", "many"):
        run(sys.executable, "examples/synthetic.py", str(directory / preset), "--preset", preset)
    fits_or_not = (0, 2)
    plan = [run(*_BRIDGE, "plan", str(directory / "241b"), accepted=fits_or_not) for _ in range(rounds)]
    report = ("--report", str(directory / "report.html"))
    pictured = [run(*_BRIDGE, "plan", str(directory / "241b"), *report, accepted=fits_or_not) for _ in range(rounds)]
    there = convert("to-hf", directory / "many", directory / "hf-many")
    back = convert("to-custom", directory / "hf-many", directory / "back-many")
    fused = ("--layout", "l2", "--experts", "fused", "--no-verify")
    convert("to-hf", directory / "many", directory / "fused-many", *fused)
    repaired = convert("repair", directory / "fused-many", directory / "repaired-many")
    return [
        row("smallest Typer app `--help`", smallest, smallest, "1"),
        row("`internvl-bridge --help` : that", ours, smallest, "1.3"),
        row("`plan` of 241B-A28B (481 GB, 37,540 tensors)", plan, None, "1 s, 128 MiB"),
        row("that with `--report` : without", pictured, plan, "3 s more, 300 MiB"),
        row("`to-hf`, verified, of as many tensors", [there], None, "96 MiB"),
        row("`to-custom`, verified, of as many tensors", [back], None, "96 MiB"),
        row("`repair`, verified, of L2 with fused experts into as many", [repaired], None, "96 MiB"),
    ]


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description="Measure the converter, as ratios within one run.")
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: /tmp)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="*", choices=sorted(_LIMITS), default=["1b"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        lines = [line for size in arguments.sizes for line in conversions(Path(name), size, arguments.rounds)]
        lines += commands(Path(name), arguments.rounds)
    print("| what | wall ratio | least | at most | CPU ratio | wall s | CPU s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
