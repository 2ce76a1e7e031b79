"""Write vectors as GeoParquet, GeoJSON, CSV, or for the TensorBoard Projector.

Not a command. `python precompute_embeddings.py --export city.parquet` uses it.
"""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import UserError
from embeddings import City, Embeddings
from files import atomic_path, atomic_write
from layers import LAYERS
from progress_bars import progress
from tile_facts import ZONES
from tile_grid import TileGrid, area_bounds, latlon_of_tile, tile_of_latlon
from vectors import unpacked_vectors
from version import VERSION

if TYPE_CHECKING:
    import geopandas
    import pyarrow as pa

PROJECTOR_FOLDER = Path("runs/projector")  # inside the folder that `tensorboard --logdir runs` watches
EXPORTS = ".parquet, .geojson, .csv, projector, or a folder/ for parquet in parts"
PART_TILES = 64  # an export in parts has a file for each block of 64 x 64 tiles


# --- what is written, and where ----------------------------------------------------------------------------


def pick_writer(path: Path | None) -> Callable[[City, Path], None] | None:
    """The function that writes an export of this name; None without a path. Raises `UserError` for other formats."""
    if path is None:
        return None
    writers = {".parquet": write_parquet, ".geojson": write_geojson, ".csv": write_csv}
    folders = {"projector": write_projector}
    writer = writers.get(path.suffix.lower()) if path.suffix else folders.get(path.name, write_parts)
    if writer is None:
        raise UserError(f"--export {path}: {path.suffix or path.name!r} is not a known format; expected {EXPORTS}")
    return writer


def export_path(path: Path | None) -> Path | None:
    """Where an export is written: `projector` alone means the folder where TensorBoard looks for it."""
    return PROJECTOR_FOLDER if path == Path("projector") else path


def facts_columns(embeddings: Embeddings) -> dict[str, np.ndarray]:
    """One column for each fact about the tiles, by name."""
    return {
        "zoom": np.full(len(embeddings), embeddings.zoom, dtype=np.int32),
        "x": embeddings.tile_xy[:, 0],
        "y": embeddings.tile_xy[:, 1],
        "latitude": embeddings.latlon[:, 0],
        "longitude": embeddings.latlon[:, 1],
        "dominant_layer": np.array([*LAYERS, "blank"])[embeddings.dominant_layer],
        "zone": np.array(ZONES)[embeddings.zone],
        "content_density": embeddings.density,
        "blank": embeddings.blank,
    }


def tile_rings(embeddings: Embeddings) -> np.ndarray:
    """Outlines of the tiles `(N, 5, 2)`: longitude, latitude; counterclockwise and closed.

    Each tile lies on one side of 180 degrees, so no outline crosses it.
    """
    corners = np.array([(0, 1), (1, 1), (1, 0), (0, 0), (0, 1)])
    return latlon_of_tile(embeddings.tile_xy[:, None] + corners, embeddings.zoom)[..., ::-1]


# --- GeoParquet --------------------------------------------------------------------------------------------


def write_parquet(city: City, path: Path) -> None:
    """GeoParquet 1.1: facts, the vector as a list, and the tile's outline as WKB in `geometry`."""
    write_table(city.embeddings, path)


