"""The live explorer: a city's embedding space beside its map, similarity search, any place, two models.

streamlit run streamlit_app.py
streamlit run streamlit_app.py -- --model_path checkpoints/best_model.pth --tiles_root 12_layer_tiles/tiles
python run_interactive_viz.py streamlit
"""

import dataclasses
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, override

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from PIL import Image
from plotly.offline import get_plotlyjs

import embeddings
import explorer_data as explorer
import projections
import similarity
import tile_images
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    UserError,
    WorkError,
    add_flags,
    explain_os_error,
    flag,
    positive_int,
    progress_listener,
    read_flags,
    warn,
)
from data_loader import LAYERS, tile_of_latlon
from embeddings import ZONES, City
from files import DamagedFile, digest, file_digest, load_cache, save_cache
from projections import ALGORITHMS, DEFAULT_SETTINGS, Projection
from similarity import METRICS, Search, SearchQuality

URL = "query-params"  # widgets bound to the address: a link opens the same view
NAMES = projections.TITLES
COLOURINGS = {
    "layer": "Dominant layer",
    "zone": "Geographic zone",
    "density": "Content density",
    "cluster": "Cluster",
    "similarity": "Similarity to the picked tile",
    "principal": "First three components (RGB)",
}
CLUSTERS = 10
GALLERY_PAGE = 24
NEIGHBOURS = 12  # most alike tiles beside a picked one
WALK_STEPS = 8  # tiles between the two ends
SLOTS = ("a", "b", "c")
SUM, WALK = "A + B − C", "Walk"  # tabs
AGREEMENT_SAMPLE = 500
PROGRESS_S = 1  # between two looks at work in the background: each look takes from its time


@dataclasses.dataclass(frozen=True)
class AppFlags:
    """App."""

    max_tiles: int | None = flag(None, "show at most this many tiles, spread evenly (default: all)", type=positive_int)


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


# --- work that takes a while -------------------------------------------------------------------------------


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


def open_projection(source: Source, city: City, view: "View") -> Projection:
    """The projection asked for, or PCA with a progress bar while it is being computed."""
    place = st.container()
    vectors, seed, cache_dir = city.embeddings.vectors, source.device.seed, str(source.tiles.cache_dir)
    what = {"settings": view.settings, "seed": seed, "cache_dir": cache_dir, "key": city.embeddings.key}
    if view.algorithm == "PCA" or projections.is_cached(vectors, view.algorithm, view.dimensions, **what):
        return ready_projection(city, view.algorithm, view.dimensions, what)
    name = digest(city_key(city), view.algorithm, view.dimensions, what)
    work = partial(projections.project, vectors, view.algorithm, view.dimensions, **what)
    run_job(place, name, f"Compute {NAMES[view.algorithm]}", work)
    place.caption("PCA is shown meanwhile.")
    return open_projection(source, city, dataclasses.replace(view, algorithm="PCA", settings={}))


@once(max_entries=12, show_spinner="Opening the index")
def open_index(city: City, metric: str, trees: int, seed: int, cache_dir: str) -> Search:
    """The search index over a city's vectors."""
    shown = city.embeddings
    return similarity.open_search(
        shown.vectors, metric=metric, trees=trees, key=shown.key, cache_dir=cache_dir, seed=seed
    )


# --- sidebar -----------------------------------------------------------------------------------------------


def read_app_flags() -> tuple[TilesFlags, ModelFlags, DeviceFlags, AppFlags]:
    """The flags after `--` of `streamlit run streamlit_app.py -- --model_path …`."""

    class AppParser(Parser):
        @override
        def error(self, message: str) -> NoReturn:
            raise UserError(f"{message}. `python streamlit_app.py --help` lists every flag")

    parser = AppParser(__doc__)
    groups = (TilesFlags, ModelFlags, DeviceFlags, AppFlags)
    for group in groups:
        add_flags(parser, group)
    args = parser.parse_args()
    return tuple(read_flags(group, args) for group in groups)


def choose_source(flags: tuple) -> Source:
    """What the sidebar says is to be opened."""
    tiles, model, device, app = flags
    with st.sidebar.expander("Data", expanded=True):
        model_path = choose_path("Checkpoint", "model", find_checkpoints(model.model_path))
        tiles_root = choose_path("Tiles", "tiles", find_tiles(tiles.tiles_root))
        limit = st.number_input(
            "Tiles at most",
            min_value=0,
            value=app.max_tiles or 0,
            step=1000,
            key="max_tiles",
            bind=URL,
            help="Spread evenly over the city; 0 shows every tile with something on it",
        )
    tiles = dataclasses.replace(tiles, tiles_root=tiles_root)
    return Source(tiles, model_path, int(limit) or None, device)


def choose_path(label: str, key: str, options: list[str]) -> Path:
    """A path out of `options`, or another one typed in or named by the address."""
    typed = st.session_state.get(key) or st.query_params.get(key)
    options = list(dict.fromkeys([*options, *([typed] if typed else [])]))
    help_text = "Choose, or type another path and press Enter"
    chosen = st.selectbox(label, options, key=key, bind=URL, accept_new_options=True, help=help_text)
    return Path(chosen or options[0])


@dataclasses.dataclass(frozen=True)
class View:
    """How the embedding is drawn."""

    algorithm: str
    dimensions: int
    settings: dict
    colouring: str


