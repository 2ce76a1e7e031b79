"""Fill every cache once: vectors, Annoy indices and projections; search from any place; export the vectors.

python precompute_embeddings.py --max_tiles 10000 --annoy_trees 200 --annoy_metrics angular euclidean
python precompute_embeddings.py --query 50.4501,30.5234 --k 10 --exclude_km 2
python precompute_embeddings.py --export city.parquet
"""

import argparse
import csv
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

import projections
import similarity
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    StopSignal,
    TilesFlags,
    UserError,
    add_flags,
    count_float,
    flag,
    positive_int,
    progress,
    progress_listener,
    read_flags,
    run_main,
)
from data_loader import LAYERS, latlon_of_tile
from embeddings import ZONES, City, Embeddings, Ranks, embed_places, load_city, precision_name
from files import atomic_path, atomic_write

PROJECTOR_FOLDER = Path("runs/projector")  # inside the folder that `tensorboard --logdir runs` watches
EXPORTS = ".parquet, .geojson, .csv, projector, or a folder/ for parquet in parts"
PART_TILES = 64  # an export in parts has a file for each block of 64 x 64 tiles


def place(text: str) -> tuple[float, float]:
    """Parse LAT,LON in degrees."""
    try:
        lat, lon = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given, LAT,LON in degrees expected, as 50.4501,30.5234") from None
    return lat, lon


def algorithm(text: str) -> str:
    """Parse the name of a projection: t-SNE, tsne and TSNE are one."""
    name = text.upper().replace("-", "")
    if name not in projections.ALGORITHMS:
        raise argparse.ArgumentTypeError(f"{text!r} given, one of {', '.join(projections.ALGORITHMS)} expected")
    return name


@dataclasses.dataclass(frozen=True)
class PrecomputeFlags:
    """What is computed."""

    max_tiles: int | None = flag(
        None, "embed this many tiles with content, spread evenly over the city; left out: every tile", type=positive_int
    )
    batch_size: int | None = flag(None, "tiles per batch; left out: what suits the device", type=positive_int)
    annoy_trees: int = flag(
        similarity.DEFAULT_TREES, "trees of each Annoy index: more find more and take longer", type=positive_int
    )
    annoy_metrics: list[str] = flag(
        list(similarity.METRICS), "distances to build an index for", type=str, nargs="+", choices=similarity.METRICS
    )
    dr_algorithms: list[str] = flag(
        list(projections.ALGORITHMS), "projections to compute, each in 2-D and 3-D", type=algorithm, nargs="+"
    )
    skip_embeddings: bool = flag(False, "use the cached vectors, embed nothing")
    skip_projections: bool = flag(False, "compute no projections")
    force_recompute: bool = flag(False, "compute all that is not skipped anew, whatever is cached")