def write_parts(city: City, folder: Path) -> None:
    """The same as one file for each block of tiles, `block=X_Y/tiles.parquet`, for DuckDB, Spark and BigQuery."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; remove it or export to another")
    blocks, part = np.unique(city.embeddings.tile_xy // PART_TILES, axis=0, return_inverse=True)
    partial = folder.with_name(f".{folder.name}.partial")  # so that the folder holds all blocks or is absent
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    try:
        for i, (x, y) in enumerate(progress(blocks.tolist(), desc="writing", unit="block")):
            tiles = city.embeddings.take(np.flatnonzero(part.reshape(-1) == i))
            write_table(tiles, partial / f"block={x}_{y}" / "tiles.parquet")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_table(embeddings: Embeddings, path: Path) -> None:
    """One file of GeoParquet 1.1, whole or absent."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    bounds = area_bounds(embeddings.tile_xy, embeddings.zoom)  # west > east across 180 degrees, as GeoParquet has it
    about = {"key": embeddings.key, "checkpoint": embeddings.model_key, "layers": LAYERS}
    table = pa.table(tile_columns(embeddings, embeddings.vectors))
    table = table.replace_schema_metadata(geo_metadata(about, {"bbox": bounds}))
    with atomic_write(path) as file:  # an open file: pyarrow would read some names as URLs
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def tile_columns(embeddings: Embeddings, vectors: np.ndarray) -> "dict[str, pa.Array]":
    """The columns of an export: facts, `vectors (N, D)` of any type as `embedding`, outlines as WKB in `geometry`."""
    import pyarrow as pa
    import shapely

    columns = {name: pa.array(column) for name, column in facts_columns(embeddings).items()}
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    intensity = pa.array(np.ascontiguousarray(embeddings.layer_intensity, dtype=np.float32).reshape(-1))
    columns["layer_intensity"] = pa.FixedSizeListArray.from_arrays(intensity, len(LAYERS))
    columns["geometry"] = pa.array(shapely.to_wkb(shapely.polygons(tile_rings(embeddings))), pa.binary())
    return columns


def geo_metadata(about: dict[str, Any], geometry: dict[str, Any]) -> dict[str, str]:
    """The metadata of a GeoParquet file; `about` says where its vectors come from, `geometry` adds to its column."""
    column = {"encoding": "WKB", "geometry_types": ["Polygon"], "orientation": "counterclockwise"} | geometry
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return {"geo": json.dumps(geo), "loc2vec": json.dumps({"version": VERSION} | about)}


EXPORT_COLUMNS = ["zoom", "x", "y", "dominant_layer", "blank", "layer_intensity", "embedding"]


@dataclasses.dataclass(frozen=True)
class Export:
    """The tiles of a GeoParquet file or folder: where they are, their vectors, and which checkpoint made them."""

    tile_xy: np.ndarray
    vectors: np.ndarray
    layer: np.ndarray
    blank: np.ndarray
    layer_intensity: np.ndarray
    zoom: int
    model_key: str

    @property
    def latlon(self) -> np.ndarray:
        """Latitude and longitude of the tile centres, `(N, 2)`, in degrees."""
        return latlon_of_tile(self.tile_xy + 0.5, self.zoom)

    def row_of(self, lat: float, lon: float) -> int:
        """Row of the tile at a place, -1 if there is none."""
        tile = np.floor(tile_of_latlon(np.array(lat), np.array(lon), self.zoom)).astype(np.int64)
        return int(TileGrid(self.tile_xy, self.zoom).rows(tile))

    def take(self, rows: np.ndarray) -> "Export":
        """Only the tiles of `rows`, in that order."""
        whole = ("zoom", "model_key")
        names = [field.name for field in dataclasses.fields(self) if field.name not in whole]
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})


