"""What the live app has open, what it computes once for all browsers, and its work in the background."""

import dataclasses
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st

import embeddings
import explorer_data as explorer
import projections
import similarity
from cli import DeviceFlags, TilesFlags, UserError, WorkError, explain_os_error
from embeddings import City
from files import digest, file_digest
from layers import LAYERS
from progress_bars import progress_listener
from projections import Projection
from similarity import METRICS, Search

# --- what is open ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint and the tiles to see through it."""

    tiles: TilesFlags
    model_path: Path
    max_tiles: int | None
    device: DeviceFlags

    def stamp(self) -> str:
        """Changes whenever the checkpoint's content, the tiles or the settings change; costs milliseconds."""
        folder = folder_stamp(str(self.tiles.tiles_root), self.tiles.zoom)
        return digest(model_stamp(self.model_path), folder, dataclasses.asdict(self.device), self.max_tiles)

    def with_(self, **changes: Any) -> "Source":
        """The same with another checkpoint or another `tiles_root`."""
        tiles = dataclasses.replace(self.tiles, tiles_root=changes.pop("tiles_root", self.tiles.tiles_root))
        return dataclasses.replace(self, tiles=tiles, **changes)


def file_version(path: Path) -> tuple | None:
    """What changes when a file is written again; None when there is none."""
    return (str(path), path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs={Path: file_version, type(Path()): file_version})
def model_stamp(path: Path) -> str | None:
    """Digest of a checkpoint's content, read again only when the file changed."""
    return file_digest(path) if path.is_file() else None


@st.cache_data(max_entries=16, ttl=5, show_spinner=False)
def folder_stamp(tiles_root: str, zoom: int) -> str:
    """Digest of the times of a tiles folder's columns: a tile that comes or goes changes one of them."""
    layers = [folder for layer in LAYERS if (folder := Path(tiles_root, layer, str(zoom))).is_dir()]
    columns = [column for folder in layers for column in os.scandir(folder)]  # far quicker than Path.glob and stat
    return digest(sorted((column.path, column.stat().st_mtime_ns) for column in columns))


def find_checkpoints(first: Path) -> list[str]:
    """`first`, then every checkpoint under checkpoints/ and runs/, newest first."""
    found = [path for folder in ("checkpoints", "runs") for path in Path(folder).rglob("*.pth")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(map(str, [first, *found])))


def find_tiles(first: Path) -> list[str]:
    """`first`, then every folder near by that holds the twelve layers."""
    found = sorted(path.parent for pattern in ("*/roads", "*/*/roads") for path in Path().glob(pattern))
    return list(dict.fromkeys(map(str, [first, *found])))


@dataclasses.dataclass(frozen=True)
class View:
    """How the embedding is drawn."""

    algorithm: str
    dimensions: int
    settings: dict
    colouring: str


# --- work that takes a while -------------------------------------------------------------------------------


PROGRESS_S = 1  # between two looks at work in the background: each look takes from its time


class Cancelled(Exception):
    """Raised inside the work when nobody waits for it any more."""


class NotReady(Exception):
    """Something is not computed yet: `str()` says what the first unfinished step is."""


class Job:
    """One piece of work in the background: how far it is, and which sessions wait for it."""

    def __init__(self, title: str, pool: ThreadPoolExecutor, work: Callable[[], Any], session: str):
        self.title, self.step, self.share = title, "waiting for its turn", 0.0
        self.waiting = {session}
        self.warnings: list[str] = []
        self.future: Future = pool.submit(self._run, work)

    def _run(self, work: Callable[[], Any]) -> None:
        with progress_listener(self.listen) as self.warnings:
            self.step = "starting"
            work()

    def listen(self, step: str, done: float, total: float | None) -> None:
        """Note the progress; ends the work when every session that waited has left it."""
        if not self.waiting:
            raise Cancelled
        self.step, self.share = step, min(1.0, done / total) if total else 0.0


class Jobs:
    """All background work of this server, one piece at a time; sessions that need the same share it."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="work")
        self.by_key: dict[str, Job] = {}
        self.lock = threading.Lock()

    def join(self, key: str, title: str, work: Callable[[], Any], session: str) -> Job:
        """The job `key`, started unless another session did; `session` waits for it from now on."""
        with self.lock:
            if not self.pending(key):
                self.by_key[key] = Job(title, self.pool, work, session)
            self.by_key[key].waiting.add(session)
            return self.by_key[key]

    def pending(self, key: str) -> bool:
        """Whether the job `key` waits or runs; a finished one is none, whoever still looks at it."""
        return key in self.by_key and not self.by_key[key].future.done()

    def error_of(self, key: str) -> BaseException | None:
        """Why the job `key` failed, if it did; it stays so until someone starts it again."""
        job = self.by_key.get(key)
        return job.future.exception() if job and job.future.done() and not job.future.cancelled() else None

    def leave(self, key: str, session: str) -> None:
        """`session` waits no longer; the last one to leave ends the job."""
        with self.lock:
            job = self.by_key.get(key)
            if job is not None:
                job.waiting.discard(session)
                if not job.waiting:
                    job.future.cancel()
                    del self.by_key[key]


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The one `Jobs` of this server."""
    return Jobs()


def me() -> str:
    """A name for this browser session."""
    return st.session_state.setdefault("session", uuid.uuid4().hex)


