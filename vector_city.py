"""A dataset folder or a Parquet file of vectors as a city without pixels; viewers load the part that they show.

Not a command. `streamlit run streamlit_app.py -- --vectors FOLDER` and `run_interactive_viz.py html --vectors FOLDER`
use it.
"""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, override

import numpy as np
import torch
from PIL import Image

from cache_files import load_intact, save_cache
from checkpoint import Checkpoint
from cli import UserError
from dataset_search import DatasetSearch, open_dataset
from embeddings import City, Embeddings
from exports import list_matrix, read_export
from files import digest, file_digest
from inference import Embedder
from layers import LAYER_COLOURS, LAYERS
from progress_bars import progress
from similarity import Search
from tile_facts import ZONES
from tile_grid import (
    Box,
    TileIndex,
    area_bounds,
    farther_than,
    inside_box,
    latlon_of_tile,
    tile_codes,
    tile_of_latlon,
    unwrapped,
)
from tile_images import hex_to_rgb
from tile_store import TileStore
from vector_dataset import ROW_GROUP, DatasetFolder, is_dataset, part_name, readable
from vectors import unpacked_vectors

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "vector-tiles-1"
OVERVIEW = 24_000  # tiles that stand for the whole area
IN_VIEW = 20_000  # at most so many tiles of one part of the map are loaded; of more, the overview is enough
OVERVIEW_GROUPS = 1_000  # row groups that are read for an overview
FACTS = ["x", "y", "dominant_layer", "blank"]
MAP_PX = 1024  # at most, of the longer edge of `layer_map`
MAP_ALPHA = 110  # of 255: the map lies under the tiles that are loaded
COLUMNS = ["x", "y", "dominant_layer", "zone", "content_density", "blank", "embedding", "layer_intensity"]


# --- all tiles, and reading some of them -------------------------------------------------------------------


