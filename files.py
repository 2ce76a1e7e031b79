"""Files that are complete or absent: atomic writes, digests of content, locks.

Not a command. Everything that outlives a process is written through here.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from cli import UserError, WorkError
from progress_bars import warn

FULL_DISK_BYTES = 1 << 20  # a disk with less free space counts as full
_LEFTOVER_S = 600  # younger temporary files of another machine may belong to a running process


# --- atomic writes -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync the file and rename it to `path`, otherwise remove it.

    Suffixes are kept (`a.parquet` is written as `.a.<random>.tmp.parquet`), because some writers look at them. A
    process that writes into a folder for the first time removes what killed ones left there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers_once(path.parent)
    temporary = path.with_name(f".{path.stem}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO]:
    """Open a file for writing that appears under `path` only when it is complete and synced."""
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(path) as temporary, open(temporary, mode, encoding=encoding) as file:
        yield file


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as `.npy`. Raises the errors of `named_errors`."""
    with named_errors(path):
        np.save(path, array)


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Context for a library that writes `path`, whose own errors may tell neither the cause nor the file.

    On a full disk NumPy raises an `OSError` without a number, GDAL and Faiss a `RuntimeError`. This raises `OSError`
    with both, and `WorkError` for any other `RuntimeError`.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.ENOSPC, error.strerror or "cannot be written", str(path)) from None
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free < FULL_DISK_BYTES:
            raise OSError(errno.ENOSPC, "cannot be written", str(path)) from None
        raise WorkError(f"{path} cannot be written: {str(error).splitlines()[0]}") from None


def remove_work(folder: Path, finished: str) -> None:
    """Delete a folder of unfinished work; `finished`, the file that says that the rest is whole, goes first.

    A process that is killed on the way leaves a folder that the next run does not take for whole.
    """
    (folder / finished).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path | str) -> None:
    """Delete temporary files that killed processes left in `folder`; those of running processes stay.

    Whether a process of another machine still runs cannot be seen: its files go when they are older than ten minutes.
    """
    for path in Path(folder).glob(".*.tmp*"):
        writer = re.search(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp", path.name)
        if not writer:
            continue
        with contextlib.suppress(OSError):
            if writer[1] == _machine() and os.name != "nt":  # on Windows kill(pid, 0) would end the process
                left = not _is_running(int(writer[2]))
            else:
                left = time.time() - path.stat().st_mtime > _LEFTOVER_S
            if left:
                path.unlink()


_remove_leftovers_once = functools.cache(remove_leftovers)  # a process looks once into each folder that it writes into


@functools.cache
def _machine() -> str:
    """Eight hex digits for what numbers this process: the machine, or the container on it."""
    spaces = Path("/proc/self/ns/pid")
    return digest(platform.node(), spaces.stat().st_ino if spaces.exists() else 0)[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- digests -----------------------------------------------------------------------------------------------


def digest(*parts: Any) -> str:
    """Hex BLAKE2b-128 of any mix of bytes, arrays and values that JSON can hold; the same in every process."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype.str}{part.shape}".encode())
            state.update(bytes_of(part))
        elif isinstance(part, bytes):
            state.update(b"bytes%d:" % len(part) + part)
        else:
            state.update(json.dumps(part, sort_keys=True, default=plain).encode())
        state.update(b"\0")
    return state.hexdigest()


def bytes_of(array: np.ndarray) -> memoryview:
    """The array's bytes in C order, as one flat buffer."""
    if array.dtype.hasobject or array.dtype.names:
        raise TypeError(f"{array.dtype} holds Python objects or fields; expected plain numbers or text")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def plain(value: Any) -> Any:
    """Plain value for settings that JSON does not know: paths and NumPy scalars. Raises `TypeError` for others."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON; use numbers, text, lists and dicts")


def file_digest(path: Path | str) -> str:
    """Hex BLAKE2b-128 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# --- locks -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path | str, wait_s: float = 3600.0) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is created; it is released even when the process is killed.

    Where the file system has no locks, the work goes on without one: atomic writes still keep every file whole. Raises
    `UserError` when another process holds the lock for longer than `wait_s` seconds.
    """
    from filelock import FileLock, Timeout  # here, because it imports asyncio

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, busy = FileLock(path), path.parent if path.name.startswith(".") else path.with_suffix("")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warn(f"another process is working on {busy}: waiting for it")
            lock.acquire(timeout=wait_s, poll_interval=0.1)
    except Timeout:
        raise UserError(f"another process is still working on {busy}; wait for it or end it") from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    try:
        yield
    finally:
        lock.release()
