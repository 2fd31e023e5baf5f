"""Fuzz a parser with atheris, which is guided by the code that an input reaches.

    pip install atheris
    python fuzz/run.py header|index|config|beside [corpus directory] [atheris arguments, such as -max_total_time=300]

atheris is not a dependency of the package or of its tests. An input that breaks the law is written to a file
``crash-...`` in the working directory; ``python fuzz/run.py header crash-...`` shows it again.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["internvl_bridge", "json"]):
    from targets import TARGETS, seeds


def main() -> None:
    """Fuzz the target that the command line names until atheris is told to stop."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory(prefix="internvl-bridge-seeds-") as corpus:
        for number, seed in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        is_given = any(not argument.startswith("-") for argument in sys.argv[1:])
        atheris.Setup(sys.argv if is_given else [*sys.argv, corpus], lambda data: _run(name, data))
        atheris.Fuzz()


def _run(name: str, data: bytes) -> None:
    TARGETS[name](data)


if __name__ == "__main__":
    main()