def run_job(place: Any, key: str, title: str, work: Callable[[], Any], offer: str | None = None) -> None:
    """Show the work `key` in `place`: a button that starts it, its progress and a cancel button, or why it failed.

    Starts at once when `offer` is None and this session did not cancel it. Reruns the page when the work is done.
    `place` is a container that every run of the page makes at the same point: the browser loses track otherwise.
    """
    start = partial(jobs().join, key, title, work, me())
    with place:
        if jobs().pending(key):
            st.fragment(_show_job, run_every=PROGRESS_S)(key, start())
        elif error := jobs().error_of(key):
            show_error(error)
            st.button("Try again", key=f"start {key}", on_click=start)
        elif offer or st.session_state.get(f"cancelled {key}"):
            if offer:
                st.info(offer, icon=":material/hourglass_empty:")
            st.button(title, key=f"start {key}", type="primary", on_click=start)
        else:
            st.fragment(_show_job, run_every=PROGRESS_S)(key, start())


def _show_job(key: str, job: Job) -> None:
    if job.future.done():
        st.session_state["warnings"] = job.warnings
        st.rerun(scope="app")
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    left.progress(job.share, text=f"{job.title}: {job.step}, {job.share:.0%}")
    if right.button("Cancel", key=f"cancel {key}", width="stretch"):
        jobs().leave(key, me())
        st.session_state[f"cancelled {key}"] = True
        st.rerun(scope="app")


def show_error(error: BaseException) -> None:
    """One sentence for what a user can mend; anything else is a defect and is raised."""
    if isinstance(error, OSError):
        error = WorkError(explain_os_error(error))
    if not isinstance(error, UserError | WorkError):
        raise error
    st.error(str(error), icon=":material/error:")


# --- what is computed once ---------------------------------------------------------------------------------


def load_city(source: Source) -> City:
    """The tiles of `source` on which something is drawn, with their vectors, from the cache or computed."""
    city = embeddings.load_city(
        source.tiles,
        source.model_path,
        device=source.device.device,
        max_tiles=source.max_tiles,
        seed=source.device.seed,
        quick=True,
    )
    drawn = city.embeddings.with_content()
    if not len(drawn):
        raise UserError(f"every tile of {source.tiles.tiles_root} is blank; `python render_tiles.py` draws a city")
    return dataclasses.replace(city, embeddings=drawn, rows=city.store.grid.rows(drawn.tile_xy))


@st.cache_resource(max_entries=6, show_spinner="Opening the tiles", hash_funcs={Source: Source.stamp})
def ready_city(source: Source) -> City:
    """The city when everything about it is cached; raises `NotReady` before any long work."""
    with progress_listener(_refuse):
        return load_city(source)


def _refuse(step: str, _done: float, total: float | None) -> NoReturn:
    raise NotReady(f"{step} ({total:,})" if total else step)


def open_city(source: Source) -> City:
    """The city of `source`; on the first visit shows what is missing and a button that computes it, and stops."""
    place = st.container()
    stamp = source.stamp()
    missing = "being computed"
    if not jobs().pending(stamp):
        try:
            return ready_city(source)
        except NotReady as step:
            missing = str(step)
    offer = (
        f"Nothing is computed yet for `{source.tiles.tiles_root}` as `{source.model_path}` sees it. "
        f"First step: {missing}. "
        "It is done once and kept on disk; `python precompute_embeddings.py` does the same for everything at once."
    )
    run_job(place, stamp, "Compute the vectors", lambda: load_city(source), offer)
    st.stop()


def city_key(city: City) -> str:
    """Names a city's content: its tiles, which of them are shown, and their vectors."""
    return digest(city.embeddings.key, city.store.content_key, explorer.PAGE_FORMAT)


def index_key(index: Search) -> tuple:
    """Names an index among those of one city."""
    return index.kind, index.metric, index.trees


BY_CONTENT = {City: city_key, Search: index_key}


once = partial(st.cache_resource, show_spinner=False, hash_funcs=BY_CONTENT)  # shared by all sessions


figures = partial(st.cache_data, show_spinner=False, hash_funcs=BY_CONTENT)


@once(max_entries=48)
def ready_projection(city: City, algorithm: str, dimensions: int, what: dict) -> Projection:
    """A projection that is cached or quick."""
    return projections.project(city.embeddings.vectors, algorithm, dimensions, **what)


def open_projection(source: Source, city: City, view: View) -> Projection:
    """The projection asked for, or PCA with a progress bar while it is being computed."""
    place = st.container()
    vectors, seed, cache_dir = city.embeddings.vectors, source.device.seed, str(source.tiles.cache_dir)
    what = {"settings": view.settings, "seed": seed, "cache_dir": cache_dir, "key": city.embeddings.key}
    if view.algorithm == "PCA" or projections.is_cached(vectors, view.algorithm, view.dimensions, **what):
        return ready_projection(city, view.algorithm, view.dimensions, what)
    name = digest(city_key(city), view.algorithm, view.dimensions, what)
    work = partial(projections.project, vectors, view.algorithm, view.dimensions, **what)
    run_job(place, name, f"Compute {projections.TITLES[view.algorithm]}", work)
    place.caption("PCA is shown meanwhile.")
    return open_projection(source, city, dataclasses.replace(view, algorithm="PCA", settings={}))


@once(max_entries=12, show_spinner="Opening the index")
def open_index(city: City, metric: str, trees: int, seed: int, cache_dir: str) -> Search:
    """The search index over a city's vectors."""
    shown = city.embeddings
    return similarity.open_search(
        shown.vectors, metric=metric, trees=trees, key=shown.key, cache_dir=cache_dir, seed=seed
    )


def index_of(source: Source, city: City, metric: str = METRICS[0], trees: int = similarity.DEFAULT_TREES) -> Search:
    """The index over a city's tiles, opened once for all sessions."""
    return open_index(city, metric, trees, source.device.seed, str(source.tiles.cache_dir))