def choose_view(where: Any = st.sidebar) -> View:
    """Algorithm with its main parameters, 2-D or 3-D, and colouring."""
    with where:
        algorithm = st.segmented_control(
            "Algorithm", ALGORITHMS, default="PCA", key="algorithm", bind=URL, format_func=NAMES.get, required=True
        )
        dimensions = st.segmented_control(
            "Dimensions", [2, 3], default=2, key="dimensions", bind=URL, format_func=lambda d: f"{d}-D", required=True
        )
        colouring = st.selectbox("Colour by", list(COLOURINGS), key="colour", bind=URL, format_func=COLOURINGS.get)
        return View(algorithm, dimensions, choose_settings(algorithm), colouring)


def choose_settings(algorithm: str) -> dict:
    """The parameters of the algorithm that matter most, as sliders."""
    settings = dict(DEFAULT_SETTINGS[algorithm])
    if algorithm == "TSNE":
        perplexity = float(settings["perplexity"])
        settings["perplexity"] = st.slider(
            "Perplexity", 5.0, 100.0, perplexity, 5.0, key="perplexity", bind=URL, help="How many neighbours count"
        )
    if algorithm == "UMAP":
        neighbours, min_dist = int(settings["n_neighbors"]), float(settings["min_dist"])
        settings["n_neighbors"] = st.slider(
            "Neighbours", 2, 100, neighbours, key="n_neighbors", bind=URL, help="Few: fine structure. Many: the whole"
        )
        settings["min_dist"] = st.slider(
            "Least distance", 0.0, 0.99, min_dist, 0.05, key="min_dist", bind=URL, help="How tightly points may pack"
        )
    return settings


# --- projector ---------------------------------------------------------------------------------------------


def projector_page(source: Source) -> None:
    """The embedding beside the map, the picked tile, and figures about it all."""
    view = choose_view()
    city = open_city(source)
    show_heading(source, city)
    place = picked_place(city, "projector")
    rings = choose_rings(source, city, place)
    show_linked_view(source, city, view, picked=picked_row(city, "projector"), rings=rings)
    panels = {
        "Picked tile": lambda: show_alike(source, city, place),
        "Any place": lambda: show_alike(source, city, choose_any_place(city)),
        SUM: lambda: show_sum(source, city, place),
        WALK: lambda: show_walk(source, city, place),
        "Statistics": lambda: show_statistics(city, open_projection(source, city, view)),
    }
    show_open_tab(st.tabs(list(panels), key="below", bind=URL), tuple(panels.values()))


def show_open_tab(tabs: Any, panels: tuple[Callable[[], None], ...]) -> None:
    """Draw only the tab that is open: what the others show is not computed."""
    for tab, panel in zip(tabs, panels, strict=True):
        if tab.open:
            with tab:
                panel()


def show_heading(source: Source, city: City) -> None:
    """What is open, in one line, and what went wrong on the way to it."""
    for warning in st.session_state.pop("warnings", []):
        st.warning(warning, icon=":material/warning:")
    checkpoint = city.checkpoint
    epoch = f"epoch {checkpoint.epoch}" if checkpoint.epoch else "untrained"
    st.markdown(
        f"**{source.tiles.tiles_root}** · {len(city.embeddings.tile_xy):,} tiles of {city.store.tile_size} px · "
        f"**{source.model_path.name}** ({epoch}, {city.embeddings.vectors.shape[1]} dimensions)"
    )


def picked_place(city: City, key: str) -> "Place | None":
    """The tile picked under `key`, if it is one of this city's."""
    row = picked_row(city, key)
    return None if row < 0 else tile_place(city, row)


def show_alike(source: Source, city: City, place: "Place | None") -> None:
    """A place large, with its layers and the tiles most like it."""
    if place is None:
        st.caption("Pick a tile in the embedding or on the map to see it here.")
        return
    left, right = st.columns([1, 3], gap="large")
    with left:
        show_place(place)
    with right:
        rows, found = nearest(index_of(source, city), place, city, NEIGHBOURS)
        st.markdown("##### Most alike")
        notes = [f"distance {distance:.3f}" for distance in found]
        gallery("alike", city, city.embeddings.tile_xy[rows], notes, slot="projector", edge=84)
        st.markdown("##### Layers")
        show_layers(place)


# --- arithmetic and walks ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Rings:
    """Rows that the linked view rings, each with its label (1, 2, … by default), joined by a path or not."""

    rows: Iterable[int] = ()
    labels: tuple[str, ...] = ()
    path: bool = False


def choose_rings(source: Source, city: City, place: "Place | None") -> Rings:
    """What the open tab is about: the tiles most like the picked one, a sum with its answers, or a walk."""
    tab = st.session_state.get("below") or st.query_params.get("below")
    slots = slot_rows(city)
    if tab == SUM and min(slots) >= 0:
        rows = sum_of(source, city)[0]
        numbers = map(str, range(1, len(rows) + 1))
        return Rings([*rows, *slots], (*numbers, *map(str.upper, SLOTS)))
    if tab == WALK and min(slots[:2]) >= 0:
        rows = walk_between(source, city)
        return Rings(rows, tuple(walk_labels(len(rows))), path=True)
    return Rings(nearest(index_of(source, city), place, city, NEIGHBOURS)[0] if place else ())


def slot_rows(city: City) -> list[int]:
    """Rows of the tiles in A, B and C; -1 for an empty one."""
    return [picked_row(city, slot) for slot in SLOTS]


def sum_of(source: Source, city: City) -> tuple[np.ndarray, np.ndarray]:
    """Rows and distances of the tiles most like A + B - C, without those three."""
    slots = slot_rows(city)
    vector = similarity.arithmetic(*city.embeddings.vectors[slots])
    rows, found = index_of(source, city).query(vector[None], NEIGHBOURS + len(SLOTS))
    kept = np.flatnonzero((rows[0] >= 0) & ~np.isin(rows[0], slots))[:NEIGHBOURS]
    return rows[0][kept], found[0][kept]


