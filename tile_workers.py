"""Draw tiles in several processes.

Not a command; `python render_tiles.py --jobs 4` uses it.
"""

import contextlib
import copy
import dataclasses
import functools
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_all_start_methods, get_context, parent_process, resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cli import StopSignal, WorkError
from map_index import DrawIndex
from progress_bars import progress
from tile_area import TileArea
from tile_grid import metatiles_of
from tile_painter import Painter
from tile_writer import TileWriter

WINDOWS_MAX_PROCESSES = 61  # Windows cannot wait for more


@dataclasses.dataclass(frozen=True)
class DrawJob:
    """What every drawing process needs to know; the index lies in `folder`."""

    folder: Path
    root: Path
    zoom: int
    tile_px: int
    token: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))  # another run, another index


def draw_tiles(
    job: DrawJob, area: TileArea, index: DrawIndex, missing: np.ndarray, pool: Executor, jobs: int
) -> np.ndarray:
    """Draw the `(tile, layer)` that are `missing (N, 12) bool`; return which of them show something: `(N, 12) bool`.

    Raises `StopRequested` after a signal, with the metatiles in work finished.
    """
    index.save(job.folder)
    tiles = np.flatnonzero(missing.any(axis=1))
    place = area.unwrapped_xy
    tasks = ((job, part, place[part], missing[part]) for part in metatiles_of(tiles, place))
    inked = np.zeros_like(missing)
    try:
        with progress(total=len(tiles), desc="drawing", unit=" tiles") as bar:
            for drawn, shown in completed(pool, _draw_metatile, tasks, 2 * jobs):
                inked[tuple(np.array(shown, dtype=np.int64).reshape(-1, 2).T)] = True
                bar.update(len(drawn))
    finally:
        pool.shutdown(cancel_futures=True)
    return inked


def completed(pool: Executor, function: Callable, tasks: Iterable[tuple], at_once: int) -> Iterator[Any]:
    """The results of `function(*task)` for each task, as they are finished.

    Only `at_once` tasks are handed out at a time, so that memory is bounded and a stop is prompt. After SIGINT or
    SIGTERM no more are handed out; the results of those that run are still given, then `StopRequested` is raised.
    Raises `WorkError` when a process is lost.
    """
    waiting = iter(tasks)
    with StopSignal() as stop:
        try:
            running = {pool.submit(function, *task) for task in islice(waiting, at_once)}
            while running:
                done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                    running |= {pool.submit(function, *task) for task in islice(waiting, 0 if stop.requested else 1)}
        except BrokenProcessPool:
            raise WorkError(
                "a drawing process was ended from outside (out of memory?); the same command goes on where it "
                "stopped, --jobs 1 needs least memory"
            ) from None
        stop.raise_if_requested()


@functools.lru_cache(maxsize=1)
def _painter_and_writer(job: DrawJob) -> tuple[Painter, TileWriter]:
    """The painter and the writer of this process."""
    return Painter(DrawIndex.load(job.folder), job.tile_px), TileWriter(job.root, job.zoom, job.tile_px)


def _draw_metatile(
    job: DrawJob, tiles: np.ndarray, place: np.ndarray, missing: np.ndarray
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Draw the layers of `tiles (N,)` at `place (N, 2)` that are `missing (N, 12)`.

    Returns `tiles` and the `(tile, layer)` that show something.
    """
    painter, writer = _painter_and_writer(job)
    painter.symbols.clear()
    inked = []
    for tile, (x, y), absent in zip(tiles.tolist(), place.tolist(), missing.tolist(), strict=True):
        column = x % (1 << job.zoom)
        name = f"{column}/{y}.png"
        writer.make_folders(column)
        for layer, plane in painter.layers(tile, x, y):
            if absent[layer]:
                writer.write_plane(f"{writer.folders[layer]}/{name}", plane)
                absent[layer] = False
                inked.append((tile, layer))
        for layer in (layer for layer, left in enumerate(absent) if left):
            writer.write_blank(f"{writer.folders[layer]}/{name}")
    return tiles, inked


# --- processes ---------------------------------------------------------------------------------------------


class SerialExecutor(Executor):
    """An executor that does everything in this process, at once."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Call `fn` and return its result as a future."""
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


_CONTEXT: Any = copy.copy(get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn"))


class _Worker(_CONTEXT.Process):
    """A process of a pool. When one is lost, the pool asks the others to end with SIGTERM, which they block."""

    def terminate(self) -> None:
        """End it with a signal that cannot be blocked; the pool would wait for ever otherwise."""
        self.kill()


_CONTEXT.Process = _Worker


class _Processes(ProcessPoolExecutor):
    """Processes that do not import the script that runs, so that it need not guard its own code."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Hand out a call; starts a process if none is idle."""
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            sys.modules["__main__"] = script


def start_workers(jobs: int, preload: tuple[str, ...] = ()) -> Executor:
    """Processes that draw. They start at once, so that they are ready when the extract is read.

    Where the system can fork, `preload` names modules that are imported once for all of them.
    """
    if jobs == 1:
        return SerialExecutor()
    most = WINDOWS_MAX_PROCESSES if os.name == "nt" else 1 << 10
    if preload:
        _CONTEXT.set_forkserver_preload(list(preload))
    pool = _Processes(min(jobs, most), _CONTEXT, _end_with_parent)
    with _signals_blocked():
        pool.submit(int)  # the first task starts them all
    return pool


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM, and in the processes started here for good: the parent decides when to stop.

    A terminal sends Ctrl-C to all processes.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would lift the block if it started inside
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Start a thread that ends this process when its parent is gone."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
