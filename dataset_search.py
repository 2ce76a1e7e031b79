"""Search in a dataset of millions of tiles: lists of half-precision vectors, memory-mapped, built part by part.

Not a command. `python embed.py --query LAT,LON --from FOLDER` uses it.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from cache_files import load_intact, save_cache
from cli import TilesFlags, UserError
from exports import EXPORT_COLUMNS, Export, as_export, list_matrix
from files import atomic_path, digest, file_digest, locked, named_errors
from layers import LAYERS
from progress_bars import progress, warn
from similarity import Answer
from tile_grid import EARTH_RADIUS_KM, Box, great_circle_km, inside_box, latlon_of_tile, tile_of_latlon
from vector_dataset import DatasetFolder, part_table, read_tiles
from vectors import unpacked_vectors

FORMAT = "dataset-index-1"
PER_LIST = 64  # vectors of the sample from which the centre of each list is found
PROBES = 16  # lists that are searched; docs/scale.md has the recall
FEW_ALLOWED = 0.1  # below this share of allowed tiles all lists are searched
COLUMNS = ["x", "y", "dominant_layer", "blank", "embedding"]


@dataclasses.dataclass
class DatasetSearch:
    """Nearest neighbours among the tiles of a dataset that show something.

    `tile_xy (N, 2) int32` and `layer (N,) int8` (into `LAYERS`) are those of its rows. `added` is the number of tiles
    that opening added to the index, and `seconds` how long opening took.
    """

    index: Any
    tile_xy: np.ndarray
    layer: np.ndarray
    zoom: int
    model_key: str
    added: int = 0
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.tile_xy)

    @property
    def dimension(self) -> int:
        """Numbers of a vector."""
        return int(self.index.d)

    def query(
        self, vectors: np.ndarray, k: int = 10, *, allowed: np.ndarray | None = None, probes: int = PROBES
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `k` nearest of each query `(Q, D)`: rows `(Q, k) int64` and cosine distances `(Q, k) float32`.

        Only rows where `allowed (N,) bool` is true are found; if fewer than `k` are found, row -1 at distance infinity
        fills up. `probes` lists are searched, and all if these hold too few. Raises `UserError` for queries of another
        dimension or with non-finite numbers.
        """
        import faiss

        queries = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
        if queries.shape[1] != self.dimension or not np.isfinite(queries).all():
            raise UserError(
                f"the query has {queries.shape[1]} numbers, those of the dataset have {self.dimension}; both must come "
                "from one checkpoint and be finite"
            )
        settings: dict[str, Any] = {"nprobe": probes}
        if allowed is not None:
            if allowed.mean() < FEW_ALLOWED:
                settings["nprobe"] = self.index.nlist
            selector: Any = faiss.IDSelectorBitmap  # its Python form takes an array
            settings["sel"] = selector(np.packbits(allowed, bitorder="little"))
        likeness, rows = self.index.search(queries, k, params=faiss.SearchParametersIVF(**settings))
        there = min(k, int(allowed.sum()) if allowed is not None else self.index.ntotal)
        if (rows[:, :there] < 0).any():  # the lists hold too few
            settings["nprobe"] = self.index.nlist
            likeness, rows = self.index.search(queries, k, params=faiss.SearchParametersIVF(**settings))
        return rows, np.where(rows >= 0, 1 - likeness, np.inf).astype(np.float32)

    def allowed(self, latlon: tuple[float, float], min_km: float = 0.0, box: Box | None = None) -> np.ndarray:
        """`(N,) bool`: tiles at least `min_km` kilometres from a place, and with their centre in `box`."""
        x, y = self.tile_xy.T
        allowed = np.ones(len(self), dtype=bool)
        if box is not None:
            west, south, east, north = box
            (left, top), (right, bottom) = tile_of_latlon(np.array([north, south]), np.array([west, east]), self.zoom)
            # In units of tiles, whose y grows to the south.
            allowed = inside_box(-y - 0.5, x + 0.5, (left, -bottom, right, -top))
        if min_km > 0:  # distances are computed for the tiles of a square around the place only
            lat, lon = latlon
            centre = tile_of_latlon(np.array(lat), np.array(lon), self.zoom)
            reach = np.degrees(min_km / EARTH_RADIUS_KM)
            top, bottom = tile_of_latlon(np.array([lat + reach, lat - reach]), np.array([0.0, 0.0]), self.zoom)[:, 1]
            polar = min(np.radians(abs(lat) + reach), np.radians(89.9))
            width = reach / np.cos(polar) / 360 * (1 << self.zoom) + 1
            near = np.flatnonzero((y >= top - 1) & (y <= bottom + 1))
            around = np.abs((x[near] - centre[0] + (1 << self.zoom) / 2) % (1 << self.zoom) - (1 << self.zoom) / 2)
            near = near[allowed[near] & (around <= width)]
            places = latlon_of_tile(self.tile_xy[near] + 0.5, self.zoom)
            allowed[near] = great_circle_km(places, np.array(latlon)) >= min_km
        return allowed

    def similar(
        self,
        vector: np.ndarray,
        k: int,
        place: tuple[float, float],
        *,
        min_km: float = 0.0,
        box: Box | None = None,
        without: np.ndarray | None = None,
    ) -> Answer:
        """Up to `k` tiles that are most like `vector (D,)`, the vector of `place`.

        Left out are the tile `without (2,)`, tiles within `min_km` kilometres of the place, and those outside `box`.
        """
        allowed = self.allowed(place, min_km, box)
        if without is not None:
            allowed &= (self.tile_xy != without).any(axis=1)
        rows, distances = self.query(vector, k, allowed=allowed)
        found = rows[0][rows[0] >= 0]
        km = great_circle_km(self.latlon(found), np.array(place))
        return Answer(found, distances[0][: len(found)], km)

    def latlon(self, rows: np.ndarray) -> np.ndarray:
        """Latitude and longitude of the tile centres of rows `(n,)`, `(n, 2)`, in degrees."""
        return latlon_of_tile(self.tile_xy[rows] + 0.5, self.zoom)