def walk_between(source: Source, city: City) -> np.ndarray:
    """Rows of the tiles on the way from A to B, both included."""
    return similarity.walk(index_of(source, city), *slot_rows(city)[:2], WALK_STEPS)


def walk_labels(count: int) -> list[str]:
    """What is written beside each tile of a walk."""
    return ["A", *map(str, range(1, count - 1)), "B"] if count > 1 else ["A"]


def show_sum(source: Source, city: City, place: "Place | None") -> None:
    """The tiles in A, B and C, and those most like A + B - C."""
    show_slots(city, place, dict(zip(SLOTS, ("", "+", "−"), strict=True)))
    if min(slot_rows(city)) < 0:
        st.caption("Like A, with what B has over C: pick tiles and put them into A, B and C.")
        return
    rows, found = sum_of(source, city)
    st.markdown("##### A + B − C is most like")
    notes = [f"{rank}. distance {distance:.3f}" for rank, distance in enumerate(found, start=1)]
    gallery("sum", city, city.embeddings.tile_xy[rows], notes, slot="projector", edge=84)


def show_walk(source: Source, city: City, place: "Place | None") -> None:
    """The tiles in A and B, and those on the way from one to the other."""
    show_slots(city, place, dict(zip(SLOTS[:2], ("", "→"), strict=True)))
    if min(slot_rows(city)[:2]) < 0:
        st.caption("Put two tiles into A and B to see the tiles on the way from one to the other.")
        return
    rows = walk_between(source, city)
    st.markdown("##### On the way")
    gallery("walk", city, city.embeddings.tile_xy[rows], walk_labels(len(rows)), slot="projector", edge=84)
    st.caption("Even steps between the two vectors; at each, the nearest tile not met before.")


def show_slots(city: City, place: "Place | None", signs: dict[str, str]) -> None:
    """A card for each slot, with the sign that stands before it."""
    with st.container(horizontal=True):
        for slot, sign in signs.items():
            with st.container(width=170):
                show_slot(city, place, slot, f"{sign} {slot.upper()}".strip())


def show_slot(city: City, place: "Place | None", slot: str, title: str) -> None:
    """The slot's tile, a button that puts the picked tile there, and one that empties it."""
    row, name = picked_row(city, slot), slot.upper()
    where = "" if row < 0 else f" · {tile_name(city.embeddings.tile_xy[row])}"
    st.markdown(f"**{title}**{where}")
    if row >= 0:
        st.image(tile_place(city, row).picture(168), width=120)
    fill = partial(keep_picked, slot, place.xy if place else None)
    st.button(f"Put the picked tile into {name}", key=f"put {slot}", disabled=place is None, on_click=fill)
    if row >= 0:
        st.button(f"Empty {name}", key=f"empty {slot}", type="tertiary", on_click=partial(forget_picked, slot))


# --- components --------------------------------------------------------------------------------------------


def web(name: str) -> str:
    """A file of the front end."""
    return (explorer.WEB / name).read_text(encoding="utf-8")


@st.cache_resource(show_spinner=False)
def components() -> dict[str, Callable]:
    """What the browser runs: the gallery, the linked view, and what it needs once: Plotly and the city."""
    make = st.components.v2.component
    gallery_parts = {"css": web("live_gallery.css"), "js": web("live_gallery.js")}
    view_parts = {
        "css": explorer.front_end_css() + web("live_view.css"),
        "js": explorer.front_end_script() + web("live_view.js"),
    }
    return {
        "gallery": make("loc2vec_gallery", **gallery_parts),
        "view": make("loc2vec_view", isolate_styles=False, **view_parts),
        "city": make("loc2vec_city", js=web("live_city.js")),
        "plotly": make("loc2vec_plotly", js=get_plotlyjs() + web("live_plotly.js")),
    }


# --- pictures and small parts ------------------------------------------------------------------------------


def gallery(
    key: str,
    city: City,
    tile_xy: np.ndarray,
    notes: list[str],
    *,
    slot: str,
    marked: tuple[int, int] | None = None,
    edge: int = 112,
) -> None:
    """A grid of tile pictures `tile_xy (n, 2)` with a note under each; a click on one keeps it under `slot`."""
    items = [
        {
            "id": f"{xy[0]}/{xy[1]}",
            "picture": picture_uri(city, xy, 2 * edge),
            "title": tile_name(xy),
            "note": note,
            "marked": xy == marked,
        }
        for xy, note in zip([(int(x), int(y)) for x, y in tile_xy], notes, strict=True)
    ]
    keep = partial(keep_from_gallery, key, slot)
    components()["gallery"](key=key, data={"items": items, "edge": edge, "label": key}, on_pick_change=keep)


def keep_from_gallery(key: str, slot: str) -> None:
    """Keep the tile that was just clicked in the gallery `key`."""
    tile = parse_tile(st.session_state[key].get("pick"))
    if tile:
        keep_picked(slot, tile)


def tile_name(xy: Iterable[int]) -> str:
    """A tile as people write it."""
    return ", ".join(str(part) for part in xy)


def parse_tile(text: str | None) -> tuple[int, int] | None:
    """`"x/y"` as a tile; None when it is none."""
    parts = (text or "").split("/")
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(part.isdecimal() for part in parts) else None


@figures(max_entries=8192)
def picture_uri(city: City, xy: tuple[int, int], edge: int) -> str:
    """A tile's small picture, in the address itself."""
    row = city.store.grid.rows(np.array([xy]))
    return tile_images.data_uri(Image.fromarray(tile_images.pictures(city.pictures, row, edge)[0]), "jpeg", 85)


