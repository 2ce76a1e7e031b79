"""What the live app has open: a checkpoint, its city, projections and search indices, each loaded once per server.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import dataclasses
import os
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import streamlit as st

import embeddings
import projections
import similarity
from app_jobs import NotReady, escape, jobs, run_job, show_warnings
from cli import DeviceFlags, TilesFlags, UserError
from embeddings import City
from explorer_data import PAGE_FORMAT
from files import digest, file_digest
from layers import LAYERS
from pretrained import PRETRAINED, WEIGHTS
from progress_bars import progress_listener
from projections import Projection
from similarity import METRICS, Search
from tile_files import layer_folders
from vector_dataset import MANIFEST
from vectors import principal_components

JUDGED_AT_ONCE = 20_000  # tiles; of more, PCA is shown before it is judged
PLACED_AMONG = 3  # similar tiles, between which a place that was not projected lies in t-SNE and UMAP
INDEXED_AT_ONCE = 20_000  # tiles; an index of more is built in the background

# --- checkpoint and tiles ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint and a folder of tiles to embed with it."""

    tiles: TilesFlags
    model_path: Path
    max_tiles: int | None
    device: DeviceFlags

    def stamp(self) -> str:
        """A digest that changes with the checkpoint's content, the tiles and the settings; costs milliseconds."""
        folder = folder_stamp(str(self.tiles.tiles_root), self.tiles.zoom)
        settings = dataclasses.asdict(self.tiles), dataclasses.asdict(self.device), self.max_tiles
        return digest(checkpoint_digest(self.model_path), folder, settings)

    def with_tiles(self, tiles_root: Path) -> "Source":
        """The same checkpoint with another folder of tiles."""
        return dataclasses.replace(self, tiles=dataclasses.replace(self.tiles, tiles_root=tiles_root))

    def with_model(self, model_path: Path) -> "Source":
        """The same tiles with another checkpoint."""
        return dataclasses.replace(self, model_path=model_path)


@dataclasses.dataclass(frozen=True)
class VectorSource:
    """A dataset folder or a file of vectors; the cache folder is that of `tiles`."""

    path: Path
    tiles: TilesFlags
    device: DeviceFlags
    max_tiles: int

    def stamp(self) -> str:
        """A digest that changes with the dataset or file; costs milliseconds."""
        looked_at = self.path / MANIFEST if self.path.is_dir() else self.path
        there = looked_at.stat() if looked_at.exists() else None
        return digest(str(self.path.resolve()), there and [there.st_mtime_ns, there.st_size], self.max_tiles)