def read_export(path: Path) -> Export:
    """Read what `write_parquet` or `write_parts` wrote. Raises `UserError` for anything else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise UserError(f"nothing at {path}; `python embed.py CITY.osm.pbf -o {path}` writes it")
    try:
        schema = pq.ParquetDataset(path).schema
        about = json.loads((schema.metadata or {}).get(b"loc2vec", b"{}"))
        if missing := {*EXPORT_COLUMNS} - {*schema.names}:
            raise UserError(f"{path} has no column {', '.join(sorted(missing))}; expected a file that embed.py wrote")
        table = pq.read_table(path, columns=EXPORT_COLUMNS, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    if not len(table):
        raise UserError(f"{path} holds no tiles; `python embed.py CITY.osm.pbf -o {path}` writes it")
    try:
        return as_export(table, about.get("checkpoint", ""))
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} has columns of other types than embed.py writes; write it again") from None


def list_matrix(column: "pa.ChunkedArray") -> np.ndarray:
    """A column of N lists of the same length as a matrix `(N, D)`."""
    return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)


def as_export(table: "pa.Table", model_key: str) -> Export:
    """The tiles of a table with the columns `EXPORT_COLUMNS`."""
    return Export(
        tile_xy=np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1),
        vectors=unpacked_vectors(list_matrix(table["embedding"])),
        layer=np.array(table["dominant_layer"].to_pylist()),
        blank=table["blank"].to_numpy(),
        layer_intensity=list_matrix(table["layer_intensity"]),
        zoom=int(table["zoom"][0].as_py()),
        model_key=model_key,
    )


def tile_frame(embeddings: Embeddings) -> "geopandas.GeoDataFrame":
    """The facts about the tiles, and their outlines in degrees, as a table without the vectors."""
    import geopandas
    import shapely

    outlines = shapely.polygons(tile_rings(embeddings))
    return geopandas.GeoDataFrame(facts_columns(embeddings), geometry=outlines, crs="EPSG:4326")


# --- GeoJSON and CSV ---------------------------------------------------------------------------------------


def write_geojson(city: City, path: Path) -> None:
    """One feature per line, for each tile: its outline, its facts and its vector."""
    with atomic_write(path, "w") as file:
        file.write(f'{{"type": "FeatureCollection", "generator": "Loc2Vec {VERSION}", "features": [\n')
        rings = tile_rings(city.embeddings).round(7)
        for i, (facts, vector) in enumerate(rows_of(city.embeddings)):
            feature = {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [rings[i].tolist()]},
                "properties": facts | {"embedding": vector},
            }
            file.write((",\n" if i else "") + json.dumps(feature))
        file.write("\n]}\n")


def write_csv(city: City, path: Path) -> None:
    """One line per tile: its facts, then its vector as columns e0, e1, …"""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [f"e{i}" for i in range(city.embeddings.vectors.shape[1])]
        writer.writerow([*facts_columns(city.embeddings), *names])
        writer.writerows([*facts.values(), *vector] for facts, vector in rows_of(city.embeddings))


def rows_of(embeddings: Embeddings) -> Iterator[tuple[dict, list[float]]]:
    """Facts and vector of each tile as plain values; 7 digits are all the precision that float32 has."""
    columns = facts_columns(embeddings)
    rounded = {"latitude": 7, "longitude": 7, "content_density": 6}
    plain = [
        (np.round(column.astype(np.float64), rounded[name]) if name in rounded else column).tolist()
        for name, column in columns.items()
    ]
    vectors = progress(embeddings.vectors, desc="writing", unit="tile")
    for vector, *facts in zip(vectors, *plain, strict=True):
        yield dict(zip(columns, facts, strict=True)), [float(f"{number:.7g}") for number in vector]


# --- the TensorBoard Projector -----------------------------------------------------------------------------


def write_projector(city: City, folder: Path) -> None:
    """A folder for TensorBoard's Projector: vectors, facts and a picture of every tile with content."""
    from torch.utils.tensorboard import SummaryWriter

    from tile_images import sprite_layout, sprite_sheet

    places = city.embeddings.with_content()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "vectors.tsv", "w") as file:
        np.savetxt(file, places.vectors, fmt="%.6g", delimiter="\t")
    with atomic_write(folder / "metadata.tsv", "w") as file:
        columns = {"tile": [f"{x}/{y}" for x, y in places.tile_xy.tolist()], **facts_columns(places)}
        del columns["blank"]
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*[np.asarray(column).tolist() for column in columns.values()], strict=True))
    sheet = sprite_sheet(city.pictures, city.store.grid.rows(places.tile_xy), 64)
    with atomic_path(folder / "sprite.png") as temporary:
        sheet.save(temporary)
    _, edge = sprite_layout(len(places), 64)
    with atomic_write(folder / "projector_config.pbtxt", "w") as file:
        file.write(
            f'embeddings {{\n  tensor_name: "loc2vec"\n  tensor_path: "vectors.tsv"\n  metadata_path: "metadata.tsv"\n'
            f'  sprite {{\n    image_path: "sprite.png"\n    single_image_dim: {edge}\n'
            f"    single_image_dim: {edge}\n  }}\n}}\n"
        )
    if not any(folder.glob("events.out.tfevents.*")):
        SummaryWriter(str(folder)).close()  # TensorBoard lists only folders that hold an event file
