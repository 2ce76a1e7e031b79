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
from typing import Any

import numpy as np

import projections
import similarity
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    StopSignal,
    TilesFlags,
    add_flags,
    count_float,
    flag,
    lat_lon,
    positive_int,
    read_flags,
    run_main,
)
from distributed import init_distributed
from embeddings import City, Embeddings, load_city
from exports import EXPORTS, export_path, pick_writer
from inference import precision_name
from layers import LAYERS
from progress_bars import progress, progress_listener
from tile_grid import tile_of_latlon


def algorithm(text: str) -> str:
    """Parse the name of a projection; t-SNE, tsne and TSNE are the same."""
    name = text.upper().replace("-", "")
    if name not in projections.ALGORITHMS:
        raise argparse.ArgumentTypeError(f"{text!r} given, one of {', '.join(projections.ALGORITHMS)} expected")
    return name


@dataclasses.dataclass(frozen=True)
class PrecomputeFlags:
    """What is computed."""

    max_tiles: int | None = flag(
        None, "embed this many tiles with content, spread evenly over the city; default: every tile", type=positive_int
    )
    batch_size: int | None = flag(None, "tiles per batch; default: what suits the device", type=positive_int)
    annoy_trees: int = flag(
        similarity.DEFAULT_TREES,
        "trees of each Annoy index: more find more neighbours and take longer",
        type=positive_int,
    )
    annoy_metrics: list[str] = flag(
        list(similarity.METRICS),
        "metrics to build an index for",
        type=str,
        nargs="+",
        choices=similarity.METRICS,
    )
    dr_algorithms: list[str] = flag(
        list(projections.ALGORITHMS), "projections to compute, each in 2-D and 3-D", type=algorithm, nargs="+"
    )
    skip_embeddings: bool = flag(False, "use the cached vectors and embed nothing")
    skip_projections: bool = flag(False, "compute no projections")
    force_recompute: bool = flag(False, "compute again what is cached, unless it is skipped")