def checkpoint_digest(path: Path) -> str | None:
    """Digest of a checkpoint's content; the file is read again only after it changed. None for a missing file."""
    path = path / WEIGHTS if path.is_dir() else path
    return _digest_of(path, path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None


@lru_cache(maxsize=64)
def _digest_of(path: Path, _changed_ns: int, _size: int) -> str:
    return file_digest(path)


@st.cache_data(max_entries=16, ttl=5, show_spinner=False)
def folder_stamp(tiles_root: str, zoom: int) -> str:
    """Digest of the modification times of a tiles folder's columns: adding or removing a tile changes one of them."""
    try:
        layers = layer_folders(Path(tiles_root), zoom)
    except UserError:  # some are missing; opening the city says which
        layers = []
    columns = [column for folder in layers for column in os.scandir(folder)]  # far quicker than Path.glob and stat
    return digest(sorted((column.path, column.stat().st_mtime_ns) for column in columns))


def find_checkpoints(first: Path) -> list[str]:
    """`first`, then every checkpoint under checkpoints/ and runs/, newest first, then the bundled encoder."""
    found = [path for folder in ("checkpoints", "runs") for path in Path(folder).rglob("*.pth")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(map(str, [first, *found, os.path.relpath(PRETRAINED)])))


def find_tiles(first: Path) -> list[str]:
    """`first`, then every folder of tiles up to two levels below the working directory."""
    found = sorted(path.parent for pattern in (f"*/{LAYERS[0]}", f"*/*/{LAYERS[0]}") for path in Path().glob(pattern))
    return list(dict.fromkeys(map(str, [first, *found])))


def find_vectors() -> list[str]:
    """Every dataset of vectors up to two levels below the working directory."""
    return sorted(str(path.parent) for pattern in (f"*/{MANIFEST}", f"*/*/{MANIFEST}") for path in Path().glob(pattern))


# --- caches that all sessions share ------------------------------------------------------------------------


def city_key(city: City) -> str:
    """Digest of a city's content: its tiles, which of them are shown, and their vectors."""
    return digest(city.embeddings.key, city.store.content_key, PAGE_FORMAT)


def projection_key(projection: Projection) -> tuple:
    """What tells the projections of one city apart."""
    return projection.algorithm, projection.dimensions, projection.settings


def index_key(index: Search) -> tuple:
    """What tells the indices of one city apart."""
    return index.kind, index.metric, index.trees


BY_CONTENT = {City: city_key, Search: index_key, Projection: projection_key}
cached_object = partial(st.cache_resource, show_spinner=False, hash_funcs=BY_CONTENT)  # callers get the same object
cached_value = partial(st.cache_data, show_spinner=False, hash_funcs=BY_CONTENT)  # callers get a copy


# --- the city ----------------------------------------------------------------------------------------------


def open_city(source: Source) -> City:
    """The city of `source`. If it is not cached, shows a button that computes it, and stops the page."""
    place = st.container()
    key = source.stamp()
    step = "already running"
    if not jobs().pending(key):
        try:
            return cached_city(source)
        except NotReady as missing:
            step = str(missing)
    tiles_root, model_path = escape(str(source.tiles.tiles_root)), escape(str(source.model_path))
    offer = (
        f"The vectors of {tiles_root} are not computed yet for {model_path}. First step: {step}. "
        "They are computed once and kept on disk. `python precompute_embeddings.py` computes everything in advance."
    )
    run_job(place, key, "Compute the vectors", lambda: compute_city(source), offer)
    st.stop()


@st.cache_resource(max_entries=6, show_spinner="Opening the tiles", hash_funcs={Source: Source.stamp})
def cached_city(source: Source) -> City:
    """The city if it is cached on disk; raises `NotReady` before any long work."""

    def refuse(step: str, _done: float, total: float | None) -> NoReturn:
        raise NotReady(f"{step} ({total:,})" if total else step)

    with progress_listener(refuse):
        return compute_city(source)


def compute_city(source: Source) -> City:
    """The tiles of `source` that are not blank, with their vectors, from the cache on disk or computed."""
    return embeddings.load_city(
        source.tiles,
        source.model_path,
        device=source.device.device,
        max_tiles=source.max_tiles,
        seed=source.device.seed,
        quick=True,
    ).with_content()


def show_heading(source: Source, city: City) -> None:
    """One line that says what is open, and the warnings of opening it."""
    show_warnings()
    st.markdown(heading(source, city))


def heading(source: Source, city: City) -> str:
    """What is open, as Markdown."""
    checkpoint = city.checkpoint
    epoch = f"epoch {checkpoint.epoch}" if checkpoint.epoch else "untrained"
    return (
        f"**{escape(str(source.tiles.tiles_root))}** · {len(city.embeddings):,} tiles of {city.store.tile_size} px"
        f" · **{escape(source.model_path.name)}** ({epoch}, {city.embeddings.vectors.shape[1]} dimensions)"
    )


# --- projections and indices -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class View:
    """How the embedding is drawn."""

    algorithm: str
    dimensions: int
    settings: dict
    colouring: str


class Settings(Protocol):
    """Where caches are kept, and the seed."""

    @property
    def tiles(self) -> TilesFlags:
        """The cache folder is among these."""
        ...

    @property
    def device(self) -> DeviceFlags:
        """The seed is among these."""
        ...


def open_projection(source: Settings, city: City, view: View) -> Projection:
    """The projection that `view` asks for; PCA, below a progress bar, while it is being computed."""
    place = st.container()
    vectors, seed, cache_dir = city.embeddings.vectors, source.device.seed, str(source.tiles.cache_dir)
    options: dict[str, Any] = {
        "settings": view.settings,
        "seed": seed,
        "cache_dir": cache_dir,
        "key": city.embeddings.key,
    }
    if projections.is_cached(vectors, view.algorithm, view.dimensions, **options):
        return _projection(city, view.algorithm, view.dimensions, options)
    if view.algorithm == "PCA":
        return _pca(city, view.dimensions, options)
    key = digest(city_key(city), view.algorithm, view.dimensions, options)
    work = partial(projections.project, vectors, view.algorithm, view.dimensions, **options)
    run_job(place, key, f"Compute {projections.TITLES[view.algorithm]}", work)
    place.caption("PCA is shown in the meantime.")
    return _pca(city, view.dimensions, options | {"settings": {}})


@cached_object(max_entries=12)
def _pca(city: City, dimensions: int, options: dict) -> Projection:
    """PCA; of many tiles without its trustworthiness, which takes longer than the projection itself."""
    vectors = city.embeddings.vectors
    if len(vectors) <= JUDGED_AT_ONCE:
        return projections.project(vectors, "PCA", dimensions, **options)
    started = time.perf_counter()
    points, explained = principal_components(vectors, dimensions)
    seconds = time.perf_counter() - started
    return Projection(points.astype(np.float32), "PCA", dimensions, {}, np.nan, seconds, explained, len(vectors))


@cached_object(max_entries=12, show_spinner="Judging the projection")
def trustworthiness(city: City, projection: Projection) -> float:
    """How faithful a projection is, also if it was shown without this figure."""
    if np.isfinite(projection.trustworthiness):
        return projection.trustworthiness
    return projections.trustworthiness(city.embeddings.vectors, projection.points)


@cached_object(max_entries=48)
def _projection(city: City, algorithm: str, dimensions: int, options: dict) -> Projection:
    return projections.project(city.embeddings.vectors, algorithm, dimensions, **options)


@dataclasses.dataclass(frozen=True)
class Placing:
    """How vectors that were not projected get a point: by the linear map of PCA, or between similar known ones."""

    points: np.ndarray
    known: Search
    mean: np.ndarray
    axes: np.ndarray | None


@cached_object(max_entries=12)
def placing(city: City, projection: Projection) -> Placing:
    """How other vectors get a point in a projection of a city's."""
    known, axes = city.embeddings.vectors, None
    mean = known.mean(axis=0)
    if projection.algorithm == "PCA":  # it is linear: the axes are found again, by least squares
        centred = known.astype(np.float64) - mean
        axes = np.linalg.pinv(centred.T @ centred, rcond=1e-10, hermitian=True) @ (centred.T @ projection.points)
    return Placing(projection.points, Search(known, "dot"), mean, axes)


def place_among(placing: Placing, vectors: np.ndarray) -> np.ndarray:
    """Points `(n, d) float32` of `vectors (n, D)` in a projection of others."""
    if placing.axes is not None or not len(vectors):
        axes = np.zeros((len(placing.mean), placing.points.shape[1])) if placing.axes is None else placing.axes
        return ((vectors - placing.mean) @ axes).astype(np.float32)
    rows, distances = placing.known.query(vectors, PLACED_AMONG)
    weight = 1 / (np.maximum(distances, 0) + 1e-4)
    weight /= weight.sum(axis=1, keepdims=True)
    return (placing.points[rows] * weight[..., None]).sum(axis=1).astype(np.float32)


def open_index(source: Source, city: City, metric: str = METRICS[0], trees: int = similarity.DEFAULT_TREES) -> Search:
    """The search index over a city's tiles; exact search, below a progress bar, while a large one is being built."""
    place, shown = st.container(), city.embeddings
    options: dict[str, Any] = {"metric": metric, "trees": trees, "seed": source.device.seed}
    options |= {"key": shown.key, "cache_dir": str(source.tiles.cache_dir)}
    if len(shown) > INDEXED_AT_ONCE and not similarity.is_index_cached(shown.vectors, **options):
        work = partial(similarity.open_search, shown.vectors, **options)
        run_job(place, digest("index", city_key(city), metric, trees), "Build the index", work)
        return exact_search(city, metric)
    return _index(city, metric, trees, source.device.seed, str(source.tiles.cache_dir))


@cached_object(max_entries=12)
def exact_search(city: City, metric: str = METRICS[0]) -> Search:
    """Exact search over a city's tiles: some milliseconds a query, and nothing has to be built."""
    return similarity.open_search(city.embeddings.vectors, metric=metric, exact=True)


@cached_object(max_entries=12, show_spinner="Opening the index")
def _index(city: City, metric: str, trees: int, seed: int, cache_dir: str) -> Search:
    shown = city.embeddings
    options: dict[str, Any] = {"key": shown.key, "cache_dir": cache_dir, "seed": seed}
    return similarity.open_search(shown.vectors, metric=metric, trees=trees, **options)
