"""Run many independent pieces of work in processes of this machine, or on a Ray cluster.

Not a command. `python embed.py COUNTRY.osm.pbf -o FOLDER/ --engine ray` uses it.
"""

import contextlib
import dataclasses
import shutil
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from cli import StopSignal, UserError
from progress_bars import warn
from streaming import PRELOAD
from tile_workers import start_workers

ATTEMPTS = 3  # a piece that fails so often is given up
PER_GPU = 4  # processes that share a GPU: drawing, on the CPU, is most of the work
POLL_S = 0.5
CONNECT_S = 5
START_RAY = "`ray start --head` starts one"
SHIPPED = ("*.py", "*.toml")  # of this folder, what a Ray worker on another machine needs


@dataclasses.dataclass(frozen=True)
class Task:
    """A piece of work; `load` gives its arguments when it is handed out, as a file or as its content."""

    name: str
    load: Callable[[bool], tuple]


@dataclasses.dataclass(frozen=True)
class Done:
    """The result of a task, or why it was given up."""

    name: str
    value: Any = None
    error: str | None = None


class Engine(Protocol):
    """Runs `function(*shared, *task.load(...))` for each task and gives the results as they are finished.

    A task that fails is tried again, `ATTEMPTS` times in all. After SIGINT or SIGTERM no more tasks are handed out;
    those that run are finished and given, then `StopRequested` is raised.
    """

    def run(self, function: Callable, shared: tuple, tasks: Iterable[Task]) -> Iterator[Done]:
        """See above."""
        ...


@contextlib.contextmanager
def open_engine(name: str, jobs: int, address: str | None) -> Iterator[Engine]:
    """The engine `local` or `ray`. Raises `UserError` if Ray is not installed or not reached."""
    if name == "local":
        yield LocalEngine(jobs)
        return
    engine = RayEngine(jobs, address)
    try:
        yield engine
    finally:
        engine.close()


# --- this machine ------------------------------------------------------------------------------------------


class LocalEngine:
    """Processes of this machine. A process that is killed is replaced, and what it worked on is tried again."""

    def __init__(self, jobs: int):
        self.jobs = jobs

    def run(self, function: Callable, shared: tuple, tasks: Iterable[Task]) -> Iterator[Done]:
        """Run all tasks; see `Engine`."""
        waiting, again = iter(tasks), deque[Task]()
        suspects = deque[Task]()  # were running when a process was lost; one at a time tells which of them ends it
        attempts: Counter[str] = Counter()
        pool, running = start_workers(self.jobs, PRELOAD), dict[Future, Task]()
        alone = False  # a suspect is running
        with StopSignal() as stop:
            try:
                while True:
                    alone = alone and bool(running)
                    most = 1 if suspects or alone else self.jobs + 1
                    while len(running) < most and not stop.requested:
                        alone = bool(suspects)
                        task = _next(suspects, again, waiting)
                        if task is None:
                            break
                        running[_submit(pool, function, (*shared, *task.load(False)))] = task
                    if not running:
                        break
                    done = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED).done
                    if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                        lost = list(running.values())
                        warn(f"a process was ended from outside while it worked on {', '.join(t.name for t in lost)}")
                        pool.shutdown()
                        pool, running = start_workers(self.jobs, PRELOAD), {}
                        if len(lost) > 1:
                            suspects.extend(lost)
                        elif (given_up := _failed(lost[0], "its process was ended", attempts)) is None:
                            suspects.append(lost[0])
                        else:
                            yield given_up
                        continue
                    for future in done:
                        task = running.pop(future)
                        error = future.exception()
                        if error is None:
                            yield Done(task.name, future.result())
                        elif (given_up := _failed(task, _reason(error), attempts)) is not None:
                            yield given_up
                        else:
                            again.append(task)
            finally:
                pool.shutdown(cancel_futures=True)
            stop.raise_if_requested()


def _submit(pool: Any, function: Callable, args: tuple) -> Future:
    """Hand out a call. An error in it, or a pool that has just lost a process, is the future's own."""
    try:
        return pool.submit(function, *args)
    except Exception as error:  # noqa: BLE001 - a serial executor raises what the function raises
        failed: Future = Future()
        failed.set_exception(error)
        return failed


def _next(suspects: deque[Task], again: deque[Task], waiting: Iterator[Task]) -> Task | None:
    if suspects:
        return suspects.popleft()
    task = next(waiting, None)
    return task if task is not None or not again else again.popleft()


def _failed(task: Task, reason: str, attempts: Counter[str]) -> Done | None:
    """Count a failure; the outcome, if it was the last attempt."""
    attempts[task.name] += 1
    if attempts[task.name] < ATTEMPTS:
        warn(f"{task.name} failed ({reason}); it is tried again")
        return None
    return Done(task.name, error=reason)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


# --- Ray ---------------------------------------------------------------------------------------------------