def tile_at(path: Path | str, latlon: tuple[float, float]) -> Export:
    """The one tile of a dataset that lies at a place. Raises `UserError` if there is none."""
    manifest = _manifest(DatasetFolder(path))
    tile = np.floor(tile_of_latlon(np.array(latlon[0]), np.array(latlon[1]), manifest["zoom"])).astype(np.int64)
    (north, west), (south, east) = latlon_of_tile(tile + np.array([[0.25, 0.25], [0.75, 0.75]]), manifest["zoom"])
    table = read_tiles(path, (west, south, east, north), EXPORT_COLUMNS)
    if not table.num_rows:
        raise UserError(
            f"no tile of {path} lies at latitude {latlon[0]:g}, longitude {latlon[1]:g}; it covers "
            f"{', '.join(f'{edge:.4f}' for edge in manifest['box'])} (W,S,E,N)"
        )
    return as_export(table, manifest["encoder"]["digest"])


# --- the index on disk -------------------------------------------------------------------------------------


def open_dataset(path: Path | str) -> DatasetSearch:
    """Search in a dataset. Its index lies in its folder `_index`; parts that are not in it yet are added first.

    Raises `UserError` if there is no dataset, or if it holds no vectors.
    """
    import faiss

    started, folder = time.perf_counter(), DatasetFolder(path)
    manifest = _manifest(folder)
    parts = manifest["parts"]
    local = folder.local / "_index" if folder.local is not None else TilesFlags.cache_dir / f"index-{manifest['key']}"
    with locked(local / "index.lock"):
        state, added = _load(local, manifest["key"]), 0
        if state is None or set(state[1]["parts"]) - set(parts):
            state = None
        if state is None or len(state[1]["parts"]) < len(parts):
            added = _add_parts(folder, local, manifest, state)
            state = _load(local, manifest["key"])
    if state is None:
        raise UserError(f"{local} could not be read after it was written; check the disk and run again")
    index = faiss.read_index(str(local / state[1]["file"]), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    columns, encoder = state[0], manifest["encoder"]["digest"]
    search = DatasetSearch(index, columns["tile_xy"], columns["layer"], manifest["zoom"], encoder, added)
    search.seconds = time.perf_counter() - started
    return search


def _manifest(folder: DatasetFolder) -> dict[str, Any]:
    manifest = folder.manifest()
    if manifest is None or not manifest.get("parts"):
        raise UserError(
            f"no finished dataset at {folder.url}; `python embed.py COUNTRY.osm.pbf -o {folder.url}` writes it"
        )
    return manifest


def _load(local: Path, key: str) -> tuple[dict[str, np.ndarray], dict] | None:
    """The columns and the state of the index; None if there is none, or any byte is not as written."""
    state = load_intact(local / "tiles.l2v", digest(FORMAT, key), "building the index of the dataset again")
    if state is None or not (path := local / state[1]["file"]).is_file():
        return None
    if file_digest(path) != state[1]["digest"]:
        warn(f"{path} does not hold what was written to it; building the index of the dataset again")
        return None
    return state


def _add_parts(folder: DatasetFolder, local: Path, manifest: dict[str, Any], state: Any) -> int:
    """Add the parts that are not in the index, or build it from all of them. Returns the number of tiles added."""
    import faiss

    known = state[1]["parts"] if state is not None else []
    left = [name for name in manifest["parts"] if name not in set(known)]
    index = faiss.read_index(str(local / state[1]["file"])) if state is not None else _trained(folder, manifest)
    tiles = [state[0]["tile_xy"]] if state is not None else [np.zeros((0, 2), np.int32)]
    layers = [state[0]["layer"]] if state is not None else [np.zeros(0, np.int8)]
    before = index.ntotal
    for name in progress(left, desc="indexing", unit=" parts"):
        table = part_table(folder, name, COLUMNS)
        table = table.filter(_not_blank(table))
        if len(table):
            index.add(_vectors(table))
        tiles.append(np.column_stack([table["x"], table["y"]]).astype(np.int32))
        layers.append(np.array([LAYERS.index(layer) for layer in table["dominant_layer"].to_pylist()], np.int8))
    path = local / f"{digest(manifest['key'], sorted(manifest['parts']))[:12]}.faiss"
    with atomic_path(path) as temporary, named_errors(path):
        faiss.write_index(index, str(temporary))
    meta = {"parts": [*known, *left], "file": path.name, "digest": file_digest(path)}
    columns = {"tile_xy": np.concatenate(tiles), "layer": np.concatenate(layers)}
    save_cache(local / "tiles.l2v", digest(FORMAT, manifest["key"]), columns, meta)
    for old in local.glob("*.faiss"):
        if old != path:
            old.unlink()
    return index.ntotal - before


def _trained(folder: DatasetFolder, manifest: dict[str, Any]) -> Any:
    """An empty index whose lists are spread over a sample of the dataset's vectors."""
    import faiss

    total = sum(manifest["parts"].values())
    lists = max(1, min(2 ** round(np.log2(4 * total**0.5)), total // PER_LIST))
    names = list(manifest["parts"])
    order = np.random.default_rng(0).permutation(len(names))
    sample, count = [np.zeros((0, manifest["encoder"]["dimensions"]), np.float32)], 0
    share = PER_LIST * lists / max(1, min(len(names), 256))
    for i in order.tolist():
        table = part_table(folder, names[i], COLUMNS)
        table = table.filter(_not_blank(table))
        if not len(table):
            continue
        found = _vectors(table)
        sample.append(found[:: max(1, int(len(found) // share))])
        count += len(sample[-1])
        if count >= PER_LIST * lists:
            break
    if not count:
        raise UserError(f"every tile of {folder.url} is blank, so there is nothing to search")
    lists = max(1, min(lists, count // PER_LIST))
    dimensions = manifest["encoder"]["dimensions"]
    index: Any = faiss.index_factory(dimensions, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(np.concatenate(sample))
    return index


def _not_blank(table: Any) -> Any:
    import pyarrow.compute as pc

    return pc.invert(table["blank"])


def _vectors(table: Any) -> np.ndarray:
    return unpacked_vectors(list_matrix(table["embedding"]))
