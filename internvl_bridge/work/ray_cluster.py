"""A Ray cluster as an executor of Python's own kind. The only module that imports Ray."""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from typing import Any

from internvl_bridge.errors import OptionError
from internvl_bridge.work.workers import LIMIT_OF_WORKERS

_AT_A_TIME = 4
"""Files that are written at a time for each machine: more compete for its network or its disk."""
_PATIENCE = 5.0
"""Seconds in which a cluster should answer."""
_RETRIES = 3
"""How often work is given to another worker when one has died."""


class RayExecutor(Executor):
    """Gives work to the Ray cluster that this process is connected to, spread over its machines.

    Work whose worker, or whose machine, has died is given to another one, three times at most. ``at_a_time`` is how
    much the cluster should do at a time: four times as much as it has machines, if it has so many cores.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        self._tasks: dict[Callable[..., Any], Any] = {}
        cores = int(ray.cluster_resources().get("CPU", 1))
        self.at_a_time = max(1, min(cores, _AT_A_TIME * len(alive), LIMIT_OF_WORKERS))

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Give ``work`` on ``arguments`` to the cluster."""
        if work not in self._tasks:
            how = {"num_cpus": 1, "max_retries": _RETRIES, "scheduling_strategy": "SPREAD"}
            self._tasks[work] = self._ray.remote(work).options(**how)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._tasks[work].remote(*arguments, **options).future().add_done_callback(
            lambda done: self._hand_on(done, future)
        )
        return future

    def _hand_on(self, done: Future[Any], future: Future[Any]) -> None:
        """Let ``future`` have what ``done`` has, with the errors of the work itself in place of Ray's."""
        error = done.exception()
        exceptions = self._ray.exceptions
        if error is None:
            future.set_result(done.result())
        elif isinstance(error, exceptions.RayTaskError) and isinstance(error.cause, Exception):
            future.set_exception(error.cause)
        elif isinstance(error, exceptions.RayError):
            future.set_exception(BrokenExecutor(str(error).strip().partition("\n")[0]))
        else:
            future.set_exception(error)


@contextmanager
def ray_executor(address: str) -> Iterator[RayExecutor]:
    """The Ray cluster at ``address``, as "ray start" prints it, or "auto"; "local" starts one on this machine.

    Raises OptionError if Ray is not installed, or there is no such cluster.
    """
    try:
        import ray  # noqa: PLC0415 (an optional dependency)
    except ModuleNotFoundError as error:
        raise OptionError("--ray needs Ray, which is not installed.", "pip install 'internvl-bridge[ray]'") from error
    _check_address(address)
    stopping = signal.getsignal(signal.SIGTERM)
    dashboard = False if address == "local" else None  # a cluster that ends with this command needs none
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=dashboard)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, error) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stopping)  # Ray's own would end the process in the middle of anything
    try:
        yield RayExecutor(ray)
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise OptionError if nobody listens at ``address``: Ray would try for many minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: BaseException) -> OptionError:
    why = str(error).strip().partition("\n")[0].rstrip(".")
    return OptionError(
        f"There is no Ray cluster at {address}: {why}.",
        "Give the address that 'ray start --head' prints, or auto, or local.",
    )