def check_ray(address: str | None) -> Any:
    """The module `ray`. Raises `UserError` if it is not installed, and if nothing answers at `address`."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray needs Ray, which is not installed; run `pip install -r requirements-ray.txt`"
        ) from None
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:  # Ray itself would wait for a minute and then end the process
            socket.create_connection((host, int(port)), CONNECT_S).close()
        except OSError as error:
            raise UserError(f"no Ray cluster at --address {address}: {_reason(error)}; {START_RAY}") from None
    return ray


class RayEngine:
    """Tasks on a Ray cluster, or on a Ray that is started on this machine with `jobs` processes.

    Arguments and results travel through Ray's object store, so no file system need be shared. Where the cluster has
    GPUs, actors hold a share of one each.
    """

    def __init__(self, jobs: int, address: str | None = None):
        self.ray = ray = check_ray(address)
        self.folder = Path(tempfile.mkdtemp(prefix="loc2vec-"))
        for pattern in SHIPPED:
            for path in Path(__file__).parent.glob(pattern):
                shutil.copy2(path, self.folder)
        where: dict[str, Any] = {"address": "local", "num_cpus": jobs} if address is None else {"address": address}
        variables = {"OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        try:
            ray.init(**where, runtime_env={"working_dir": str(self.folder), "env_vars": variables})
        except (ConnectionError, RuntimeError, ValueError) as error:
            self._remove()
            raise UserError(f"no Ray cluster at --address {address}: {_reason(error)}; {START_RAY}") from None

    def close(self) -> None:
        """Leave the cluster; a Ray that was started here ends."""
        self.ray.shutdown()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, function: Callable, shared: tuple, tasks: Iterable[Task]) -> Iterator[Done]:
        """Run all tasks; see `Engine`."""
        ray, waiting, again, attempts = self.ray, iter(tasks), deque[Task](), Counter[str]()
        stored = [ray.put(value) for value in shared]
        workers = self._actors(function) or _RayTasks(self, function)
        running: dict[Any, Task] = {}
        with StopSignal() as stop:
            while True:
                while len(running) < workers.most() and not stop.requested:
                    task = _next(deque(), again, waiting)
                    if task is None:
                        break
                    running[workers.submit(*stored, *task.load(True))] = task
                if not running:
                    break
                for reference in ray.wait(list(running), num_returns=1, timeout=POLL_S)[0]:
                    task = running.pop(reference)
                    workers.finished(reference)
                    try:
                        value = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        given_up = _failed(task, _ray_reason(error), attempts)
                        if given_up is None:
                            again.append(task)
                        else:
                            yield given_up
                    else:
                        yield Done(task.name, value)
            stop.raise_if_requested()

    def cores(self) -> int:
        """Cores of the cluster; workers may come and go."""
        return int(self.ray.cluster_resources().get("CPU", 1))

    def _actors(self, function: Callable) -> "_RayActors | None":
        gpus = int(self.ray.cluster_resources().get("GPU", 0))
        return _RayActors(self, function, min(self.cores(), gpus * PER_GPU), gpus) if gpus else None


def _ray_reason(error: Any) -> str:
    return _reason(getattr(error, "cause", None) or error)


class _RayTasks:
    """One task for each piece of work; Ray tries it again elsewhere when a process or a machine is lost."""

    def __init__(self, engine: RayEngine, function: Callable):
        self.engine = engine
        self.remote = engine.ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(function)
        self.asked, self.count = float("-inf"), 0

    def most(self) -> int:
        """Tasks to hand out at a time: a few more than there are cores."""
        if time.monotonic() - self.asked > 5:
            self.asked, self.count = time.monotonic(), self.engine.cores() + 2
        return self.count

    def submit(self, *args: Any) -> Any:
        """Hand out a call."""
        return self.remote.remote(*args)

    def finished(self, reference: Any) -> None:
        """Nothing to do: a task holds nothing."""


class _RayActors:
    """Processes that each hold a share of a GPU; they start again when they are lost."""

    def __init__(self, engine: RayEngine, function: Callable, count: int, gpus: int):
        def call(_: Any, *args: Any) -> Any:
            return function(*args)

        worker = type("BlockWorker", (), {"call": call})
        remote = engine.ray.remote(num_cpus=1, num_gpus=gpus / count, max_restarts=-1, max_task_retries=ATTEMPTS - 1)
        self.idle, self.busy = deque(remote(worker).remote() for _ in range(count)), dict[Any, Any]()

    def most(self) -> int:
        """One call for each actor."""
        return len(self.idle) + len(self.busy)

    def submit(self, *args: Any) -> Any:
        """Hand a call to an idle actor."""
        actor = self.idle.popleft()
        reference = actor.call.remote(*args)
        self.busy[reference] = actor
        return reference

    def finished(self, reference: Any) -> None:
        """The actor of this call is idle again."""
        self.idle.append(self.busy.pop(reference))