@dataclasses.dataclass(frozen=True)
class Place:
    """A tile of a city, or a window of one tile's size anywhere in it, with its vector."""

    city: City
    latlon: tuple[float, float]
    xy: tuple[int, int] | None
    vector: np.ndarray

    @property
    def name(self) -> str:
        """The tile, or the coordinates of a place between tiles."""
        where = f"{self.latlon[0]:.5f}, {self.latlon[1]:.5f}"
        return where if self.xy is None else f"Tile {tile_name(self.xy)}"

    @property
    def row(self) -> int:
        """Row of the tile in the city's store, -1 for a place between tiles."""
        return -1 if self.xy is None else int(self.city.store.grid.rows(np.array([self.xy]))[0])

    def planes(self) -> np.ndarray:
        """The layers `(12, S, S) uint8`, to look at."""
        size, zoom = self.city.pictures.tile_size, self.city.store.zoom
        at = tile_of_latlon(*self.latlon, zoom) - 0.5 if self.xy is None else np.array(self.xy)
        return self.city.pictures.windows(np.round(at * size).astype(np.int64)[None])[0]

    def picture(self, edge: int = 320) -> str:
        """The place in colour, as an address that needs no server."""
        if self.xy is not None:
            return picture_uri(self.city, self.xy, edge)
        image = Image.fromarray(tile_images.composite(self.planes()))
        return tile_images.data_uri(image.resize((edge, edge)), "jpeg", 85)


def tile_place(city: City, row: int) -> Place:
    """The tile in row `row` of the city's embeddings."""
    shown = city.embeddings
    lat, lon = shown.latlon[row]
    x, y = shown.tile_xy[row]
    return Place(city, (float(lat), float(lon)), (int(x), int(y)), shown.vectors[row])


def any_place(city: City, latlon: tuple[float, float]) -> Place:
    """The window around any latitude and longitude; `UserError` where the city has no tiles."""
    return Place(city, latlon, None, place_vector(city, latlon))


@figures(max_entries=1024)
def place_vector(city: City, latlon: tuple[float, float]) -> np.ndarray:
    """The vector of the window around `latlon`, computed by the encoder."""
    return embeddings.embed_places(city.encoder, city.store, np.array([latlon]), city.device)[0]


def show_place(place: Place) -> None:
    """A place as a picture with what is known about it."""
    st.image(place.picture(), width="stretch")
    st.markdown(f"**{place.name}**")
    lines = [f"{place.latlon[0]:.5f}, {place.latlon[1]:.5f}"]
    if place.xy is not None:
        shown = place.city.embeddings
        row = int(shown.rows(np.array([place.xy]))[0])
        layer = LAYERS[shown.dominant_layer[row]] if shown.dominant_layer[row] >= 0 else "nothing drawn"
        lines.append(f"{layer} · {ZONES[shown.zone[row]]} · density {shown.density[row]:.0%}")
    st.caption("  \n".join(lines))


def show_layers(place: Place, edge: int = 84) -> None:
    """The layers on which something is drawn, one picture each."""
    planes = place.planes()
    drawn = [channel for channel in range(len(LAYERS)) if planes[channel].any()]
    if not drawn:
        st.caption("Nothing is drawn here.")
        return
    with st.container(horizontal=True):
        for channel in drawn:
            picture = tile_images.layer_image(planes[channel], LAYERS[channel])
            st.image(tile_images.data_uri(picture, "png"), caption=LAYERS[channel], width=edge)


# --- choosing a place --------------------------------------------------------------------------------------


def choose_place(city: City, key: str) -> Place:
    """A tile at random, by coordinates or from the gallery, or any latitude and longitude; stops until one is."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        way = st.segmented_control("Query", WAYS, default=WAYS[0], key=f"{key}_way", bind=URL, required=True)
        place = WAYS_TO_CHOOSE[way](city, key) if way != "Browse gallery" else None
    if way == "Browse gallery":
        place = choose_from_gallery(city, key)
    if place is None:
        st.stop()
    return place


def choose_at_random(city: City, key: str) -> Place:
    """Another tile with every press of the button; the address keeps which."""
    row = picked_row(city, key)
    if st.button("Another random tile", icon=":material/casino:", key=f"{key} random") or row < 0:
        row = int(np.random.default_rng().integers(len(city.embeddings)))
        keep_picked(key, city.embeddings.tile_xy[row])
    return tile_place(city, row)


def choose_by_tile(city: City, key: str) -> Place:
    """The tile at typed coordinates (x, y)."""
    shown = city.embeddings
    middle = shown.tile_xy[len(shown) // 2]
    low, high = shown.tile_xy.min(axis=0), shown.tile_xy.max(axis=0)
    xy = []
    for axis, name in enumerate("xy"):
        label = f"{name} ({low[axis]}–{high[axis]})"
        xy.append(st.number_input(label, value=int(middle[axis]), step=1, key=f"{key}_{name}", bind=URL, width=190))
    row = int(shown.rows(np.array([xy]))[0])
    if row < 0:
        raise UserError(
            f"no tile with content at x {xy[0]}, y {xy[1]}; "
            f"x runs from {low[0]} to {high[0]}, y from {low[1]} to {high[1]}"
        )
    return tile_place(city, row)


def choose_by_latlon(city: City, key: str) -> Place:
    """Any place at typed latitude and longitude, between tile centres too."""
    low, high = city.embeddings.latlon.min(axis=0), city.embeddings.latlon.max(axis=0)
    middle = city.embeddings.latlon[len(city.embeddings) // 2]
    latlon = []
    for axis, name in enumerate(("Latitude", "Longitude")):
        label, field = f"{name} ({low[axis]:.4f} to {high[axis]:.4f})", f"{key}_{name[:3].lower()}"
        value, options = round(float(middle[axis]), 5), {"step": 0.001, "format": "%.5f", "bind": URL, "width": 240}
        latlon.append(st.number_input(label, value=value, key=field, **options))
    return any_place(city, tuple(latlon))


def choose_any_place(city: City) -> Place:
    """The place typed in, or the point last clicked on the map."""
    with st.container(horizontal=True):
        return choose_by_latlon(city, "place")


def choose_from_gallery(city: City, key: str) -> Place | None:
    """A tile clicked in pages of pictures, most densely drawn first."""
    shown = city.embeddings
    order = np.argsort(-shown.density, kind="stable")
    page = st.pagination(-(-len(order) // GALLERY_PAGE), key=f"{key}_page", bind=URL)
    rows = order[(page - 1) * GALLERY_PAGE : page * GALLERY_PAGE]
    row = picked_row(city, key)
    notes = [LAYERS[shown.dominant_layer[r]] for r in rows]
    marked = None if row < 0 else tuple(map(int, shown.tile_xy[row]))
    gallery(f"{key} gallery", city, shown.tile_xy[rows], notes, slot=key, marked=marked, edge=92)
    return None if row < 0 else tile_place(city, row)


WAYS_TO_CHOOSE = {
    "Random tile": choose_at_random,
    "Coordinate input": choose_by_tile,
    "Latitude, longitude": choose_by_latlon,
    "Browse gallery": choose_from_gallery,
}
WAYS = tuple(WAYS_TO_CHOOSE)


def picked_row(city: City, key: str) -> int:
    """Row of the tile that the address names under `key`, -1 when it names none of this city's."""
    xy = parse_tile(st.query_params.get(f"{key}_tile"))
    return -1 if xy is None else int(city.embeddings.rows(np.array([xy]))[0])