@dataclasses.dataclass
class VectorTiles:
    """All N tiles of a dataset or a file that show something; their vectors are read when they are needed.

    `tile_xy (N, 2) int32`; `layer (N,) int8` into `LAYERS`; `part (N,) int32` into `parts`, the files, and `place (N,)
    int32`, the row in its file. `about` says where the vectors come from: `title`, `attribution`, `dimensions`,
    `encoder` (a digest) and `key`, which is equal for equal vectors.
    """

    path: Path
    zoom: int
    tile_xy: np.ndarray
    layer: np.ndarray
    part: np.ndarray
    place: np.ndarray
    parts: list[Path]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.tile_xy)

    @cached_property
    def unwrapped_xy(self) -> np.ndarray:
        """`tile_xy`, except that x goes on counting where the tiles cross 180 degrees."""
        return unwrapped(self.tile_xy, self.zoom)

    @cached_property
    def _index(self) -> TileIndex:
        return TileIndex(self.tile_xy)

    def rows(self, tile_xy: np.ndarray) -> np.ndarray:
        """Row of each coordinate of `tile_xy (..., 2)`, -1 where there is no tile."""
        return self._index.rows(tile_xy)

    def row_at(self, latlon: tuple[float, float]) -> int:
        """Row of the tile at a place. Raises `UserError` if there is none."""
        at = tile_of_latlon(np.array(latlon[0]), np.array(latlon[1]), self.zoom)
        row = int(self.rows(np.floor(at).astype(np.int64)))
        if row < 0:
            raise UserError(
                f"no tile of {self.path} that shows something lies at latitude {latlon[0]:g}, longitude {latlon[1]:g}"
            )
        return row

    def rows_within(self, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """Rows of the tiles that share ground with a rectangle in tile coordinates of the map (`unwrapped_xy`)."""
        x, y = self.unwrapped_xy.T
        return np.flatnonzero((x > left - 1) & (x < right) & (y > top - 1) & (y < bottom))

    def overview_rows(self, count: int = OVERVIEW) -> np.ndarray:
        """At most `count` rows, spread evenly: along the curve over the map in which the tiles of each file lie.

        Of millions of tiles only some row groups are read, so some neighbours are picked together.
        """
        if len(self) <= count:
            return np.arange(len(self))
        if len(self) <= 2 * ROW_GROUP * OVERVIEW_GROUPS:
            return np.linspace(0, len(self) - 1, count).astype(np.int64)
        each = -(-count // OVERVIEW_GROUPS)
        starts = np.linspace(0, len(self) - ROW_GROUP, OVERVIEW_GROUPS).astype(np.int64)
        rows = (starts[:, None] + np.arange(each) * (ROW_GROUP // each)).reshape(-1)
        return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]

    def take(self, rows: np.ndarray) -> "VectorTiles":
        """Only the tiles of `rows`, in that order."""
        picked = {name: getattr(self, name)[rows] for name in ("tile_xy", "layer", "part", "place")}
        about = self.about | {"key": digest(self.about["key"], picked["tile_xy"])}
        return dataclasses.replace(self, **picked, about=about)

    def read(self, rows: np.ndarray) -> Embeddings:
        """The vectors of some rows, in their order, and facts about these tiles."""
        order = np.lexsort((self.place[rows], self.part[rows]))
        tables = []
        numbers = np.unique(self.part[rows])
        for number in progress(numbers, desc="reading vectors", unit=" parts"):
            chosen = rows[order][self.part[rows[order]] == number]
            tables.append(_read_places(self.parts[number], self.place[chosen]))
        found = _embeddings(tables, self)
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return found.take(back)

    def search(self) -> "VectorSearch":
        """Search in all tiles; opening it builds the index of a dataset that has none yet."""
        if is_dataset(self.path):
            return VectorSearch(self, open_dataset(self.path))
        return VectorSearch(self, Search(self.read(np.arange(len(self))).vectors, "dot"))

    def is_searchable_at_once(self) -> bool:
        """Whether `search` has nothing to build."""
        return not is_dataset(self.path) or (self.path / "_index" / "tiles.l2v").is_file()


@dataclasses.dataclass(frozen=True)
class VectorSearch:
    """Nearest neighbours among all tiles of a dataset or file."""

    tiles: VectorTiles
    index: DatasetSearch | Search

    def query(
        self, vector: np.ndarray, k: int, *, latlon: tuple[float, float], min_km: float = 0.0, without: int = -1
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `k` nearest of a vector `(D,)` that lie at least `min_km` from a place, without the row `without`.

        Rows of `tiles` and cosine distances, each `(n,)`, nearest first.
        """
        tiles = self.tiles
        if isinstance(self.index, DatasetSearch):
            allowed = self.index.allowed(latlon, min_km) if min_km else None
            found, distances = self.index.query(vector, k + 1, allowed=allowed)
            kept = found[0] >= 0
            rows, distances = tiles.rows(self.index.tile_xy[found[0][kept]]), distances[0][kept]
        else:
            allowed = farther_than(tiles.tile_xy, tiles.zoom, np.array(latlon), min_km) if min_km else None
            found, distances = self.index.query(vector, k + 1, allowed=allowed)
            kept = found[0] >= 0
            rows, distances = found[0][kept], distances[0][kept]
        others = np.flatnonzero((rows != without) & (rows >= 0))[:k]
        return rows[others], distances[others]


def _read_places(path: Path, places: np.ndarray) -> "pa.Table":
    """Some rows of a Parquet file, sorted; row groups in which none lies are not read."""
    import pyarrow.parquet as pq

    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups, start = np.unique(np.searchsorted(ends, places, side="right")), ends - sizes
        table = file.read_row_groups(groups.tolist(), columns=COLUMNS)
    shift = np.concatenate([[0], np.cumsum(np.array(sizes)[groups])[:-1]]) - start[groups]
    return table.take(places + shift[np.searchsorted(groups, np.searchsorted(ends, places, side="right"))])


def _embeddings(tables: "list[pa.Table]", tiles: VectorTiles) -> Embeddings:
    import pyarrow as pa

    table = pa.concat_tables(tables).combine_chunks()
    tile_xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1).astype(np.int32)
    return Embeddings(
        tile_xy=tile_xy,
        vectors=unpacked_vectors(list_matrix(table["embedding"])),
        zoom=tiles.zoom,
        key=digest(tiles.about["key"], tile_xy),
        dominant_layer=_numbers(table["dominant_layer"], LAYERS),
        zone=_numbers(table["zone"], ZONES),
        density=table["content_density"].to_numpy().astype(np.float32),
        blank=table["blank"].to_numpy(),
        layer_intensity=list_matrix(table["layer_intensity"]).astype(np.float32),
        content=tile_codes(tile_xy).astype(np.uint64),
        model_key=tiles.about["key"],
    )


def _numbers(column: "pa.ChunkedArray", names: Any) -> np.ndarray:
    """Each text of a column as its number among `names`, `int8`; -1 for any other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(column, pa.array(list(names)))
    return found.fill_null(-1).to_numpy().astype(np.int8)


# --- opening -----------------------------------------------------------------------------------------------


def open_vectors(path: Path | str, cache_dir: Path | str) -> VectorTiles:
    """The tiles of a dataset folder or of a Parquet file that `embed.py` wrote.

    What it reads of all tiles is kept in `cache_dir`. Raises `UserError` for anything else, and if every tile is blank.
    """
    path = Path(path)
    zoom, parts, about = _dataset(path) if is_dataset(path) else _file(path)
    kept = Path(cache_dir) / f"vector-tiles-{about['key'][:16]}.l2v"
    key = digest(FORMAT, about["key"], [str(part) for part in parts])
    found = load_intact(kept, key)
    arrays = found[0] if found is not None else _read_facts(parts)
    if not len(arrays["tile_xy"]):
        raise UserError(f"every tile of {path} is blank, so there is nothing to show")
    if found is None:
        save_cache(kept, key, arrays)
    return VectorTiles(path, zoom, **arrays, parts=parts, about=about)


def _dataset(path: Path) -> tuple[int, list[Path], dict[str, Any]]:
    manifest = DatasetFolder(path).manifest()
    if manifest is None or not manifest.get("parts"):
        raise UserError(f"no finished dataset at {path}; `python embed.py COUNTRY.osm.pbf -o {path}/` writes it")
    parts = [path / part_name(block) for block in sorted(manifest["parts"])]
    missing = [part for part in parts if not part.is_file()]
    if missing:
        raise UserError(
            f"{len(missing):,} of {len(parts):,} parts of {path} are missing, the first is {missing[0].name} of "
            f"{missing[0].parent.name}; run the `embed.py` command that wrote the dataset again"
        )
    about = {
        "title": manifest.get("extract", {}).get("name", path.resolve().name),
        "attribution": manifest.get("attribution", ""),
        "dimensions": manifest["encoder"]["dimensions"],
        "encoder": manifest["encoder"]["digest"],
        "key": digest(manifest["key"], sorted(manifest["parts"].items())),
    }
    return manifest["zoom"], parts, about


def _file(path: Path) -> tuple[int, list[Path], dict[str, Any]]:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder without a dataset (no _manifest.json); `python embed.py COUNTRY.osm.pbf -o {path}/` "
            "writes one"
        )
    export = read_export(path)  # says what is wrong with a file of another kind
    about = {
        "title": path.stem,
        "attribution": "",
        "dimensions": export.vectors.shape[1],
        "encoder": export.model_key,
        "key": file_digest(path),
    }
    return export.zoom, [path], about


def _read_facts(parts: list[Path]) -> dict[str, np.ndarray]:
    """Where each tile with content is, in which part, and its main layer."""
    import pyarrow.parquet as pq

    found = []
    for number, part in enumerate(progress(parts, desc="reading the tiles", unit=" parts")):
        with readable(part):
            table = pq.read_table(part, columns=FACTS, page_checksum_verification=True)
        shown = np.flatnonzero(~table["blank"].to_numpy())
        tile_xy = np.column_stack([table["x"].to_numpy(), table["y"].to_numpy()])[shown].astype(np.int32)
        layer = _numbers(table["dominant_layer"], LAYERS)[shown]
        found.append((tile_xy, layer, np.full(len(shown), number, np.int32), shown.astype(np.int32)))
    names = ("tile_xy", "layer", "part", "place")
    return {name: np.concatenate(column) for name, column in zip(names, zip(*found, strict=True), strict=True)}


# --- as a city ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class VectorCity(City):
    """Some tiles of a dataset or file as a city: one pixel a tile, as bright as each layer is on average."""

    tiles: VectorTiles = dataclasses.field(kw_only=True)

    @cached_property
    @override
    def manifest(self) -> dict[str, Any]:
        return {"extract": self.tiles.about["title"], "attribution": self.tiles.about["attribution"]}

    @cached_property
    @override
    def embedder(self) -> Embedder:
        raise UserError(f"{self.tiles.path} holds vectors only; places between tiles need `embed.py` and the extract")


def vector_city(tiles: VectorTiles, embeddings: Embeddings) -> VectorCity:
    """The tiles of `embeddings` as a city."""
    intensity = embeddings.layer_intensity
    drawn = intensity > 0
    plane_of = np.where(drawn, np.cumsum(drawn).reshape(drawn.shape), 0).astype(np.int32)
    shown = np.concatenate([[0], intensity[drawn]]).astype(np.float32)
    store = TileStore(
        tiles_root=tiles.path,
        zoom=tiles.zoom,
        tile_size=1,
        shrink="mean",
        tile_xy=embeddings.tile_xy,
        planes=np.round(255 * shown).astype(np.uint8).reshape(-1, 1, 1),
        plane_of=plane_of,
        plane_intensity=shown,
        plane_digest=np.zeros((len(shown), 16), np.uint8),
        levels={},
        sizes=np.zeros((0, 0, 0, 0), np.uint8),
        size_row=np.zeros(0, np.int32),
        meta={},
    )
    nothing = Checkpoint({"embedding_dim": tiles.about["dimensions"]}, {}, zoom=tiles.zoom)
    rows = np.arange(len(embeddings))
    return VectorCity(store, nothing, embeddings, rows, torch.device("cpu"), tiles=tiles)


def read_overview(tiles: VectorTiles, cache_dir: Path | str, count: int = OVERVIEW) -> Embeddings:
    """About `count` tiles that stand for the whole area; kept in `cache_dir`."""
    rows = tiles.overview_rows(count)
    key = digest(FORMAT, "overview", tiles.about["key"], rows)
    path = Path(cache_dir) / f"overview-{key[:16]}.l2v"
    found = load_intact(path, key)
    if found is not None:
        return Embeddings(**found[0], zoom=tiles.zoom, key=digest(key), model_key=tiles.about["key"])
    embeddings = tiles.read(rows)
    names = [field.name for field in dataclasses.fields(Embeddings)]
    arrays = {name: getattr(embeddings, name) for name in names if isinstance(getattr(embeddings, name), np.ndarray)}
    save_cache(path, key, arrays)
    return dataclasses.replace(embeddings, key=digest(key))


def layer_map(tiles: VectorTiles) -> tuple[dict[str, Any], Image.Image]:
    """A map of all tiles in the colour of their main layer, and where it lies, as `explorer_data.map_frame` has it.

    A pixel is a tile or, in large areas, the most frequent layer of a square of tiles; it is clear where there is none.
    """
    origin = tiles.unwrapped_xy.min(axis=0)
    extent = tiles.unwrapped_xy.max(axis=0) - origin + 1
    step = int(-(-extent.max() // MAP_PX))
    width, height = (-(-extent // step)).tolist()
    x, y = ((tiles.unwrapped_xy - origin) // step).T
    counts = np.zeros((height * width, len(LAYERS)), np.int32)
    known = tiles.layer >= 0
    np.add.at(counts, (y[known] * width + x[known], tiles.layer[known]), 1)
    palette = np.array([hex_to_rgb(LAYER_COLOURS[name]) for name in LAYERS], np.uint8)
    pixels = np.zeros((height * width, 4), np.uint8)
    shown = counts.any(axis=1)
    pixels[shown, :3], pixels[shown, 3] = palette[counts[shown].argmax(axis=1)], MAP_ALPHA
    frame = {"origin": origin.tolist(), "width": width, "height": height, "px_per_tile": 1 / step, "tiles": len(tiles)}
    return frame, Image.fromarray(pixels.reshape(height, width, 4))


def rows_in_box(tiles: VectorTiles, box: Box) -> np.ndarray:
    """Rows of the tiles with their centre in a box. Raises `UserError` if there is none."""
    lat, lon = latlon_of_tile(tiles.tile_xy + 0.5, tiles.zoom).T
    rows = np.flatnonzero(inside_box(lat, lon, box))
    if not len(rows):
        covers = ",".join(f"{edge:.4f}" for edge in area_bounds(tiles.tile_xy, tiles.zoom))
        wanted = ",".join(f"{edge:g}" for edge in box)
        raise UserError(f"no tile of {tiles.path} lies in --bbox {wanted}; it covers {covers} (W,S,E,N)")
    return rows


def place_of(tiles: VectorTiles, row: int) -> tuple[float, float]:
    """Latitude and longitude of the centre of a tile."""
    lat, lon = latlon_of_tile(tiles.tile_xy[row] + 0.5, tiles.zoom)
    return float(lat), float(lon)