@dataclasses.dataclass(frozen=True)
class AskFlags:
    """Search and export (computing only what they need)."""

    query: tuple[float, float] | None = flag(
        None, "find the places most alike to this one", type=place, metavar="LAT,LON"
    )
    k: int = flag(10, "how many places to find", type=positive_int)
    exclude_km: float = flag(0.0, "leave out places nearer than this many km to the query", type=count_float)
    export: Path | None = flag(None, f"write the vectors to a file or folder: {EXPORTS}", type=Path, metavar="PATH")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A line of the closing table."""

    name: str
    result: str
    detail: str
    seconds: float


def main() -> None:
    """Fill the caches, or answer a query, or export."""
    parser = Parser(__doc__)
    for group in (PrecomputeFlags, AskFlags, TilesFlags, ModelFlags, DeviceFlags):
        add_flags(parser, group)
    args = parser.parse_args()
    what, ask = read_flags(PrecomputeFlags, args), read_flags(AskFlags, args)
    writer, target = pick_writer(ask.export), export_path(ask.export)
    with StopSignal() as stop, progress_listener(lambda *_: stop.raise_if_requested()):
        city = load(args, what)
        if not leave_ranks():
            return
        if writer:
            writer(city, target)
            print(f"wrote {len(city.embeddings):,} tiles to {target}")
        if ask.query:
            print_answer(city, what, ask, args)
        if not (writer or ask.query):
            print_table(fill_caches(city, what, args))


def leave_ranks() -> bool:
    """End the sharing among processes; whether this is the one that does the rest."""
    ranks = Ranks()
    ranks.close()
    return ranks.first


def load(args: argparse.Namespace, what: PrecomputeFlags) -> City:
    """The city with its vectors, embedded or cached as the flags say."""
    return load_city(
        read_flags(TilesFlags, args),
        args.model_path,
        device=args.device,
        batch_size=what.batch_size,
        max_tiles=what.max_tiles,
        seed=args.seed,
        force=what.force_recompute and not what.skip_embeddings,
        cached_only=what.skip_embeddings,
    )


# --- filling the caches ------------------------------------------------------------------------------------


def fill_caches(city: City, what: PrecomputeFlags, args: argparse.Namespace) -> list[Stage]:
    """Compute or reuse vectors, indices and projections; one `Stage` for each."""
    places = city.embeddings.with_content()
    if not len(places):
        raise UserError(f"every tile of {city.store.tiles_root} is blank; draw another area with render_tiles.py")
    stages = [vectors_stage(city)]
    _ = city.pictures  # packed now, so that a viewer need not
    stages += index_stages(places, what, args)
    if not what.skip_projections:
        stages += projection_stages(places, what, args)
    else:
        stages.append(Stage("projections", "skipped", "--skip_projections", 0.0))
    return stages


def vectors_stage(city: City) -> Stage:
    """How many vectors were computed and how many were there."""
    dimension, blank = city.embeddings.vectors.shape[1], int(city.embeddings.blank.sum())
    detail = f"{len(city.embeddings):,} tiles, {blank:,} of them blank; {dimension} numbers each"
    if city.computed:
        detail += f"; {city.device.type}, {precision_name(city.device)}"
    result = "computed" if city.computed else "reused"
    if city.computed and city.reused:
        result = f"computed {city.computed:,}, reused {city.reused:,}"
    return Stage("vectors", result, detail, city.seconds)


def index_stages(places: Embeddings, what: PrecomputeFlags, args: argparse.Namespace) -> Iterator[Stage]:
    """An Annoy index for each metric."""
    if not similarity.annoy_available():
        yield Stage("search", "skipped", "Annoy is not installed (`pip install annoy`): search is exact", 0.0)
        return
    for metric in progress(what.annoy_metrics, desc="building indices", unit="index"):
        search = similarity.open_search(
            places.vectors,
            metric=metric,
            trees=what.annoy_trees,
            key=places.key,
            cache_dir=args.cache_dir,
            seed=args.seed,
            exact=False,
            force=what.force_recompute,
        )
        result = "computed" if search.built else "reused"
        yield Stage(f"index {metric}", result, f"{search.trees} trees; {search.quality}", search.seconds)


def projection_stages(places: Embeddings, what: PrecomputeFlags, args: argparse.Namespace) -> Iterator[Stage]:
    """Each projection in 2-D and 3-D."""
    wanted = [(name, dimensions) for name in what.dr_algorithms for dimensions in (2, 3)]
    cache = {"seed": args.seed, "cache_dir": args.cache_dir, "key": places.key}
    for name, dimensions in progress(wanted, desc="projections", unit="projection"):
        started = time.perf_counter()
        reused = not what.force_recompute and projections.is_cached(places.vectors, name, dimensions, **cache)
        projection = projections.project(places.vectors, name, dimensions, force=what.force_recompute, **cache)
        detail = f"{len(projection.points):,} points; trustworthiness {projection.trustworthiness:.3f}"
        seconds = time.perf_counter() - started
        yield Stage(f"{name} {dimensions}-D", "reused" if reused else "computed", detail, seconds)


def print_table(stages: list[Stage]) -> None:
    """The closing table: what was computed, what was reused, and the time of each."""
    widths = [max(len(getattr(stage, name)) for stage in stages) for name in ("name", "result", "detail")]
    for stage in stages:
        texts = (stage.name, stage.result, stage.detail)
        cells = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
        print("  ".join(cells) + f"  {stage.seconds:8.2f} s")
    total = sum(stage.seconds for stage in stages)
    if not any(stage.result.startswith("computed") for stage in stages):
        print(f"everything was cached: nothing was computed ({total:.2f} s)")


# --- search ------------------------------------------------------------------------------------------------


def print_answer(city: City, what: PrecomputeFlags, ask: AskFlags, args: argparse.Namespace) -> None:
    """Print the places most alike to the query, with coordinates, distance and map link text."""
    places = city.embeddings.with_content()
    vector = embed_places(city.encoder, city.store, np.array([ask.query]))
    search = similarity.open_search(
        places.vectors,
        metric=what.annoy_metrics[0],
        trees=what.annoy_trees,
        key=places.key,
        cache_dir=args.cache_dir,
        seed=args.seed,
    )
    away = similarity.great_circle_km(places.latlon, ask.query)
    allowed = similarity.farther_than(places.tile_xy, places.zoom, ask.query, ask.exclude_km)
    rows, found = search.query(vector, min(ask.k, len(places)), allowed=allowed if ask.exclude_km else None)
    quality = search.quality or similarity.measure(search, sample=100)
    kind = f"Annoy, {search.trees} trees" if search.kind == "annoy" else "exact search"
    print(f"most alike to {ask.query[0]:.5f}, {ask.query[1]:.5f} ({search.metric} distance; {kind}; {quality})")
    print(f"{'':>4} {'latitude':>10} {'longitude':>11} {'distance':>9} {'km away':>8}  {'layer':<17} map")
    found_any = [(row, distance) for row, distance in zip(rows[0], found[0], strict=True) if row >= 0]
    for rank, (row, distance) in enumerate(found_any, start=1):
        lat, lon = places.latlon[row]
        layer, link = LAYERS[places.dominant_layer[row]], map_link(lat, lon, places.zoom)
        print(f"{rank:>4} {lat:>10.5f} {lon:>11.5f} {distance:>9.4f} {away[row]:>8.2f}  {layer:<17} {link}")
    if len(found_any) < ask.k:
        print(f"only {len(found_any)} places lie at least {ask.exclude_km:g} km away")


def map_link(lat: float, lon: float, zoom: int) -> str:
    """The address of a place on openstreetmap.org."""
    return f"https://www.openstreetmap.org/?mlat={lat:.5f}&mlon={lon:.5f}#map={zoom}/{lat:.5f}/{lon:.5f}"


# --- export ------------------------------------------------------------------------------------------------


def pick_writer(path: Path | None) -> Callable[[City, Path], None] | None:
    """The function that writes an export of this name; None without one."""
    if path is None:
        return None
    writers = {".parquet": write_parquet, ".geojson": write_geojson, ".csv": write_csv}
    folders = {"projector": write_projector}
    writer = writers.get(path.suffix.lower()) if path.suffix else folders.get(path.name, write_parts)
    if writer is None:
        raise UserError(f"--export {path}: {path.suffix or path.name!r} is no known format; expected {EXPORTS}")
    return writer


def export_path(path: Path | None) -> Path | None:
    """Where an export goes: a bare `projector` lies where TensorBoard looks."""
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
    """Outlines of the tiles `(N, 5, 2)`: longitude, latitude; counterclockwise and closed."""
    corners = np.array([(0, 1), (1, 1), (1, 0), (0, 0), (0, 1)])
    return latlon_of_tile(embeddings.tile_xy[:, None] + corners, embeddings.zoom)[..., ::-1]


def write_parquet(city: City, path: Path) -> None:
    """GeoParquet 1.1: facts, the vector as a list, and the tile's outline as WKB in `geometry`."""
    _write_table(city.embeddings, path)