def keep_picked(key: str, xy: Any) -> None:
    """Write the picked tile into the address."""
    st.query_params[f"{key}_tile"] = f"{int(xy[0])}/{int(xy[1])}"


def forget_picked(key: str) -> None:
    """Take the picked tile out of the address."""
    st.query_params.pop(f"{key}_tile", None)


# --- the linked view ---------------------------------------------------------------------------------------


@once(max_entries=4)
def ready_payload(city: City, cache_dir: str) -> bytes:
    """What the linked view has to know of a city: 32 letters that name it, then JSON. `NotReady` if not cached."""
    key = city_key(city)
    try:
        cached = load_cache(payload_path(key, cache_dir), key)
    except DamagedFile as error:
        warn(f"{error}; picturing the tiles again")
        cached = None
    if cached is None:
        raise NotReady("picturing the tiles")
    return key.encode() + cached[0]["json"].tobytes()


def payload_path(key: str, cache_dir: str) -> Path:
    """Where `ready_payload` lies."""
    return Path(cache_dir) / f"live-{key[:16]}.l2v"


def write_payload(city: City, cache_dir: str) -> None:
    """Work out and cache what `ready_payload` reads; shows progress."""
    shown = city.embeddings
    cluster = projections.clusters(shown.vectors, CLUSTERS, cache_dir=cache_dir, key=shown.key)
    data = explorer.explorer_data(city, np.arange(len(shown)), cluster)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    save_cache(payload_path(city_key(city), cache_dir), city_key(city), {"json": np.frombuffer(text, np.uint8)})


def open_payload(source: Source, city: City) -> bytes | None:
    """What the linked view has to know; None, with a progress bar, while its pictures are being drawn."""
    place = st.container()
    cache_dir = str(source.tiles.cache_dir)
    name = digest("payload", city_key(city))
    if not jobs().pending(name):
        try:
            return ready_payload(city, cache_dir)
        except NotReady:
            pass
    run_job(place, name, "Draw the tiles", lambda: write_payload(city, cache_dir))
    return None


def packed_projection(projection: Projection) -> dict[str, Any]:
    """A projection as the explorer takes it; its name tells its settings apart."""
    settings = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in projection.settings.items())
    name = NAMES[projection.algorithm].replace("-", "\u2011") + (f" ({settings})" if settings else "")
    return {"name": name, "dimensions": projection.dimensions, "packed": explorer.packed_projection(projection)}


def show_linked_view(
    source: Source,
    city: City,
    view: View,
    *,
    key: str = "projector",
    picked: int = -1,
    rings: Rings,
    panes: str = "both",
    slot: str | None = None,
) -> None:
    """The embedding and the map, linked, with `rings`. A click is kept under `slot`."""
    payload = open_payload(source, city)
    if payload is None:
        return
    tile_xy = city.embeddings.tile_xy
    ids = {row: explorer.tile_id(city.store.zoom, tile_xy[row]) for row in [picked, *rings.rows]}
    data = {
        "city": city_key(city),
        "projection": packed_projection(open_projection(source, city, view)),
        "colour": view.colouring,
        "tile": ids[picked] if picked >= 0 else "",
        "marked": [ids[row] for row in rings.rows],
        "labels": rings.labels,
        "path": rings.path,
        "panes": panes,
        "theme": st.context.theme.type or "system",
    }
    name = f"view {key}"
    components()["view"](key=name, data=data, on_click_change=partial(keep_click, name, slot or key))
    components()["plotly"](key=f"plotly {key}")
    components()["city"](key=f"city {key}", data=payload)


