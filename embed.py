"""Vectors for an OpenStreetMap extract, or for your own points, areas and H3 cells: one command, no PNG files.

python embed.py CITY.osm.pbf --map
python embed.py CITY.osm.pbf --points shops.csv -o shops.parquet
python embed.py CITY.osm.pbf --areas districts.geojson -o districts.gpkg
python embed.py CITY.osm.pbf --h3 9
python embed.py COUNTRY.osm.pbf -o FOLDER/ --engine local
python embed.py --query 51.128,71.430 --from CITY.parquet --in OTHER.parquet --k 10
"""

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoint import Checkpoint
from cli import (
    EXIT_WORK_FAILED,
    DeviceFlags,
    ModelFlags,
    Parser,
    StopSignal,
    UserError,
    add_flags,
    count_float,
    count_int,
    flag,
    lat_lon,
    local_path,
    positive_int,
    read_flags,
    run_main,
)
from dataset_search import DatasetSearch, open_dataset, tile_at
from devices import pick_device
from embed_dataset import DatasetFlags, embed_dataset
from embeddings import pick_rows
from explorer_data import EXTRACT_SUFFIXES
from exports import Export, pick_writer, read_export, tile_frame
from files import locked, remove_work
from layers import LAYERS
from osm_extract import ATTRIBUTION
from pretrained import load_model
from progress_bars import progress_listener
from render_tiles import RenderConfig, locate, parse_box
from similarity import open_search, print_answer, shared_layers, similar_places
from streaming import AREA, PRELOAD, Drawing, DrawnCity, embed_city, embed_places, open_drawing
from tile_grid import Box, TileGrid, area_bounds, inside_box
from tile_workers import start_workers
from vector_dataset import is_dataset

if TYPE_CHECKING:
    import geopandas

    from user_tables import Places

FINEST_H3 = 15
MAP_TILES = 500  # of the explorer
Draw = Callable[..., DrawnCity]  # `embed_city` with all but `rows` and `around` given


@dataclasses.dataclass(frozen=True)
class WhatFlags:
    """What gets a vector (by default every tile)."""

    points: Path | None = flag(None, "the rows of this table: CSV, GeoJSON, GeoPackage, Parquet", type=Path)
    areas: Path | None = flag(None, "the polygons of this file: the mean of their tiles", type=Path)
    h3: int | None = flag(None, "the H3 cells of this resolution, 0 to 15", type=count_int)
    lat: str | None = flag(None, "column of --points that holds the latitude; default: recognised", metavar="COLUMN")
    lon: str | None = flag(None, "column of --points that holds the longitude", metavar="COLUMN")
    crs: str | None = flag(None, "coordinate system of the file, such as EPSG:32642; default: its own, or degrees")
    encoding: str | None = flag(None, "encoding of a CSV file; default: utf-8, else cp1251")
    map: bool = flag(False, "also write the explorer, a page with the map and the embedding, beside the vectors")


@dataclasses.dataclass(frozen=True)
class QueryFlags:
    """Search in files that this command wrote."""

    query: tuple[float, float] | None = flag(None, "find places like this one", type=lat_lon, metavar="LAT,LON")
    from_: Path | None = flag(None, "file that holds the tile of --query", type=local_path)
    in_: Path | None = flag(None, "file to search in; default: that of --from", type=local_path)
    k: int = flag(10, "how many places to find", type=positive_int)
    min_km: float = flag(0.0, "leave out places closer than this many km to the query", type=count_float)