def write_parts(city: City, folder: Path) -> None:
    """The same in a file for each block of tiles, `block=X_Y/tiles.parquet`, as DuckDB, Spark and BigQuery read it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; remove it or export to another")
    blocks, part = np.unique(city.embeddings.tile_xy // PART_TILES, axis=0, return_inverse=True)
    for i, (x, y) in enumerate(progress(blocks.tolist(), desc="writing", unit="block")):
        tiles = city.embeddings.take(np.flatnonzero(part.reshape(-1) == i))
        _write_table(tiles, folder / f"block={x}_{y}" / "tiles.parquet")


def _write_table(embeddings: Embeddings, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rings = tile_rings(embeddings)
    columns = {name: pa.array(column) for name, column in facts_columns(embeddings).items()}
    flat = pa.array(np.ascontiguousarray(embeddings.vectors).reshape(-1))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, embeddings.vectors.shape[1])
    columns["geometry"] = pa.array(polygon_wkb(rings), pa.binary())
    bounds = [*rings.min(axis=(0, 1)).tolist(), *rings.max(axis=(0, 1)).tolist()]
    geometry = {"encoding": "WKB", "geometry_types": ["Polygon"], "bbox": bounds, "orientation": "counterclockwise"}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    about = {"key": embeddings.key, "checkpoint": embeddings.model_key, "layers": LAYERS}
    table = pa.table(columns).replace_schema_metadata({"geo": json.dumps(geo), "loc2vec": json.dumps(about)})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def polygon_wkb(rings: np.ndarray) -> list[bytes]:
    """Little-endian well-known binary of polygons of one ring each, `(N, 5, 2)`."""
    layout = [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", rings.shape[1:])]
    records = np.zeros(len(rings), dtype=layout)
    records["order"], records["type"], records["rings"] = 1, 3, 1
    records["points"], records["ring"] = rings.shape[1], rings
    return [record.tobytes() for record in records]


def write_geojson(city: City, path: Path) -> None:
    """One feature per tile and line: its outline, its facts and its vector."""
    with atomic_write(path, "w") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
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
    """Facts and vector of each tile as plain values; 7 digits hold all that float32 has."""
    columns = facts_columns(embeddings)
    rounded = {"latitude": 7, "longitude": 7, "content_density": 6}
    plain = [
        (np.round(column.astype(np.float64), rounded[name]) if name in rounded else column).tolist()
        for name, column in columns.items()
    ]
    vectors = progress(embeddings.vectors, desc="writing", unit="tile")
    for vector, *facts in zip(vectors, *plain, strict=True):
        yield dict(zip(columns, facts, strict=True)), [float(f"{number:.7g}") for number in vector]


def write_projector(city: City, folder: Path) -> None:
    """The folder that TensorBoard's Projector opens: vectors, facts and a picture of every tile with content."""
    from torch.utils.tensorboard import SummaryWriter

    from tile_images import sprite_layout, sprite_sheet

    places = city.embeddings.with_content()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "vectors.tsv", "w") as file:
        np.savetxt(file, places.vectors, fmt="%.6g", delimiter="\t")
    with atomic_write(folder / "metadata.tsv", "w") as file:
        write_metadata(places, file)
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


def write_metadata(places: Embeddings, file: IO[str]) -> None:
    """The Projector's table: a header, then a line per tile."""
    columns = {"tile": [f"{x}/{y}" for x, y in places.tile_xy.tolist()], **facts_columns(places)}
    del columns["blank"]
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*[np.asarray(column).tolist() for column in columns.values()], strict=True))


if __name__ == "__main__":
    run_main(main)
