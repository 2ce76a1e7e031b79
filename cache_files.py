"""Cache files: arrays and settings in one file with a checksum, read through a memory map.

Not a command. Everything that is cached between runs is written and read here.
"""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np

from files import atomic_write, bytes_of, plain
from progress_bars import warn

CACHE_MAGIC = b"LOC2VEC1"
_HEADER = struct.Struct("<8s32sQ")  # magic, digest of all that follows, length of the JSON
_ALIGN = 64
_CHUNK = 1 << 22


class DamagedFile(Exception):
    """The content of a cache file is not what was written."""


def save_cache(path: Path | str, key: str, arrays: dict[str, np.ndarray], meta: dict | None = None) -> None:
    """Write arrays and `meta`, which JSON can hold, to one file without pickle; a digest covers all of it."""
    entries, offset = {}, 0
    for name, array in arrays.items():
        entries[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "offset": offset}
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
    text = json.dumps({"key": key, "meta": meta or {}, "arrays": entries}, default=plain).encode()
    text += b" " * (-(_HEADER.size + len(text)) % _ALIGN)
    with atomic_write(path) as file:
        file.write(_HEADER.pack(CACHE_MAGIC, b"", len(text)))
        state = hashlib.blake2b(struct.pack("<Q", len(text)) + text, digest_size=32)
        file.write(text)
        for array in arrays.values():
            for chunk in (bytes_of(array), bytes(-array.nbytes % _ALIGN)):
                file.write(chunk)
                state.update(chunk)
        file.seek(0)
        file.write(_HEADER.pack(CACHE_MAGIC, state.digest(), len(text)))


def load_cache(path: Path | str, key: str | None = None) -> tuple[dict[str, np.ndarray], dict] | None:
    """Read what `save_cache` wrote: `(arrays, meta)`, or None when there is no file or it has another key.

    The arrays are read-only views of a memory map. Raises `DamagedFile` when any byte has changed.
    """
    path = Path(path)
    if not path.is_file():
        return None
    if path.stat().st_size < _HEADER.size:
        raise DamagedFile(f"{path} is cut short")
    data = np.memmap(path, dtype=np.uint8, mode="r")
    magic, expected, length = _HEADER.unpack(data[: _HEADER.size].tobytes())
    state = hashlib.blake2b(digest_size=32)
    for start in range(_HEADER.size - 8, len(data), _CHUNK):
        state.update(data[start : start + _CHUNK].data)
    if magic != CACHE_MAGIC or state.digest() != expected:
        raise DamagedFile(f"{path} is damaged: its checksum does not match")
    try:
        header = json.loads(data[_HEADER.size : _HEADER.size + length].tobytes())
        if key is not None and header["key"] != key:
            return None
        body = data[_HEADER.size + length :]
        return {name: _view(body, entry) for name, entry in header["arrays"].items()}, header["meta"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # undamaged, but not from save_cache
        raise DamagedFile(f"{path} was not written by this project") from error


def load_intact(
    path: Path | str, key: str | None, then: str | None = None
) -> tuple[dict[str, np.ndarray], dict] | None:
    """What `load_cache` gives, or None for a damaged file, with a warning that ends in `then` if it is given."""
    try:
        return load_cache(path, key)
    except DamagedFile as error:
        if then is not None:
            warn(f"{error}; {then}")
        return None


def _view(body: np.ndarray, entry: dict) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return body[entry["offset"] : entry["offset"] + size].view(dtype).reshape(shape)
