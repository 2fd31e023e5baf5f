"""A process that runs one call of the library after another, each in a child with little memory and little time.

It imports no torch, so that a child is made in milliseconds, and so that a library that did would be noticed.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

MEMORY = 1536 << 20
SECONDS = 30


def environment():
    """That of a process which uses the same package as this one, and writes no bytecode."""
    import internvl_bridge

    home = Path(internvl_bridge.__file__).parent.parent
    return {**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


class Jail:
    """Calls functions of :mod:`internvl_bridge` by name, in a process of its own; closed at the end of its ``with``."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def call(self, function, *arguments, memory=MEMORY, seconds=SECONDS):
        """What became of the call.

        ``returned``: what it gave. ``raised``: the names of the exception's classes; ``message``: its text. ``died``:
        the signal that ended it. ``mebibytes``: what it needed at most.
        """
        request = {
            "function": function,
            "arguments": [str(argument) for argument in arguments],
            "memory": memory,
            "seconds": seconds,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _serve():
    import internvl_bridge

    for name in ("to_hf", "to_custom", "repair", "inspect", "verify"):
        getattr(internvl_bridge, name)  # imported before the fork: a child then costs nothing
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_in_child(internvl_bridge, json.loads(line))) + "\n")
        sys.stdout.flush()


def _in_child(package, request):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
        signal.alarm(request["seconds"])  # nobody handles it: it ends even a call that waits in the kernel
        answer = json.dumps(_answer(package, request)).encode()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    result = {"died": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else json.loads(answer)
    return {**result, "mebibytes": usage.ru_maxrss >> 10}


def _answer(package, request):
    try:
        function = _CONTROLS.get(request["function"]) or getattr(package, request["function"])
        result = function(*map(Path, request["arguments"]))
    except BaseException as error:  # noqa: BLE001 (what it is is what is asked)
        return {"raised": [kind.__name__ for kind in type(error).__mro__], "message": str(error)}
    return {"returned": {name: _plain(result, name) for name in ("refusal", "identical", "notes")}}


def _plain(result, name):
    value = getattr(result, name, None)
    return list(value) if isinstance(value, tuple) else value


def _wait(path):
    """What a careless reader of a FIFO does."""
    path.read_bytes()


def _swell(path):
    """What a careless parser of ``path`` does."""
    return [bytearray(1 << 20) for _ in range(10_000)], path


_CONTROLS = {"wait": _wait, "swell": _swell}


if __name__ == "__main__":
    _serve()
