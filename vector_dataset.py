"""A dataset of vectors: a folder of GeoParquet files, one for each block of tiles, that many tools read.

Not a command. `python embed.py COUNTRY.osm.pbf -o FOLDER/` writes one.
"""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import UserError
from embeddings import Embeddings
from exports import geo_metadata, tile_columns
from files import atomic_write
from layers import LAYERS
from tile_grid import Box, hilbert_order, latlon_of_tile
from vectors import packed_vectors

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MANIFEST, SUMMARY = "_manifest.json", "_metadata"  # readers of Parquet leave out names that begin with _
FORMAT = "loc2vec-dataset-1"
ROW_GROUP = 2048  # tiles: about 45 x 45, so that a small box reads little
READ_AT_ONCE = 16  # files of a dataset that are looked at together
COVERING = {"bbox": {edge: ["bbox", edge] for edge in ("xmin", "ymin", "xmax", "ymax")}}


# --- parts -------------------------------------------------------------------------------------------------


def part_name(block: str) -> str:
    """The file of a block, inside the dataset."""
    return f"block={block}/tiles.parquet"


def part_bytes(embeddings: Embeddings, dtype: str, about: dict[str, Any]) -> bytes:
    """A block of tiles as GeoParquet 1.1, along a Hilbert curve; `about` is the same for all parts of a dataset.

    The column `bbox` holds the bounds of each tile, and its statistics those of each row group: a reader with a box
    skips what lies outside. `embedding` is as `packed_vectors` has it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    embeddings = embeddings.take(np.argsort(hilbert_order(embeddings.tile_xy), kind="stable"))
    columns = tile_columns(embeddings, packed_vectors(embeddings.vectors, dtype))
    north_west = latlon_of_tile(embeddings.tile_xy, embeddings.zoom)
    south_east = latlon_of_tile(embeddings.tile_xy + 1, embeddings.zoom)
    bounds = north_west[:, 1], south_east[:, 0], south_east[:, 1], north_west[:, 0]
    columns["bbox"] = pa.StructArray.from_arrays(list(map(pa.array, bounds)), ["xmin", "ymin", "xmax", "ymax"])
    about = about | {"checkpoint": embeddings.model_key, "layers": LAYERS}
    table = pa.table(columns).replace_schema_metadata(geo_metadata(about, {"covering": COVERING}))
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
    return data.getvalue()


# --- the folder --------------------------------------------------------------------------------------------


class DatasetFolder:
    """The folder of a dataset, on any file system that fsspec knows: a path, `s3://…`, `gs://…`.

    Raises `UserError` for a file system that is not known or whose package is not installed.
    """

    def __init__(self, url: Path | str):
        import fsspec

        self.url = str(url)
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise UserError(f"{self.url} cannot be used: {error}") from None
        self.local = Path(self.root) if "://" not in self.url else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file; it is there whole or not at all."""
        if self.local is not None:
            with atomic_write(self.local / name) as file:
                file.write(data)
        else:
            self.fs.pipe_file(f"{self.root}/{name}", data)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            return self.fs.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """All files of the dataset, sorted, without those that begin with a dot."""
        prefix = f"{self.root.rstrip('/')}/"
        try:
            found = self.fs.find(prefix, refresh=True) if self.local is None else self.fs.find(prefix)
        except FileNotFoundError:
            return []
        names = (name.removeprefix(prefix) for name in sorted(found))
        return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]

    def remove_unfinished(self) -> None:
        """Delete what a killed process left of parts; nobody else may be writing."""
        for path in self.local.glob("block=*/.*") if self.local is not None else ():
            path.unlink()

    def manifest(self) -> dict[str, Any] | None:
        """What the dataset says about itself; None if there is none. Raises `UserError` for a damaged one."""
        data = self.read(MANIFEST)
        if data is None:
            return None
        try:
            manifest = json.loads(data)
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.url}/{MANIFEST} is not of a dataset that this version reads ({error}); expected {FORMAT}"
            ) from None
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write what the dataset says about itself."""
        self.write(MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())

    def footers(self, names: Iterable[str]) -> "Iterator[tuple[str, pq.FileMetaData | None]]":
        """The metadata of each of these parts; None for one that is absent or damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def footer(name: str) -> "pq.FileMetaData | None":
            try:
                with self.fs.open(f"{self.root}/{name}", "rb") as file:
                    return pq.read_metadata(file)
            except (OSError, pa.ArrowException):
                return None

        names = list(names)
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            yield from zip(names, pool.map(footer, names), strict=True)

    def write_summary(self, names: list[str]) -> int:
        """Write `_metadata`: the footers of all parts in one file. Returns the number of tiles."""
        import pyarrow.parquet as pq

        collected, schema = [], None
        for name, footer in self.footers(names):
            if footer is None:
                raise UserError(f"{self.url}/{name} is damaged; run the same command again")
            schema = schema or footer.schema.to_arrow_schema()
            footer.set_file_path(name)
            collected.append(footer)
        if schema is None:
            return 0
        data = io.BytesIO()
        pq.write_metadata(schema, data, metadata_collector=collected)
        self.write(SUMMARY, data.getvalue())
        return sum(footer.num_rows for footer in collected)


def is_dataset(path: Path | str) -> bool:
    """Whether there is a dataset in a local folder."""
    return "://" not in str(path) and (Path(path) / MANIFEST).is_file()


def read_tiles(path: Path | str, box: Box | None = None, columns: list[str] | None = None) -> "pa.Table":
    """The tiles of a dataset, or those that share ground with `box`; parts and row groups outside it are not read.

    A box with west > east crosses 180 degrees. Raises `UserError` if there is no dataset.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    folder = DatasetFolder(path)
    manifest = folder.manifest()
    if manifest is None:
        raise UserError(f"no dataset at {path}; `python embed.py COUNTRY.osm.pbf -o {path}/` writes it")
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = ds.ParquetFileFormat(default_fragment_scan_options=options)
    parts = [f"{folder.root}/{name}" for name in folder.names() if name.endswith("/tiles.parquet")]
    try:
        dataset = ds.dataset(parts, filesystem=folder.fs, format=form)
        return dataset.to_table(columns=columns, filter=None if box is None else box_filter(box))
    except (OSError, pa.ArrowException) as error:
        for block in manifest.get("parts", {}):
            part_table(folder, block, columns)  # names the part that is damaged
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def part_table(folder: DatasetFolder, block: str, columns: list[str] | None) -> "pa.Table":
    """Some columns of the part of a block. Raises `UserError` for a part that is damaged or gone."""
    import pyarrow.parquet as pq

    path = f"{folder.root}/{part_name(block)}"
    with readable(path), folder.fs.open(path, "rb") as file:
        return pq.read_table(file, columns=columns, page_checksum_verification=True)


@contextlib.contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Context in which a file of vectors that is damaged or gone raises `UserError`."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException):
        raise UserError(
            f"{path} is damaged or gone; remove it, and the `embed.py` command that wrote it computes it again"
        ) from None


def box_filter(box: Box) -> Any:
    """The condition of pyarrow for tiles that share ground with a box."""
    import pyarrow.dataset as ds

    west, south, east, north = box
    edge = {name: ds.field("bbox", name) for name in ("xmin", "ymin", "xmax", "ymax")}
    across = (edge["xmax"] > west) & (edge["xmin"] < east)
    if west > east:
        across = (edge["xmax"] > west) | (edge["xmin"] < east)
    return across & (edge["ymax"] > south) & (edge["ymin"] < north)
