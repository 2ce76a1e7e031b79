"""Files that are whole or absent: atomic writes, content digests, checksummed cache files and locks.

Not a command itself. Everything that outlives a process is written through here.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from cli import UserError
from progress_bars import warn

_LEFTOVER_S = 600


# --- atomic writes -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success sync it and give it the name, else remove it.

    Suffixes are kept (`a.parquet` is written as `.a.<random>.tmp.parquet`): some writers look at them.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
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
        file.flush()


def remove_leftovers(folder: Path | str) -> None:
    """Delete the temporary files that killed processes left in `folder`; those of running ones stay."""
    for path in Path(folder).glob(".*.tmp*"):
        writer = re.search(r"\.(\d+)-[0-9a-f]{8}\.tmp", path.name)
        with contextlib.suppress(OSError):
            old = time.time() - path.stat().st_mtime > _LEFTOVER_S  # its writer may run on another machine
            if writer and old and not _is_running(int(writer[1])):
                path.unlink()


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # where kill(pid, 0) would end the process
        return False
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
    """Hex BLAKE2b-128 of any mix of bytes, arrays and JSON-able values; equal in every process."""
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
        raise TypeError(f"{array.dtype} holds Python objects or fields; only plain numbers and text can be kept")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def plain(value: Any) -> Any:
    """JSON for what settings hold beside plain types; anything without a lasting text is refused."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no lasting form: use numbers, text, lists and dicts")


def file_digest(path: Path | str) -> str:
    """Hex BLAKE2b-128 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# --- locks -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path | str, wait_s: float = 3600.0) -> Iterator[None]:
    """Hold an exclusive lock on `path` (a file made for it); it is freed even when the process is killed.

    Raises `UserError` when another process holds it for longer than `wait_s` seconds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with open(path, "a+b") as file:
        if not _try_lock(file):
            _wait_for_lock(file, path.with_suffix(""), deadline)
        yield


def _wait_for_lock(file: IO, busy: Path, deadline: float) -> None:
    warn(f"another process is working on {busy}: waiting for it")
    while not _try_lock(file):
        if time.monotonic() > deadline:
            raise UserError(f"another process is still working on {busy}; wait for it or end it")
        time.sleep(0.1)


def _try_lock(file: IO) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True  # also where the file system has no locks: atomic writes still keep every file whole