@dataclasses.dataclass(frozen=True)
class AskFlags:
    """Search and export (these compute only what they need)."""

    query: tuple[float, float] | None = flag(
        None, "find the places most similar to this one", type=lat_lon, metavar="LAT,LON"
    )
    k: int = flag(10, "how many places to find", type=positive_int)
    exclude_km: float = flag(0.0, "leave out places closer than this many km to the query", type=count_float)
    export: Path | None = flag(None, f"write the vectors to a file or folder: {EXPORTS}", type=Path, metavar="PATH")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A line of the closing table."""

    name: str
    result: str
    detail: str
    seconds: float


def main() -> None:
    """Fill the caches, answer a query, or export."""
    parser = Parser(__doc__)
    for group in (PrecomputeFlags, AskFlags, TilesFlags, ModelFlags, DeviceFlags):
        add_flags(parser, group)
    args = parser.parse_args()
    what, ask = read_flags(PrecomputeFlags, args), read_flags(AskFlags, args)
    write_export, target = pick_writer(ask.export), export_path(ask.export)
    with StopSignal() as stop, progress_listener(lambda *_: stop.raise_if_requested()):
        # the processes that torchrun started embed together; the main one goes on alone
        with init_distributed(args.device) as processes:
            city = load_city(
                read_flags(TilesFlags, args),
                args.model_path,
                group=processes,
                batch_size=what.batch_size,
                max_tiles=what.max_tiles,
                seed=args.seed,
                force=what.force_recompute and not what.skip_embeddings,
                cached_only=what.skip_embeddings,
            )
        if not processes.is_main_process:
            return
        if write_export and target:
            write_export(city, target)
            print(f"wrote {len(city.embeddings):,} tiles to {target}")
        if ask.query:
            print_answer(city, what, ask, args)
        if not (write_export or ask.query):
            print_table(list(fill_caches(city, what, args)))


# --- filling the caches ------------------------------------------------------------------------------------


def fill_caches(city: City, what: PrecomputeFlags, args: argparse.Namespace) -> Iterator[Stage]:
    """Compute or reuse vectors, pictures, indices and projections; yields a `Stage` for each line of the table."""
    places = city.with_content().embeddings
    yield vectors_stage(city)
    _ = city.pictures  # packed now, so that a viewer does not have to

    # an index for each metric
    if similarity.annoy_available():
        for metric in progress(what.annoy_metrics, desc="building indices", unit="index"):
            index = open_index(places, metric, what, args, exact=False, force=what.force_recompute)
            detail = f"{index.trees} trees; {index.quality}"
            yield Stage(f"index {metric}", "computed" if index.built else "reused", detail, index.seconds)
    else:
        yield Stage("search", "skipped", "Annoy is not installed (`pip install annoy`): search is exact", 0.0)

    # each projection in 2-D and 3-D
    if what.skip_projections:
        yield Stage("projections", "skipped", "--skip_projections", 0.0)
        return
    wanted = [(name, dimensions) for name in what.dr_algorithms for dimensions in (2, 3)]
    cache = {"seed": args.seed, "cache_dir": args.cache_dir, "key": places.key}
    for name, dimensions in progress(wanted, desc="projections", unit="projection"):
        started = time.perf_counter()
        reused = not what.force_recompute and projections.is_cached(places.vectors, name, dimensions, **cache)
        projection = projections.project(places.vectors, name, dimensions, force=what.force_recompute, **cache)
        detail = f"{len(projection.points):,} points; trustworthiness {projection.trustworthiness:.3f}"
        seconds = time.perf_counter() - started
        yield Stage(f"{name} {dimensions}-D", "reused" if reused else "computed", detail, seconds)


def vectors_stage(city: City) -> Stage:
    """How many vectors were computed, and how many were there."""
    dimension, blank = city.embeddings.vectors.shape[1], int(city.embeddings.blank.sum())
    detail = f"{len(city.embeddings):,} tiles, {blank:,} of them blank; {dimension} numbers each"
    if city.computed:
        detail += f"; {city.device.type}, {precision_name(city.embedder.encoder)}"
    if city.missing:
        detail += f"; {city.missing:,} further tiles have no cached vector"
    result = "computed" if city.computed else "reused"
    if city.computed and city.reused:
        result = f"computed {city.computed:,}, reused {city.reused:,}"
    return Stage("vectors", result, detail, city.seconds)


def open_index(
    places: Embeddings, metric: str, what: PrecomputeFlags, args: argparse.Namespace, **options: Any
) -> similarity.Search:
    """The search index over `places` that the flags describe; `options` go to `open_search`."""
    cache = {"key": places.key, "cache_dir": args.cache_dir, "seed": args.seed}
    return similarity.open_search(places.vectors, metric=metric, trees=what.annoy_trees, **cache, **options)


def print_table(stages: list[Stage]) -> None:
    """Print the closing table: what was computed, what was reused, and how long each stage took."""
    widths = [max(len(getattr(stage, name)) for stage in stages) for name in ("name", "result", "detail")]
    for stage in stages:
        texts = (stage.name, stage.result, stage.detail)
        cells = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
        print("  ".join(cells) + f"  {stage.seconds:8.2f} s")
    if not any(stage.result.startswith("computed") for stage in stages):
        total = sum(stage.seconds for stage in stages)
        print(f"everything was cached: nothing was computed ({total:.2f} s)")


# --- search ------------------------------------------------------------------------------------------------


def print_answer(city: City, what: PrecomputeFlags, ask: AskFlags, args: argparse.Namespace) -> None:
    """Print the places that are most similar to the query, with coordinates, distances and a link to the map."""
    places, query = city.with_content().embeddings, np.array(ask.query)
    search = open_index(places, what.annoy_metrics[0], what, args)
    vector = city.embedder.embed_places(query)
    answer = similarity.similar_places(search, vector, ask.k, places.latlon, query, min_km=ask.exclude_km)
    quality = search.quality or similarity.measure(search, sample=100)
    kind = f"Annoy, {search.trees} trees" if search.kind == "annoy" else "exact search"
    print(f"most similar to {query[0]:.5f}, {query[1]:.5f} ({search.metric} distance; {kind}; {quality})")
    found, store = answer.rows, city.store
    own = store.grid.rows(np.floor(tile_of_latlon(query[0], query[1], store.zoom)).astype(np.int64))
    similarity.print_answer(
        answer,
        ask.k,
        ask.exclude_km,
        latlon=places.latlon[found],
        layer=np.array(LAYERS)[places.dominant_layer[found]],
        shared=similarity.shared_layers(
            store.layer_intensity[own], places.layer_intensity[found], places.layer_intensity
        ),
        zoom=places.zoom,
    )


if __name__ == "__main__":
    run_main(main)
