"""Fill every cache once: vectors, Annoy indices and projections; search from any place; export the vectors.

python precompute_embeddings.py --max_tiles 10000 --annoy_trees 200 --annoy_metrics angular euclidean
python precompute_embeddings.py --query 50.4501,30.5234 --k 10 --exclude_km 2
python precompute_embeddings.py --export city.parquet
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import projections
import similarity
import tile_grid
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
    read_flags,
    run_main,
)
from distributed import Ranks
from embeddings import City, Embeddings, load_city
from exports import EXPORTS, export_path, pick_writer
from inference import embed_places, precision_name
from layers import LAYERS
from progress_bars import progress, progress_listener


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
    away = tile_grid.great_circle_km(places.latlon, ask.query)
    allowed = tile_grid.farther_than(places.tile_xy, places.zoom, ask.query, ask.exclude_km)
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


if __name__ == "__main__":
    run_main(main)