def main() -> int | None:
    """Embed, or search."""
    parser = Parser(__doc__)
    parser.add_argument("extract", nargs="?", help="OpenStreetMap extract, such as CITY.osm.pbf")
    parser.add_argument(
        "-o", "--output", help="file to write: .parquet, .csv, .geojson, .gpkg or .npy; or a folder/ for a dataset"
    )
    add_flags(parser, WhatFlags)
    add_flags(parser, RenderConfig, only=["bbox", "city", "source", "downloads", "jobs", "style"])
    add_flags(parser, ModelFlags)
    add_flags(parser, DeviceFlags, only=["device"])
    add_flags(parser, DatasetFlags)
    add_flags(parser, QueryFlags)
    args = parser.parse_args()
    if args.extract is not None and "://" in args.extract:
        if args.source is not None:
            raise UserError(f"both {args.extract} and --source {args.source} are given; name one extract")
        args.extract, args.source = None, args.extract
    what, query, dataset = (read_flags(flags, args) for flags in (WhatFlags, QueryFlags, DatasetFlags))
    if query.query is None:
        refuse_ignored(query, ["from_", "in_", "k", "min_km"], "a search; name a place with --query LAT,LON")
    if what.points is None:
        refuse_ignored(what, ["lat", "lon"], "the table of --points")
    if what.points is None and what.areas is None:
        refuse_ignored(what, ["crs", "encoding"], "the file of --points or --areas")
    if dataset.engine != "ray":
        refuse_ignored(dataset, ["address"], "--engine ray")
    if not wants_dataset(args):
        refuse_ignored(dataset, ["dtype", "block_tiles"], "a dataset; name a folder/ with -o, or give --engine")
    if query.query is not None:
        if args.extract is not None:
            raise UserError("--query searches in files that this command wrote; name one with --from, and no extract")
        refuse_ignored(what, ["points", "areas", "h3", "map"], "embedding; leave --query out")
        refuse_ignored(read_flags(RenderConfig, args), ["city", "source"], "embedding; leave --query out")
        if args.output is not None or wants_dataset(args):
            raise UserError("-o and --engine can only be given for embedding; leave --query out")
        answer_query(query, parse_box(args.bbox) if args.bbox else None)
        return None
    if what.map and (what.points or what.areas or what.h3 is not None):
        raise UserError("--map shows the tiles; give it without --points, --areas and --h3")
    if len([1 for asked in (what.points, what.areas, what.h3) if asked is not None]) > 1:
        raise UserError("--points, --areas and --h3 are three commands; give one of them")
    if wants_dataset(args):
        return write_dataset(args, what, dataset)
    with StopSignal() as stop, progress_listener(lambda *_: stop.raise_if_requested()):
        embed(args, what)
    return None


def refuse_ignored(flags: Any, names: list[str], where: str) -> None:
    """Raise `UserError` if some of the flags `names` are given where they have no effect."""
    given = [f"--{name.rstrip('_')}" for name in names if getattr(flags, name) != getattr(type(flags)(), name)]
    if given:
        raise UserError(f"{' and '.join(given)} can only be given for {where}")


# --- embedding ---------------------------------------------------------------------------------------------


def embed(args: argparse.Namespace, what: WhatFlags) -> None:
    """Read, draw and embed what the flags name, and write one file."""
    from user_tables import check_output, read_places, read_polygons  # slow to import

    # The encoder, the extract, and the user's own table: mistakes are found before the work begins.
    started = time.perf_counter()
    pick_device(args.device)
    config, checkpoint, extract, box = read_sources(args)
    if what.h3 is not None and what.h3 > FINEST_H3:
        raise UserError(f"--h3 {what.h3} is no H3 resolution; expected 0 to {FINEST_H3}")
    output = check_output(Path(args.output) if args.output else default_output(config, what, extract))
    own = what.points or what.areas
    if own is not None and own.exists() and output.exists() and output.samefile(own):
        raise UserError(f"-o {output} is the file that is read, and would be replaced; name another")
    places = polygons = None
    if what.points is not None:
        places = read_places(what.points, lat=what.lat, lon=what.lon, crs=what.crs, encoding=what.encoding)
    if what.areas is not None:
        polygons = read_polygons(what.areas, crs=what.crs, encoding=what.encoding)

    # Draw and embed; what is unfinished lies beside the output, and the same command goes on from it.
    with scratch_folder(output) as scratch, start_workers(config.jobs, PRELOAD) as pool:
        drawing = open_drawing(extract, box, checkpoint.zoom, scratch, config.style)
        draw = partial(embed_city, drawing, checkpoint, pool, config.jobs, device=args.device, resumable=True)
        if places is not None:
            done = write_points(draw, drawing, places, output, pool, config.jobs)
        elif polygons is not None:
            done = write_areas(draw, drawing, polygons, output)
        elif what.h3 is not None:
            done = write_cells(draw, drawing, what.h3, output)
        else:
            done = write_tiles(draw, output, scratch if what.map else None)
    print(f"wrote {done} to {output} in {time.perf_counter() - started:.0f} s")
    print(ATTRIBUTION)


def read_sources(args: argparse.Namespace) -> tuple[RenderConfig, Checkpoint, Path, Box | None]:
    """The settings, the encoder, the extract and the box. Raises `UserError` if one of them cannot be used."""
    config, checkpoint = read_flags(RenderConfig, args), load_model(args.model_path)
    extract, box = locate(config)
    if not extract.is_file():
        raise UserError(f"no extract at {extract}; name an .osm.pbf file, or a city with --city")
    return config, checkpoint, extract, box


