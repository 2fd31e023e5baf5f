"""Which of several workers a process is."""

import pytest

from internvl_bridge.errors import OptionError
from internvl_bridge.work.worker_number import Worker, worker_of

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8"}
SRUN = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "12",
    "SLURM_ARRAY_TASK_MIN": "10",
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "3",
}


@pytest.mark.parametrize(
    ("text", "environment", "worker"),
    [
        ("2/4", {}, Worker(2, 4)),
        ("2/4", TORCHRUN, Worker(2, 4)),
        ("auto", TORCHRUN, Worker(6, 8)),
        ("auto", SRUN, Worker(1, 4)),
        ("auto", {**SRUN, **TORCHRUN}, Worker(6, 8)),  # torchrun within srun: its ranks are of all machines
        ("auto", ARRAY, Worker(2, 3)),
        ("auto", {**ARRAY, **SRUN, "SLURM_PROCID": "3"}, Worker(8, 12)),
        ("auto", {**ARRAY, **TORCHRUN}, Worker(6, 8)),
        ("auto", {**SRUN, "RANK": "5"}, Worker(1, 4)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, Worker(8, 8)),
        ("auto/8", TORCHRUN, Worker(6, 8)),
    ],
)
def test_who_this_is(text: str, environment: dict[str, str], worker: Worker):
    assert worker_of(text, environment) == worker


@pytest.mark.parametrize(
    ("text", "environment", "reason"),
    [
        ("0/4", {}, "no worker 0 of 4. Workers are counted from 1: give 1/4 to 4/4"),
        ("5/4", {}, "no worker 5 of 4"),
        ("1/0", {}, "no worker 1 of 0"),
        ("2", {}, "'2' is not a worker"),
        ("auto", {"RANK": "0", "WORLD_SIZE": "1000000"}, "1000000 are more workers than there can be files"),
        ("auto", {"RANK": "9" * 5000, "WORLD_SIZE": "8"}, "have no numbers"),
        ("-1/4", {}, "is not a worker"),
        ("auto", {}, "SLURM_PROCID/SLURM_NTASKS, SLURM_ARRAY_TASK_ID and JOB_COMPLETION_INDEX have no numbers"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "does not say how many .* Give --worker auto/N"),
        ("auto/4", {}, "have no numbers"),
        ("auto/4", {"JOB_COMPLETION_INDEX": ""}, "have no numbers"),
        ("auto/4", TORCHRUN, "that there are 4 workers, and the environment that there are 8"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "no worker 5 of 4. The environment counts them from 0"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "8"}, "have no numbers"),
        ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "13"}, "not evenly numbered"),
        ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "30"}, "not evenly numbered"),
    ],
)
def test_who_there_is_not(text: str, environment: dict[str, str], reason: str):
    with pytest.raises(OptionError, match=reason):
        worker_of(text, environment)
