"""Time one plain read of both sides of a conversion, and its verification: ``verification.py SOURCE OUTPUT``.

Prints both in seconds. Run by convert.py.
"""

import gc
import os
import sys
import time
from pathlib import Path

from internvl_bridge import to_hf
from internvl_bridge.progress import Advance


class Stopwatch:
    """A progress that measures how long the task "Verifying" takes."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def __call__(self, task: str, _total: int) -> Advance:
        """Begin a task; its last step ends it."""
        if task == "Verifying":
            self.began = time.perf_counter()
        return self._advance

    def _advance(self, _done: int) -> None:
        self.ended = time.perf_counter()


def read(directories: list[Path]) -> float:
    """Seconds that one read of all weights takes, into one buffer of a megabyte."""
    buffer = bytearray(1 << 20)
    start = time.perf_counter()
    for path in (path for directory in directories for path in sorted(directory.glob("*.safetensors"))):
        with path.open("rb", buffering=0) as file:
            while os.readv(file.fileno(), [buffer]):
                pass
    return time.perf_counter() - start


def main() -> None:
    """Convert, then print the two figures."""
    gc.disable()  # as the command line does
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    watch = Stopwatch()
    to_hf(source, output, progress=watch)
    print(read([source, output]), watch.ended - watch.began)


if __name__ == "__main__":
    main()