def default_output(config: RenderConfig, what: WhatFlags, extract: Path) -> Path:
    """A Parquet file in the working folder that is named for what it holds."""
    if (source := what.points or what.areas) is not None:
        return Path(f"{source.stem}_vectors.parquet")
    name = config.city.lower() if config.city else EXTRACT_SUFFIXES.sub("", extract.name)
    return Path(f"{name}.parquet" if what.h3 is None else f"{name}_h3_{what.h3}.parquet")


@contextlib.contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """A folder beside `output` for what is unfinished: removed at the end, kept if the work fails or is stopped.

    Raises `UserError` while another process works on the same output.
    """
    folder = output.with_name(f".{output.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "work.lock", wait_s=1):
        try:
            yield folder
        except UserError:  # the same command would fail again
            remove_work(folder, AREA)
            raise
        remove_work(folder, AREA)


def write_tiles(draw: Draw, output: Path, map_scratch: Path | None) -> str:
    """Embed every tile, and write the explorer if there is a folder for its caches. Says what was written."""
    from user_tables import write_frame

    city = draw()
    if output.suffix.lower() in (".npy", ".gpkg"):
        write_frame(output, tile_frame(city.embeddings), city.embeddings.vectors)
    elif (writer := pick_writer(output)) is not None:
        writer(city, output)
    if map_scratch is not None:
        page = output.with_name(f"{output.stem}_map.html")
        write_map(city, page, map_scratch)
        print(f"wrote the explorer to {page}: open it in a browser")
    blank = int(city.embeddings.blank.sum())
    return f"{len(city.embeddings):,} tiles ({blank:,} of them blank), {city.embedder.dimension} numbers each,"


def write_map(city: DrawnCity, page: Path, scratch: Path) -> None:
    """Write the explorer for at most `MAP_TILES` tiles, spread evenly over the city."""
    from interactive_visualizer import PageFlags, page_data, write_page  # slow to import

    shown = city.take(pick_rows(city.store, MAP_TILES))
    flags = PageFlags(dr_algorithms=["PCA", "TSNE"], names=city.drawing.extract)
    write_page(page, page_data(shown, flags, scratch, DeviceFlags.seed))


def write_points(draw: Draw, drawing: Drawing, places: "Places", output: Path, pool: Executor, jobs: int) -> str:
    """Embed the window around each place; rows outside the map get no vector. Says what was written."""
    from user_tables import rows_on_tiles, write_frame

    area = drawing.area
    known, tile = rows_on_tiles(places, TileGrid(area.tile_xy, area.zoom), area.zoom)
    tile[:, 0] = area.unwrapped_x(tile[:, 0])
    city = draw(rows=np.zeros(0, dtype=np.int64), around=tile)
    vectors = np.full((len(places), city.embedder.dimension), np.nan, dtype=np.float32)
    vectors[known] = embed_places(city, np.column_stack([places.lat[known], places.lon[known]]), pool, jobs)
    write_frame(output, places.frame, vectors, places)
    lost = {
        "without coordinates": places.missing,
        "with impossible coordinates": places.impossible,
        "outside the map": len(places) - len(known) - places.missing - places.impossible,
    }
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in lost.items() if count)
    return f"{len(places):,} rows" + (f" ({len(places) - len(known):,} have no vector: {reasons})" if reasons else "")


def write_areas(draw: Draw, drawing: Drawing, polygons: "geopandas.GeoDataFrame", output: Path) -> str:
    """Embed the tiles on which the polygons lie, and write a mean vector for each polygon. Says what was written."""
    from area_vectors import area_means, tiles_within
    from user_tables import add_columns, write_frame

    shapes, area = polygons.geometry.to_numpy(), drawing.area
    rows = tiles_within(shapes, area.tile_xy, area.zoom)
    if not len(rows):
        west, south, east, north = area_bounds(area.tile_xy, area.zoom)
        raise UserError(
            f"not one of {len(polygons):,} areas is on the map, which covers latitude {south:.4f} to {north:.4f}, "
            f"longitude {west:.4f} to {east:.4f}; if the file is not in degrees, name its system with --crs"
        )
    found = area_means(shapes, draw(rows=rows).embeddings)
    write_frame(output, add_columns(polygons, found.facts), found.vectors)
    empty = int((found.tiles == 0).sum())
    return f"{len(polygons):,} areas" + (f" ({empty:,} have no vector: outside the map)" if empty else "")


def write_cells(draw: Draw, drawing: Drawing, resolution: int, output: Path) -> str:
    """Embed every tile, and write a mean vector for each H3 cell that shares ground with one. Says what was written."""
    from area_vectors import area_means, h3_cells
    from user_tables import write_frame

    cells = h3_cells(drawing.area.tile_xy, drawing.area.zoom, resolution)
    found = area_means(cells.geometry.to_numpy(), draw().embeddings)
    kept = np.flatnonzero(found.tiles)
    write_frame(output, cells.assign(**found.facts).iloc[kept].reset_index(drop=True), found.vectors[kept])
    return f"{len(kept):,} H3 cells"


