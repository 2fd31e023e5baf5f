"""Run tests on a mutant, in a process that starts with torch and transformers loaded."""

import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

import pytest

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["__main__", "pytest", "torch", "safetensors.torch", "transformers"])
_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Mutant:
    """A change of one file; ``name`` says which, and is the same in every run."""

    name: str
    path: Path
    text: str


def is_noticed(copy: Path, tests: list[str], mutant: Mutant | None = None, patience: float | None = None) -> bool:
    """Whether ``tests`` fail, or take over ``patience`` seconds, with a mutant (None: without any change)."""
    original = (copy / mutant.path).read_text() if mutant else ""
    try:
        if mutant:
            _write(copy / mutant.path, mutant.text)
        run = _PROCESSES.Process(target=_run_tests, args=(copy, tests))
        run.start()
        run.join(patience)
        if run.is_alive():
            os.killpg(run.pid or 0, signal.SIGKILL)
            run.join()
    finally:
        if mutant:
            _write(copy / mutant.path, original)
    return run.exitcode != 0


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    # Python takes compiled code for current if its source has the same size and was written in the same second.
    Path(cache_from_source(path)).unlink(missing_ok=True)


def _run_tests(copy: Path, tests: list[str]) -> None:
    os.setpgrp()  # whoever ends this group ends what its tests have started, too
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    with Path(os.devnull).open("r+b") as nothing:
        for standard in range(3):
            os.dup2(nothing.fileno(), standard)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the forkserver ignores it
    sys.exit(pytest.main([*_OPTIONS, *tests]))
