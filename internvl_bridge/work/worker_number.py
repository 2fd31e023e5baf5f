"""Know which of several workers a process is: its number is given, or its scheduler's environment states it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from internvl_bridge.errors import OptionError

_GIVEN = re.compile(r"(\d{1,6})/(\d{1,6})")
_AUTO = re.compile(r"auto(?:/(\d{1,6}))?")
_MOST = 999_999
_LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""Variables with a number from 0, and with how many there are: of torchrun, which may run within srun, and of srun.

https://docs.pytorch.org/docs/stable/elastic/run.html and https://slurm.schedmd.com/srun.html
"""
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
"""https://slurm.schedmd.com/job_array.html"""
_INDEX = "JOB_COMPLETION_INDEX"
"""Of Kubernetes' indexed jobs, from 0: https://kubernetes.io/docs/concepts/workloads/controllers/job/"""


@dataclass(frozen=True, slots=True)
class Worker:
    """Worker ``number`` (from 1) ``of`` so many."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def worker_of(text: str, environment: Mapping[str, str]) -> Worker:
    """The worker that ``text`` names: "I/N", or "auto" for what the ``environment`` states, or "auto/N" with N given.

    Raises OptionError if there is no such worker, or the environment does not say which one this is.

    Example:
        >>> worker_of("auto", {"RANK": "0", "WORLD_SIZE": "8"})
        Worker(number=1, of=8)
    """
    if given := _GIVEN.fullmatch(text):
        return _checked(int(given[1]), int(given[2]), "Workers are counted from 1")
    auto = _AUTO.fullmatch(text)
    if auto is None:
        raise OptionError(f"{text!r} is not a worker.", "Give one as I/N, for instance 1/4, or auto.")
    stated = None if auto[1] is None else int(auto[1])
    for found in (_launched(environment), _completing(environment, stated)):
        if found is None:
            continue
        number, of = found
        if stated not in {None, of}:
            raise OptionError(
                f"--worker {text} says that there are {stated} workers, and the environment that there are {of}.",
                f"Give --worker I/{stated} with its number, or --worker auto.",
            )
        return _checked(number, of, "The environment counts them from 0")
    wanted = ", ".join("/".join(names) for names in (*_LAUNCHERS, _ARRAY[:1]))
    if _numbers(environment, (_INDEX,)) is not None:
        raise OptionError(f"{_INDEX} does not say how many workers there are.", "Give --worker auto/N.")
    raise OptionError(
        f"The environment does not say which worker this is: {wanted} and {_INDEX} have no numbers.",
        "Give --worker I/N, for instance 1/4.",
    )


def _launched(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Number and count of a process that torchrun or Slurm has started."""
    found = next((pair for names in _LAUNCHERS if (pair := _numbers(environment, names)) is not None), None)
    array = _numbers(environment, _ARRAY)
    if array is None or _numbers(environment, _LAUNCHERS[0]) is not None:
        return found if found is None else (found[0] + 1, found[1])
    task, first, step, count = array
    element, rest = divmod(task - first, step or 1)
    if rest or not 0 <= element < count:
        raise OptionError(
            "The elements of this job array are not evenly numbered, so that they do not say which worker this is.",
            "Number them one after the other, or give --worker I/N.",
        )
    process, processes = found or (0, 1)
    return element * processes + process + 1, count * processes


def _completing(environment: Mapping[str, str], of: int | None) -> tuple[int, int] | None:
    """Number and count of a pod of an indexed job; it does not know how many there are."""
    number = _numbers(environment, (_INDEX,))
    return None if number is None or of is None else (number[0] + 1, of)


def _numbers(environment: Mapping[str, str], names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The numbers in the variables ``names``; None if one of them is not set, or not a number."""
    texts = [environment.get(name, "") for name in names]
    return tuple(map(int, texts)) if all(re.fullmatch(r"[0-9]{1,12}", text) for text in texts) else None


def _checked(number: int, of: int, counted: str) -> Worker:
    if of > _MOST:
        raise OptionError(f"{of} are more workers than there can be files.", f"Give at most {_MOST}.")
    if not 1 <= number <= of:
        raise OptionError(
            f"There is no worker {number} of {of}.", f"{counted}: give 1/{of or 1} to {of or 1}/{of or 1}."
        )
    return Worker(number, of)