def keep_click(key: str, slot: str) -> None:
    """Keep what was just clicked in the view `key`: the tile, and the very point on the map."""
    click = st.session_state[key].get("click") or {}
    tile, point = click.get("tile"), click.get("point")
    if tile:
        keep_picked(slot, (tile["x"], tile["y"]))
        if f"{slot}_way" in st.session_state:
            st.session_state[f"{slot}_way"] = WAYS[0]
    elif not point:
        forget_picked(slot)
    if point:
        st.session_state["place_lat"], st.session_state["place_lon"] = round(point["lat"], 5), round(point["lon"], 5)


# --- similarity search -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    metric: str
    trees: int
    quality: int
    results: int
    min_km: float

    def search_k(self) -> int:
        """Annoy's effort: how many nodes a query looks at."""
        return self.quality * self.trees * self.results


def choose_search() -> SearchSettings:
    """Metric, trees, quality and number of results, from the sidebar."""
    with st.sidebar:
        if not similarity.annoy_available():
            st.warning("Annoy is not installed, so every search is exact and slower; `pip install annoy` mends it")
        metric = st.selectbox("Distance metric", METRICS, key="metric", bind=URL, format_func=str.capitalize)
        trees = st.slider("Number of trees", 10, 500, similarity.DEFAULT_TREES, 10, key="trees", bind=URL)
        quality = st.slider("Search quality", 1, 20, 1, key="quality", bind=URL, help="Higher: better and slower")
        results = st.slider("Number of results", 5, 50, 12, key="results", bind=URL)
        min_km = st.number_input("At least this far away (km)", 0.0, 100.0, 0.0, 0.5, key="min_km", bind=URL)
    return SearchSettings(metric, trees, quality, results, min_km)


def search_page(source: Source) -> None:
    """Find the places most like one of this city or of another."""
    settings = choose_search()
    city = open_city(source)
    other = choose_other_city(source, city)
    show_heading(source, city)
    place = choose_place(other, "query" if other is city else "other")
    left, right = st.columns([1, 3], gap="large")
    with left:
        show_place(place)
    with right:
        index = index_of(source, city, settings.metric, settings.trees)
        rows, found = ask(index, place, city, settings)
        chosen = show_results(city, rows, found, settings)
    if not len(rows):
        return
    tabs = st.tabs(["Side by side", "In the embedding", "Index"], key="panel", bind=URL)
    panels = (
        lambda: show_side_by_side(place, tile_place(city, chosen), settings.metric),
        lambda: show_in_embedding(source, city, place, rows),
        lambda: show_index(index, city, settings),
    )
    show_open_tab(tabs, panels)


def show_in_embedding(source: Source, city: City, place: "Place", rows: np.ndarray) -> None:
    """The embedding with the query and its results highlighted."""
    view = choose_view(st.container(horizontal=True))
    own = int(city.embeddings.rows(np.array([place.xy]))[0]) if place.xy else -1
    show_linked_view(source, city, view, key="query", picked=own, rings=Rings(rows))


def choose_other_city(source: Source, city: City) -> City:
    """The city that the query comes from: this one, or another folder of tiles seen by the same checkpoint."""
    here = str(source.tiles.tiles_root)
    with st.sidebar:
        root = choose_path("Query from", "from", find_tiles(source.tiles.tiles_root))
    return city if str(root) == here else open_city(source.with_(tiles_root=root))


def index_of(source: Source, city: City, metric: str = METRICS[0], trees: int = similarity.DEFAULT_TREES) -> Search:
    """The index over a city's tiles, opened once for all sessions."""
    return open_index(city, metric, trees, source.device.seed, str(source.tiles.cache_dir))