# --- a dataset, block by block -----------------------------------------------------------------------------


def wants_dataset(args: argparse.Namespace) -> bool:
    """Whether the flags ask for a folder of parts."""
    name = args.output or ""
    return args.engine is not None or "://" in name or name.endswith(("/", "\\")) or bool(name and Path(name).is_dir())


def write_dataset(args: argparse.Namespace, what: WhatFlags, flags: DatasetFlags) -> int:
    """Embed every tile, block by block. Returns the exit code: 1 if some blocks failed."""
    started = time.perf_counter()
    if what.map or what.points or what.areas or what.h3 is not None:
        raise UserError(
            "a dataset holds every tile; give --engine and a folder/ without --points, --areas, --h3, --map"
        )
    if flags.engine != "ray":  # its machines have devices of their own
        pick_device(args.device)
    config, checkpoint, extract, box = read_sources(args)
    output = args.output or f"{default_output(config, what, extract).stem}_vectors"
    report = embed_dataset(
        extract, box, checkpoint, output, flags, style=config.style, jobs=config.jobs, device=args.device
    )
    print(
        f"{output} holds {report.tiles:,} tiles in {report.blocks - len(report.failed):,} blocks, {report.computed:,} "
        f"of them embedded now, in {time.perf_counter() - started:.0f} s"
    )
    print(ATTRIBUTION)
    if report.failed:
        names = ", ".join(sorted(report.failed))
        print(f"{len(report.failed):,} blocks failed: {names}; the same command tries them again")
    return EXIT_WORK_FAILED if report.failed else 0


# --- search ------------------------------------------------------------------------------------------------


def answer_query(query: QueryFlags, box: Box | None) -> None:
    """Print the places that are most like the one asked for, with coordinates, distances and a link to the map."""
    if query.query is None or query.from_ is None:
        raise UserError("--query needs --from FILE.parquet or a FOLDER/, which holds the tile of that place")
    place, where = query.query, query.in_ or query.from_
    searched = open_dataset(where) if is_dataset(where) else read_export(where)
    own = read_tile(query.from_, place, searched if where == query.from_ else None)
    if own.model_key != searched.model_key or own.zoom != searched.zoom:
        raise UserError(
            f"{query.from_} and {where} were embedded by different encoders; embed both with the same --model_path"
        )
    without = own.tile_xy[0] if where == query.from_ else None
    if isinstance(searched, DatasetSearch):
        answer = searched.similar(own.vectors[0], query.k, place, min_km=query.min_km, box=box, without=without)
        latlon, layer, shared = searched.latlon(answer.rows), np.array(LAYERS)[searched.layer[answer.rows]], None
    else:
        search, allowed = open_search(searched.vectors, metric="dot", exact=True), ~searched.blank
        if box is not None:
            lat, lon = searched.latlon.T
            allowed &= inside_box(lat, lon, box)
        if without is not None:
            allowed &= (searched.tile_xy != without).any(axis=1)
        answer = similar_places(
            search,
            own.vectors[0],
            query.k,
            searched.latlon,
            np.array(place),
            min_km=query.min_km,
            allowed=allowed,
        )
        found = searched.take(answer.rows)
        latlon, layer = found.latlon, found.layer
        city = searched.layer_intensity[~searched.blank]
        shared = shared_layers(own.layer_intensity[0], found.layer_intensity, city)
    print(f"most like {place[0]:.5f}, {place[1]:.5f} of {query.from_}, in {where} (cosine distance)")
    print_answer(answer, query.k, query.min_km, latlon=latlon, layer=layer, shared=shared, zoom=searched.zoom)


def read_tile(path: Path, place: tuple[float, float], opened: "Export | DatasetSearch | None") -> Export:
    """The one tile at a place, of a file or a dataset; `opened` is the file if it has been read."""
    if is_dataset(path):
        return tile_at(path, place)
    tiles = opened if isinstance(opened, Export) else read_export(path)
    row = tiles.row_of(*place)
    if row < 0:
        west, south, east, north = area_bounds(tiles.tile_xy, tiles.zoom)
        raise UserError(
            f"no tile of {path} lies at latitude {place[0]:g}, longitude {place[1]:g}; it covers latitude "
            f"{south:.4f} to {north:.4f}, longitude {west:.4f} to {east:.4f}"
        )
    return tiles.take(np.array([row]))


if __name__ == "__main__":
    run_main(main)
