"""Measure passes over the tensors of one model: ``python benchmarks/passes.py DIRECTORY``.

DIRECTORY is a custom checkpoint of safetensors files, for instance ``examples/synthetic.py many --preset many``. Prints
the CPU time of each way to convert it in memory, and its ratio to a pass of a Converter: the least of five rounds.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

import internvl_bridge


def least(work: Callable[[], object]) -> float:
    """The least CPU seconds of five rounds."""
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Measure, and print the table."""
    directory = Path(sys.argv[1])
    tensors = {
        key: tensor for path in sorted(directory.glob("*.safetensors")) for key, tensor in load_file(path).items()
    }
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    converter = internvl_bridge.Converter("to-hf", specs=tensors, config=config)
    works: dict[str, Callable[[], object]] = {
        "a pass of `Converter.convert`": lambda: converter.convert(tensors),
        "a pass of `Converter.stream`": lambda: list(converter.stream(tensors.items())),
        "`Converter(config=...)`, which plans": lambda: internvl_bridge.Converter("to-hf", config=config),
        "`convert_state_dict`": lambda: internvl_bridge.convert_state_dict(tensors, "to-hf", config=config),
        "`iter_converted`": lambda: list(internvl_bridge.iter_converted(tensors.items(), "to-hf", config=config)),
    }
    costs = {name: least(work) for name, work in works.items()}
    first = next(iter(costs.values()))
    print(f"{len(tensors):,} tensors\n\n| what | CPU s | ratio |\n|---|---|---|")
    for name, cost in costs.items():
        print(f"| {name} | {cost:.3f} | {cost / first:.1f} |")


if __name__ == "__main__":
    main()
