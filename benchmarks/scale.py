"""Compute what 241B takes with many workers, from its plan and rates measured here: ``python benchmarks/scale.py``.

Needs about 5 GB in DIR: a checkpoint of 2 GB in 1B's shapes, what is made of it, and the headers of 241B as sparse
files. The first table is measured. The second one is computed from it: every worker is a machine like this one, and
the file system gives each as much as this disk gives one. The third says from how many workers on a file system of a
given bandwidth is the limit instead.
"""

import argparse
import math
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import prepare
from internvl_bridge.convert.shares import shares
from internvl_bridge.mapping.formats import Format
from internvl_bridge.storage.output_shards import OutputShard

_ROOT = Path(__file__).resolve().parent.parent
_BRIDGE = (sys.executable, "-m", "internvl_bridge")
_COUNTS = (1, 8, 64)
_BANDWIDTHS = (2e9, 10e9, 50e9, 200e9)
"""Bytes a second, read and written together: of one NFS server, and of parallel file systems from small to large."""
_TRAFFIC = 3
"""Times that each byte passes: it is read, written, and read back. The source is compared from memory."""
_GIGABYTE = 1e9


def seconds(*command: object) -> float:
    """The wall seconds of a command of the program, synced; ``plan`` may say that the disk is too small."""
    start = time.perf_counter()
    code = subprocess.run([*_BRIDGE, *map(str, command)], cwd=_ROOT, check=False, capture_output=True).returncode
    subprocess.run(["sync"], check=True)
    if code not in {0, 2} or (code and command[0] != "plan"):
        raise RuntimeError(f"{' '.join(map(str, command))} failed")
    return time.perf_counter() - start


def forget(directory: Path) -> None:
    """Drop the files below ``directory`` from the page cache: another machine has not read them."""
    for path in directory.rglob("*.safetensors"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def measured(directory: Path, source: Path, rounds: int) -> tuple[float, float]:
    """Bytes a second of one worker that writes and verifies, and of finishing, the best of so many ``rounds``."""
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    writes, finishes = [], []
    for _ in range(rounds):
        output = directory / "output"
        forget(source)
        writes.append(seconds("to-hf", source, output, "--quiet", "--max-shard-size", "500MB", "--worker", "1/1"))
        forget(output.with_name("output.partial"))
        finishes.append(seconds("finish", output, "--quiet"))
        shutil.rmtree(output)
    return size / min(writes), size / min(finishes)


def shards_of(source: Path, directory: Path, size: str | None) -> tuple[OutputShard, ...]:
    """The files that a conversion of ``source`` writes, of the given ``size``."""
    options = Options(max_shard_size=size)
    return prepare(source, directory / "planned", (Format.CUSTOM, Format.HF), options).shards


@dataclass(frozen=True)
class Row:
    """What so many workers take: how uneven their shares are, seconds, and bytes a second of the file system."""

    unevenness: float
    writing: float
    finishing: float
    traffic: float

    @classmethod
    def of(cls, shards: Sequence[OutputShard], workers: int, start: float, rates: tuple[float, float]) -> "Row":
        """The row of ``workers`` that each plan for ``start`` seconds; ``rates`` are of writing and of finishing."""
        sizes = {shard.name: shard.size for shard in shards}
        total = sum(sizes.values())
        largest = max(sum(sizes[name] for name in share) for share in shares(shards, workers))
        writing = start + largest / rates[0]
        return cls(largest * workers / total, writing, start + total / rates[1], _TRAFFIC * total / writing)

    def __str__(self) -> str:
        times = f"{self.writing:.0f} | {self.finishing:.0f}"
        return f"{self.unevenness:.2f} | {times} | {self.traffic / _GIGABYTE:.1f}"


def main() -> None:
    """Parse the command line, measure, compute, print the tables."""
    parser = argparse.ArgumentParser(description="Compute what many workers take.")
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: /tmp)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    synthetic = runpy.run_path(str(_ROOT / "examples" / "synthetic.py"))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        synthetic["make"](directory / "1b", synthetic["PRESETS"]["1b"])
        synthetic["make"](directory / "241b", replace(synthetic["PRESETS"]["241b"], sparse=True))
        write, finish = measured(directory, directory / "1b", arguments.rounds)
        start = min(seconds("plan", directory / "241b") for _ in range(arguments.rounds))
        print(f"| measured here | |\n|---|---|\n| one worker, verified | {write / _GIGABYTE:.2f} GB/s |")
        print(f"| `finish`, which reads once | {finish / _GIGABYTE:.2f} GB/s |\n| plan of 241B | {start:.2f} s |\n")
        print("| files | workers | largest share : mean | seconds to write | seconds to finish | GB/s in all |")
        print("|---|---|---|---|---|---|")
        for size in (None, "1GB"):
            shards = shards_of(directory / "241b", directory, size)
            what = f"{len(shards)}" if size is None else f"{len(shards)} (`--max-shard-size {size}`)"
            for count in _COUNTS:
                row = Row.of(shards, count, start, (write, finish))
                print(f"| {what} | {count} | {row} |")
        total = sum(shard.size for shard in shards)
    print("\n| file system, GB/s | is the limit from so many workers on | seconds to write 241B then |\n|---|---|---|")
    for bandwidth in _BANDWIDTHS:
        workers, taken = math.ceil(bandwidth / (_TRAFFIC * write)), _TRAFFIC * total / bandwidth
        print(f"| {bandwidth / _GIGABYTE:.0f} | {workers} | {taken:.0f} |")


if __name__ == "__main__":
    main()
