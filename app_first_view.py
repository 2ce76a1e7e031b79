"""The first view of a city in the live app, kept on disk: dots and map show before the city itself is opened.

Not a command. `streamlit run streamlit_app.py` shows it at work.

Opening a city of 100,000 tiles takes seconds: its vectors are read and its tiles are compared with the cache. What the
browser shows first (facts, the PCA in 2-D, the map) is a few megabytes and does not change until the checkpoint or the
tiles do.
"""

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import front_end
from app_city import Source
from cache_files import load_intact, save_cache
from files import digest
from place_names import NAMES_FILE


@dataclasses.dataclass(frozen=True)
class FirstView:
    """What crosses to the browser to show a city: `city` names its content, `payload` is what app_view.py sends.

    `projection` is the packed PCA in 2-D, `image` the map as a `data:` address, `heading` the line above.
    """

    city: str
    payload: bytes
    projection: dict[str, Any]
    image: str
    heading: str


def read_first_view(source: Source) -> FirstView | None:
    """The first view of what `source` opens; None if there is none of this checkpoint and these tiles."""
    found = load_intact(*_place(source))
    if found is None:
        return None
    return FirstView(payload=found[0]["payload"].tobytes(), **found[1])


def keep_first_view(source: Source, first: FirstView) -> None:
    """Keep a first view for the next start of the app."""
    path, key = _place(source)
    meta = {name: value for name, value in vars(first).items() if name != "payload"}
    save_cache(path, key, {"payload": np.frombuffer(first.payload, np.uint8)}, meta)


def has_first_view(source: Source) -> bool:
    """Whether `read_first_view` would find one."""
    return load_intact(*_place(source)) is not None


def _place(source: Source) -> tuple[Path, str]:
    """The file of a source, and the key that it has while nothing changed."""
    name = digest(str(source.tiles.tiles_root.resolve()), str(source.model_path.resolve()), source.max_tiles)
    path = Path(source.tiles.cache_dir) / f"first-view-{name[:16]}.l2v"
    names = source.tiles.tiles_root / NAMES_FILE
    return path, digest(source.stamp(), code_digest(), names.stat().st_mtime_ns if names.is_file() else 0)


@cache
def code_digest() -> str:
    """A digest of the code that writes first views and of the code that reads them: either may have changed."""
    here, files = Path(__file__).parent, ("app_view.py", "explorer_data.py", "colourings.py", "web/live_city.js")
    return digest(*[(here / name).read_bytes() for name in files], front_end.bundle("live_view.js"))