def nearest(
    index: Search, place: "Place", city: City, count: int, *, search_k: int = -1, min_km: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and distances of the `count` tiles most like a place, without itself, at least `min_km` away."""
    shown = city.embeddings
    allowed = None
    if min_km > 0:
        allowed = similarity.farther_than(shown.tile_xy, shown.zoom, np.array(place.latlon), min_km)
    rows, found = index.query(place.vector, count + 1, search_k=search_k, allowed=allowed)
    same_city = place.city.store.content_key == city.store.content_key
    own = int(shown.rows(np.array([place.xy]))[0]) if place.xy and same_city else -1
    kept = np.flatnonzero((rows[0] >= 0) & (rows[0] != own))[:count]
    return rows[0][kept], found[0][kept]


def ask(index: Search, place: "Place", city: City, settings: SearchSettings) -> tuple[np.ndarray, np.ndarray]:
    """What `nearest` finds with these settings; says how long it took."""
    started = time.perf_counter()
    rows, found = nearest(index, place, city, settings.results, search_k=settings.search_k(), min_km=settings.min_km)
    milliseconds = (time.perf_counter() - started) * 1000
    kind = f"Annoy, {index.trees} trees" if index.kind == "annoy" else "exact search"
    st.caption(f"{len(rows)} of {len(city.embeddings):,} tiles in {milliseconds:.1f} ms ({kind}, {settings.metric})")
    return rows, found


def show_results(city: City, rows: np.ndarray, found: np.ndarray, settings: SearchSettings) -> int:
    """The results as pictures with their distances; the row that is looked at closely (-1 without results)."""
    if not len(rows):
        st.info(f"No tile lies at least {settings.min_km:g} km away; a smaller distance finds some.")
        return -1
    chosen = picked_row(city, "result")
    chosen = chosen if chosen in rows else int(rows[0])
    notes = [f"{rank}. distance {distance:.3f}" for rank, distance in enumerate(found, start=1)]
    marked = tuple(map(int, city.embeddings.tile_xy[chosen]))
    gallery("most alike", city, city.embeddings.tile_xy[rows], notes, slot="result", marked=marked)
    return chosen


def show_side_by_side(query: Place, result: Place, metric: str) -> None:
    """Query and result beside each other, their distances, and what makes them alike."""
    left, right, figures = st.columns([1, 1, 1.4], gap="large")
    with left:
        st.markdown("##### Query")
        show_place(query)
    with right:
        st.markdown("##### Result")
        show_place(result)
    with figures:
        st.markdown("##### Distances")
        show_distances(query, result, metric)
        show_reasons(query, result)
    st.markdown("##### Layers of the query")
    show_layers(query)
    st.markdown("##### Layers of the result")
    show_layers(result)


def show_distances(query: Place, result: Place, metric: str) -> None:
    """The distance of two places by every metric, and on the ground."""
    cells = [st.columns(3), st.columns(3)]
    for cell, name in zip([*cells[0], cells[1][0]], METRICS, strict=True):
        distance = similarity.distances(query.vector, result.vector, name)
        cell.metric(name.capitalize() + (" ●" if name == metric else ""), f"{float(distance):.3f}")
    cells[1][1].metric("Cosine", f"{float(query.vector @ result.vector):.3f}")
    apart = similarity.great_circle_km(np.array(query.latlon), np.array(result.latlon))
    cells[1][2].metric("Apart", f"{float(apart):,.1f} km")


def show_reasons(query: Place, result: Place) -> None:
    """How much each layer adds to the similarity of two tiles of one city."""
    if query.city is not result.city or query.row < 0:
        st.caption("Which layers make two places alike is worked out for two tiles of one city.")
        return
    parts = contributions(query.city, query.row, result.row)
    order = [channel for channel in np.argsort(parts) if abs(parts[channel]) > 1e-4]
    figure = go.Figure(
        go.Bar(
            x=parts[order],
            y=[LAYERS[channel] for channel in order],
            orientation="h",
            marker_color=[tile_images.LAYER_COLOURS[LAYERS[channel]] for channel in order],
            hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
        )
    )
    figure.update_layout(height=60 + 24 * len(order), margin={"l": 0, "r": 0, "t": 0, "b": 0})
    st.markdown("##### Why they match")
    st.plotly_chart(figure, key="reasons", config={"displayModeBar": False})
    st.caption("Cosine similarity that goes when the layer is blanked in both; left of 0 it tells them apart.")


@figures(max_entries=2048, show_spinner="Blanking each layer")
def contributions(city: City, row_a: int, row_b: int) -> np.ndarray:
    """What each layer adds to the similarity of two tiles, `(12,)`."""
    return embeddings.layer_contributions(city.encoder, city.store, row_a, row_b, city.device)


def show_index(index: Search, city: City, settings: SearchSettings) -> None:
    """Measured recall and latency of the index at the chosen parameters."""
    quality = index_quality(city, index, settings.search_k())
    cells = st.columns(4)
    cells[0].metric("Index", "Annoy" if index.kind == "annoy" else "Exact")
    cells[1].metric(f"Recall of the {quality.k} nearest", f"{quality.recall:.1%}")
    cells[2].metric("Median query", f"{quality.p50_ms:.2f} ms")
    cells[3].metric("99 % of queries under", f"{quality.p99_ms:.2f} ms")
    st.caption(
        f"Measured here on tiles of this city: {index.metric} distance, {index.trees} trees, "
        f"{settings.search_k():,} nodes a query. More trees or a higher quality find more of the true neighbours."
    )


@figures(max_entries=64, show_spinner="Measuring the index")
def index_quality(city: City, index: Search, search_k: int) -> SearchQuality:  # noqa: ARG001 - the city names it
    """Recall and latency of the index at these parameters."""
    return similarity.measure(index, sample=200, k=10, search_k=search_k)


# --- two checkpoints ---------------------------------------------------------------------------------------


def compare_page(source: Source) -> None:
    """Two checkpoints side by side on the same tiles."""
    view = choose_view()
    with st.sidebar:
        own, *others = find_checkpoints(source.model_path)
        other_path = choose_path("Compare with", "with", [*others, own])
    pair = [source, source.with_(model_path=other_path)]
    cities = same_tiles([open_city(one) for one in pair])
    place = choose_place(cities[0], "query")
    left, *columns = st.columns([1, 2, 2], gap="medium")
    with left:
        show_place(place)
    near = []
    for side, one, city, column in zip(("left", "right"), pair, cities, columns, strict=True):
        with column:
            near.append(show_one_model(side, one, city, view, place))
    with left:
        show_agreement(cities, near)


def show_one_model(side: str, source: Source, city: City, view: View, place: Place) -> np.ndarray:
    """One checkpoint's embedding and its tiles most like the place; their rows."""
    show_heading(source, city)
    here = place if place.city is city else see_again(place, city)
    rows, found = nearest(index_of(source, city), here, city, NEIGHBOURS)
    own = int(city.embeddings.rows(np.array([place.xy]))[0]) if place.xy else -1
    show_linked_view(source, city, view, key=side, slot="query", picked=own, rings=Rings(rows), panes="embedding")
    notes = [f"distance {distance:.3f}" for distance in found]
    gallery(f"{side} alike", city, city.embeddings.tile_xy[rows], notes, slot="query", edge=84)
    return rows


def see_again(place: Place, city: City) -> Place:
    """The same place through another checkpoint."""
    if place.xy is None:
        return any_place(city, place.latlon)
    return tile_place(city, int(city.embeddings.rows(np.array([place.xy]))[0]))


@once(max_entries=4)
def same_tiles(cities: list[City]) -> list[City]:
    """The cities with only the tiles that all of them have, in the same order."""
    common = cities[0].embeddings.tile_xy
    for city in cities[1:]:
        common = common[city.embeddings.rows(common) >= 0]
    if not len(common):
        raise UserError("the two checkpoints share no tile; choose one tiles folder and the same number of tiles")
    taken = [city.embeddings.take(city.embeddings.rows(common)) for city in cities]
    return [dataclasses.replace(city, embeddings=some) for city, some in zip(cities, taken, strict=True)]


def show_agreement(cities: list[City], near: list[np.ndarray]) -> None:
    """How far the two checkpoints agree, for this place and over the city."""
    shared, correlation = agreement(cities)
    st.metric("Neighbours shared, this place", f"{len(np.intersect1d(*near))} of {NEIGHBOURS}")
    st.metric("Neighbours shared, whole city", f"{shared:.0%}", help=f"Mean over up to {AGREEMENT_SAMPLE} tiles")
    st.metric("Similarities correlate", f"{correlation:.2f}", help="Between cosine similarities of random pairs")


@figures(max_entries=16, show_spinner="Comparing the checkpoints")
def agreement(cities: list[City]) -> tuple[float, float]:
    """Mean share of nearest neighbours in common, and the correlation of cosine similarities of random pairs."""
    count = len(cities[0].embeddings)
    rng = np.random.default_rng(0)
    rows = rng.permutation(count)[:AGREEMENT_SAMPLE]
    others = rng.integers(count, size=len(rows))
    k = min(NEIGHBOURS, count - 1)
    near, cosines = [], []
    for city in cities:
        vectors = city.embeddings.vectors
        search = similarity.open_search(vectors, metric="angular", exact=True)
        near.append(search.query(vectors[rows], k + 1)[0])
        cosines.append((vectors[rows] * vectors[others]).sum(axis=1))
    shared = [len(np.intersect1d(a[a != row], b[b != row])) / k for a, b, row in zip(*near, rows, strict=True)]
    return float(np.mean(shared)), float(np.corrcoef(cosines)[0, 1])


# --- statistics --------------------------------------------------------------------------------------------


def show_statistics(city: City, projection: Projection) -> None:
    """What the tiles, the vectors and the projection are like, in figures."""
    shown = city.embeddings
    spread, held = vector_figures(city)
    cells = [*st.columns(4), *st.columns(4)]
    cells[0].metric("Tiles shown", f"{len(shown):,}")
    cells[1].metric("Blank tiles left out", f"{int(city.store.blank.sum()):,}")
    cells[2].metric("Dimensions", f"{shown.vectors.shape[1]}")
    cells[3].metric("Hold 90 % of the variance", f"{held}", help="Principal components; few means a narrow space")
    cells[4].metric("Mean cosine of two tiles", f"{spread:.2f}", help="Near 1, all tiles look alike to the network")
    cells[5].metric("Mean density", f"{shown.density.mean():.0%}")
    cells[6].metric(
        "Trustworthiness", f"{projection.trustworthiness:.3f}", help="1: neighbours in the picture are true neighbours"
    )
    if projection.explained is None:
        cells[7].metric("Computed in", f"{projection.seconds:.1f} s")
    else:
        cells[7].metric("Variance explained", f"{float(np.sum(projection.explained)):.0%}")
    layers, zones, density = st.columns(3, gap="large")
    with layers:
        show_counts("Dominant layer", [*LAYERS, "nothing drawn"], shown.dominant_layer)
    with zones:
        show_counts("Geographic zone", ZONES, shown.zone)
    with density:
        show_counts(
            "Content density", [f"{10 * d}–{10 * d + 10} %" for d in range(10)], np.minimum(shown.density * 10, 9)
        )


def show_counts(title: str, names: tuple | list, index: np.ndarray) -> None:
    """A table of how many tiles fall under each name, as bars; index -1 is the last name."""
    counts = np.bincount(index.astype(int) % len(names), minlength=len(names))
    rows = [{title: name, "tiles": int(count)} for name, count in zip(names, counts, strict=True) if count]
    bar = st.column_config.ProgressColumn("Tiles", format="localized", min_value=0, max_value=int(counts.max()))
    st.dataframe(rows, column_config={"tiles": bar}, hide_index=True, width="stretch")


@figures(max_entries=32)
def vector_figures(city: City) -> tuple[float, int]:
    """Mean cosine of random pairs of tiles, and how many principal components hold nine tenths of the variance."""
    vectors = city.embeddings.vectors
    pairs = np.random.default_rng(0).integers(len(vectors), size=(2, 20000))
    shares = projections.principal_components(vectors, vectors.shape[1])[1]
    cosine = (vectors[pairs[0]] * vectors[pairs[1]]).sum(axis=1).mean()
    return float(cosine), int(np.searchsorted(np.cumsum(shares), 0.9)) + 1


# --- the page ----------------------------------------------------------------------------------------------


PAGES = {
    "Embedding projector": projector_page,
    "Similarity Search (Annoy)": search_page,
    "Compare checkpoints": compare_page,
}


def main() -> None:
    """Read the flags, let the sidebar choose what is open and how, show that page."""
    st.set_page_config("Loc2Vec explorer", page_icon=str(explorer.WEB / "icon.svg"), layout="wide")
    st.html(explorer.WEB / "live_app.css")
    try:
        flags = read_app_flags()
        st.sidebar.title("Loc2Vec")
        mode = st.sidebar.radio("Mode", list(PAGES), key="mode", bind=URL, label_visibility="collapsed")
        PAGES[mode](choose_source(flags))
    except (UserError, WorkError, OSError) as error:
        show_error(error)


if __name__ == "__main__":
    main()
