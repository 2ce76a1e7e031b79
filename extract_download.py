"""Download OpenStreetMap extracts; a download that broke off goes on where it stopped.

Not a command; `python render_tiles.py --city kyiv` downloads one.
"""

import http.client
import json
import os
import re
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cli import UserError, WorkError
from files import atomic_write, digest
from osm_file import check_whole
from progress_bars import progress

TRIES = 5  # in a row without a byte gained
# Parameters of an address that say who may read the file, not which file it is.
SIGNATURE = re.compile(r"(?i)x-amz-|x-goog-|aws|signature|expires|key-pair-id|policy|token|(sig|se|st|sp|sv|sr|spr)$")
_CHUNK = 1 << 16
_NETWORK = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)


def fetch_extract(url: str, folder: Path, pause_s: float = 2.0) -> Path:
    """Download `url` to `folder` unless it is there already, and return its path.

    An http download that broke off goes on where it stopped, unless the server has another file by then. Other
    addresses (`s3://`, `gs://`, …) are read with fsspec. The file gets its name only when it is a whole extract. Raises
    `WorkError` when the server does not deliver one, and `UserError` for an address that cannot be used.
    """
    parts = urlsplit(url)
    if not parts.netloc:
        raise UserError(f"{url} is not an address; expected https://…, or s3:// and others that fsspec knows")
    steps = [step for step in unquote(parts.path).split("/") if step not in ("", ".", "..")]
    *folders, name = [parts.netloc.replace(":", "_"), *(steps or ["extract.osm.pbf"])]
    asked = [pair for pair in parse_qsl(parts.query) if not SIGNATURE.match(pair[0])]
    path = folder.joinpath(*folders, *([digest(asked)[:8]] if asked else []), name)  # another question, another file
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    if parts.scheme in ("http", "https"):
        _download(url, partial, pause_s)
    else:
        _copy(url, partial)
    try:
        check_whole(partial, path.name)
    except UserError as error:
        partial.unlink()
        raise WorkError(f"{url} did not deliver a whole extract: {error}") from None
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    partial.with_suffix(".json").unlink(missing_ok=True)
    return path


def _copy(url: str, partial: Path) -> None:
    """Copy a file of another file system."""
    import fsspec

    try:
        system, name = fsspec.core.url_to_fs(url)
        system.get_file(name, str(partial))
    except (ValueError, ImportError) as error:
        raise UserError(f"{url} cannot be used: {error}") from None
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{url} cannot be read: {error}") from None


def _download(url: str, partial: Path, pause_s: float) -> None:
    tries = 0
    while tries < TRIES:
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            if _request(url, partial):
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise WorkError(
                    f"cannot download {url}: {reason}; check the address, or name a file with --source"
                ) from None
        except _NETWORK as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        gained = partial.is_file() and partial.stat().st_size > before
        tries = 0 if gained else tries + 1
        time.sleep(pause_s * max(tries, 1))
    raise WorkError(
        f"cannot download {url}: {reason}, {TRIES} times in a row. The same command goes on where it stopped; "
        "--source names another address or a file"
    )


def _request(url: str, partial: Path) -> bool:
    """Ask for the rest of the file and append it; return whether all of it is there."""
    memory = partial.with_suffix(".json")
    version = json.loads(memory.read_text()) if memory.is_file() and partial.is_file() else None
    start = partial.stat().st_size if version else 0
    headers: dict[str, str] = {"User-Agent": "loc2vec", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": str(version)}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        if (error.headers.get("Content-Range") or "").rpartition("/")[2] == str(start):
            return True
        partial.unlink()  # more than the server has: start again
        return False
    with response:
        if "html" in (response.headers.get("Content-Type") or ""):
            raise WorkError(f"{url} is a web page, not an extract; check the address, or name a file with --source")
        first = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
        resumed = response.status == 206 and first == str(start)
        tag = response.headers.get("ETag")
        version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
        with atomic_write(memory, "w") as file:
            json.dump(version, file)
        length = response.headers.get("Content-Length")
        total = int(length) + start * resumed if length and length.isdigit() else None
        return _receive(response, partial, start if resumed else 0, total)


def _receive(response: Any, partial: Path, start: int, total: int | None) -> bool:
    received = start
    bar = progress(total=total and total >> 20, desc=f"downloading {partial.stem}", unit=" MiB")
    with bar, open(partial, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            received += len(chunk)
            bar.update((received >> 20) - bar.n)
    return total is None or received >= total
