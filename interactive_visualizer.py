"""Write one HTML file that links a city's map, its embedding and its tiles. It works offline, from any folder.

python interactive_visualizer.py --max_tiles 500
python interactive_visualizer.py --max_tiles 0 --title Astana --output_dir my_visualizations
python interactive_visualizer.py --tiles_root CITY/tiles --compare OTHER_CITY/tiles
python interactive_visualizer.py --vectors COUNTRY/ --bbox 71.38,51.10,71.48,51.18 --max_tiles 5000
"""

import base64
import dataclasses
import gzip
import html
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import projections
import similarity
import tile_images
from cache_files import load_intact, save_cache
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    UserError,
    VectorFlags,
    add_flags,
    count_int,
    flag,
    positive_int,
    read_flags,
    run_main,
)
from comparison import Arranged, Pair, arrange, arrange_pair, open_pair
from embeddings import PICTURE_PX, City, load_city
from explorer_data import (
    MANY_TILES,
    PLANE_PX,
    PLANE_STEP,
    SPRITE_PX,
    SPRITE_QUALITY,
    VECTOR_TYPE,
    Quantised,
    bar_sprites,
    crowd,
    explorer_data,
    explorer_facts,
    packed,
    packed_names,
    planes,
    rounded,
    sheet_order,
    sheet_uri,
)
from files import atomic_write, digest
from front_end import WEB, bundle, plotly_script, style_sheet
from layers import LAYERS
from own_columns import column_colourings, rules
from place_names import find_place_names
from progress_bars import note, progress
from reasons import place_parts, shown_parts
from render_tiles import parse_box
from tile_grid import area_bounds
from tile_levels import FAR_TILES, NEAR_TILES
from vector_city import VectorCity, layer_map, open_vectors, rows_in_box, vector_city
from version import VERSION

PAGE_NAME = "index.html"

# of the squared length of what a part changes is kept when it is shortened, by how many tiles the page shows
REASON_SHARE = {"few": 0.995, "some": 0.99, "many": 0.97}
RECALL_SAMPLE, RECALL_K = 500, 10  # tiles, and neighbours of each
ERROR_SAMPLE = 100  # tiles
PAIRS_AT_ONCE = 2048

# how a page of many tiles is estimated: tiles and vectors that are tried, bytes of facts and projections of a tile
ESTIMATE_SAMPLE, REASON_SAMPLE, FACT_BYTES = 256, 64, 150


@dataclasses.dataclass(frozen=True)
class PageFlags:
    """Page."""

    max_tiles: int = flag(500, "show at most this many tiles, spread evenly over the city; 0: all", type=count_int)
    output_dir: Path = flag(Path("interactive_visualizations"), f"folder for {PAGE_NAME}")
    dr_algorithms: list[str] = flag(
        list(projections.ALGORITHMS), "projections to switch among", nargs="+", type=str.upper,
        choices=projections.ALGORITHMS,
    )  # fmt: skip
    clusters: int = flag(10, "number of clusters (k-means on the vectors)", type=positive_int)
    reasons: bool = flag(True, "measure which layers make two tiles alike: several forward passes a tile, cached")
    columns: list[Path] | None = flag(
        None, "tables to colour and filter by: x,y or lat,lon or shapes, and any columns", nargs="+", type=Path
    )
    names: Path | None = flag(
        None,
        "extract with the place names to search (default: those beside the tiles)",
        type=Path,
        metavar="EXTRACT",
    )
    bbox: str | None = flag(None, "with --vectors: only the tiles in this box, in degrees", metavar="W,S,E,N")
    title: str | None = flag(None, "title of the page (default: the name of the extract)")
    compare: Path | None = flag(
        None,
        "show two side by side: another city's tiles or vectors (.parquet), or another encoder (.pth)",
        type=Path,
        metavar="OTHER",
    )


@dataclasses.dataclass(frozen=True)
class Built:
    """A finished page: where it is, and how exact the rounded vectors in it are."""

    path: Path
    tiles: int
    recall: float
    bits: int
    reason_error: float | None
    compared: str = ""


# --- the page ----------------------------------------------------------------------------------------------


def build_page(tiles: TilesFlags, model_path: Path, device: DeviceFlags, page: PageFlags) -> Built:
    """Embed, project and draw a city's tiles, and write them with the explorer as one HTML file."""
    city = load_city(tiles, model_path, device=device.device, max_tiles=page.max_tiles or None, seed=device.seed)
    if int((~city.embeddings.blank).sum()) > MANY_TILES:
        note(estimate(city, page))
    path = page.output_dir / PAGE_NAME
    if page.compare is None:
        data, compared = page_data(city, page, tiles.cache_dir, device.seed), ""
    else:
        pair = open_pair(page.compare, city, tiles, model_path, device, page.max_tiles)
        data, compared = compared_data(pair, page, tiles.cache_dir, device.seed), " and ".join(pair.names)
    write_page(path, data)
    return Built(path, data["count"], **data["measured"], compared=compared)


def build_vector_page(path: Path, tiles: TilesFlags, seed: int, page: PageFlags) -> Built:
    """The page of a dataset or file of vectors, or of the part of it in a box; its tiles have bars instead of pictures.

    Raises `UserError` if no tile lies in the box.
    """
    vectors = open_vectors(path, tiles.cache_dir)
    if page.bbox:
        vectors = vectors.take(rows_in_box(vectors, parse_box(page.bbox)))
    shown = vectors.overview_rows(page.max_tiles or len(vectors))
    city = vector_city(vectors, vectors.read(shown))
    data = vector_page_data(city, page, tiles.cache_dir, seed)
    write_page(page.output_dir / PAGE_NAME, data)
    return Built(page.output_dir / PAGE_NAME, data["count"], **data["measured"])


def estimate(city: City, page: PageFlags) -> str:
    """What a page of many tiles will hold and about how long it takes: a part of the work is done and timed."""
    count = int((~city.embeddings.blank).sum())
    rows = city.rows[~city.embeddings.blank]
    sample = rows[np.linspace(0, count - 1, min(count, ESTIMATE_SAMPLE)).astype(np.int64)]
    # pictures of layers and tiles, from the network's own tiles, which lie ready
    started = time.perf_counter()
    size, step = PLANE_PX["many"], PLANE_STEP["many"]
    drawn = city.store.plane_of[sample]
    masks = city.store.planes[np.unique(drawn[drawn > 0])]
    masks = np.stack([np.asarray(Image.fromarray(mask).resize((size, size))) for mask in masks])
    taken = len(sheet_uri(rounded(masks, step)))
    taken += len(sheet_uri(tile_images.pictures(city.store, sample, SPRITE_PX["many"]), SPRITE_QUALITY["many"]))
    seconds = {"pictures": (time.perf_counter() - started) * count / len(sample)}
    if city.store.tile_size < PICTURE_PX:
        seconds["reading the tiles at picture size"] = city.store.meta.get("pack_seconds", 0.0)
    megabytes = (taken / len(sample) + city.embeddings.vectors.shape[1] * 4 / 3 + FACT_BYTES) * count / 1e6
    for name in page.dr_algorithms:
        algorithm = projections.ALGORITHMS[name]
        seconds[algorithm.title] = 2 * algorithm.seconds * min(count, 2 * algorithm.most[2])
    if page.reasons:
        pairs = np.argwhere(shown_parts(city.embedder, sample))
        some = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), REASON_SAMPLE)).astype(np.int64)]
        for _ in range(2):  # the first run warms the network up
            started = time.perf_counter()
            city.embedder.embed_without(np.column_stack([sample[some[:, 0]], some[:, 1]]))
        each = (time.perf_counter() - started) / len(some)
        seconds["reasons (--no_reasons leaves them out)"] = each * len(pairs) / len(sample) * count
    parts = ", ".join(f"{name} {minutes(value)}" for name, value in seconds.items())
    whole = minutes(sum(seconds.values()))
    return (
        f"a page of {count:,} tiles: about {megabytes:,.0f} MB, and about {whole} on this machine ({parts}). "
        f"--max_tiles {MANY_TILES} makes a small one"
    )


def minutes(seconds: float) -> str:
    """A duration to read: seconds, minutes or hours."""
    if seconds < 100:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def write_page(path: Path, data: dict[str, Any]) -> None:
    """Write the explorer with its data as one file that needs nothing else."""
    template = (WEB / "page.html").read_text(encoding="utf-8")
    parts = {
        "title": html.escape(data.get("compare", data)["title"]),
        "generator": f"Loc2Vec {VERSION}",
        "css": style_sheet() + (style_sheet("compare.css") if "compare" in data else ""),
        "data": compressed_text(json.dumps(data, separators=(",", ":"), allow_nan=False)),
        "plotly": compressed_text(plotly_script()),
        "script": bundle("compare_page.js" if "compare" in data else "page.js"),
    }
    with atomic_write(path, "w") as file:
        for i, piece in enumerate(template.replace("}}", "{{").split("{{")):
            file.write(parts[piece] if i % 2 else piece)


def compressed_text(text: str) -> str:
    """A text as base64 of gzip: a script in a third of its size, arrays without what base64 adds to them inside."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


# --- the data ----------------------------------------------------------------------------------------------


def page_data(
    city: City,
    page: PageFlags,
    cache_dir: Path,
    seed: int,
    arranged: Arranged | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """Everything that the explorer shows, as JSON with arrays in base64; `web/types.d.ts` describes it.

    Clusters and projections are those of the city alone unless they are `arranged`. Without `pictures` only what
    depends on the encoder is there.
    """
    rows = sheet_order(city)
    places, store_rows = city.embeddings.take(rows), city.rows[rows]

    # vectors that answer questions in the browser, and how exact they are
    reasons = reason_vectors(city, store_rows, places.vectors, places.key, cache_dir) if page.reasons else None
    reason_error = reasons["error"] if reasons else None
    dtype = VECTOR_TYPE[crowd(len(rows))]
    recall, bits = quantised_recall(places.vectors, Quantised.of(places.vectors, dtype).vectors()), np.iinfo(dtype).bits

    arranged = arranged or arrange([city], page.dr_algorithms, page.clusters, seed=seed, cache_dir=cache_dir)[0]

    # what the page says about itself before a tile is picked
    facts = {
        "Tiles shown": f"{len(rows):,}",
        "Tiles of the city": f"{len(city.store):,}, {city.store.blank.mean():.0%} of them blank",
        "Input of the network": network_input_text(city),
        "Trained for": f"{city.checkpoint.epoch:,} epoch{'s' * (city.checkpoint.epoch != 1)}",
        "Search in this page": f"finds {recall:.1%} of the exact ten nearest",
    }
    own = [*column_colourings(page.columns or (), places.tile_xy, city.store.zoom), *arranged.more]
    shown: dict[str, Any]
    if pictures:
        box = area_bounds(city.store.tile_xy, city.store.zoom)
        named = find_place_names(city.store.tiles_root, page.names, box, cache_dir)
        shown = explorer_data(city, rows, arranged.cluster, page.title, own, arranged.beside) | {
            "names": packed_names(city, named) if named is not None else None,
            "planes": planes(city, store_rows),
        }
    else:
        shown = explorer_facts(city, rows, arranged.cluster, page.title, own, arranged.beside)
        shown["vectors"] = Quantised.of(places.vectors, dtype).packed()
    return shown | {
        "own_columns": rules(),
        "projections": arranged.points,
        "reasons": reasons,
        "measured": {"recall": recall, "bits": bits, "reason_error": reason_error},
        "search_note": search_note(recall, bits, reasons),
        "facts": [{"name": name, "value": value} for name, value in facts.items()],
    }


def compared_data(pair: Pair, page: PageFlags, cache_dir: Path, seed: int) -> dict[str, Any]:
    """The page of a pair: that of its first side, and `compare`, with what is different on the second.

    The user's columns and `--names` are about the first city; the second has the names beside its tiles.
    """
    sides, together = arrange_pair(pair, page.dr_algorithms, page.clusters, seed=seed, cache_dir=cache_dir)
    two_cities = pair.kind == "cities"
    first = dataclasses.replace(page, title=pair.names[0])
    second = dataclasses.replace(page, title=pair.names[1])
    if two_cities:
        second = dataclasses.replace(second, names=None, columns=None)
    left = page_data(pair.cities[0], first, cache_dir, seed, sides[0])
    if isinstance(pair.cities[1], VectorCity):
        right = vector_page_data(pair.cities[1], second, cache_dir, seed, sides[1]) | {"words": None, "planes": None}
    else:
        right = page_data(pair.cities[1], second, cache_dir, seed, sides[1], pictures=two_cities)
    return left | {
        "compare": {
            "kind": pair.kind,
            "title": page.title or pair.title,
            "subtitle": pair.subtitle,
            "details": pair.details,
            "other": {name: value for name, value in right.items() if value != left.get(name)},
            **together,
        }
    }


def vector_page_data(
    city: VectorCity, page: PageFlags, cache_dir: Path, seed: int, arranged: Arranged | None = None
) -> dict[str, Any]:
    """The same as `page_data` for tiles of which only the vectors are known: no layers to switch and no reasons."""
    rows = sheet_order(city)
    places = city.embeddings.take(rows)
    short = Quantised.of(places.vectors, VECTOR_TYPE[crowd(len(rows))])
    recall, bits = quantised_recall(places.vectors, short.vectors()), np.iinfo(short.steps.dtype).bits
    arranged = arranged or arrange([city], page.dr_algorithms, page.clusters, seed=seed, cache_dir=cache_dir)[0]
    frame, image = layer_map(city.tiles)
    facts = {
        "Tiles shown": f"{len(rows):,}",
        "Tiles with content": f"{len(city.tiles):,}",
        "Search in this page": f"finds {recall:.1%} of the exact ten nearest",
    }
    own = [*column_colourings(page.columns or (), places.tile_xy, city.store.zoom), *arranged.more]
    box = area_bounds(city.tiles.tile_xy, city.tiles.zoom)
    named = find_place_names(city.store.tiles_root, page.names, box, cache_dir) if page.names else None
    return explorer_facts(city, rows, arranged.cluster, page.title, own, arranged.beside) | {
        "vectors": short.packed(),
        "sprites": bar_sprites(city, city.rows[rows]),
        "map": frame | {"image": tile_images.data_uri(image, "png")},
        "own_columns": rules(),
        "names": packed_names(city, named) if named is not None else None,
        "projections": arranged.points,
        "reasons": None,
        "measured": {"recall": recall, "bits": bits, "reason_error": None},
        "search_note": search_note(recall, bits, None),
        "facts": [{"name": name, "value": value} for name, value in facts.items()],
    }


def network_input_text(city: City) -> str:
    """What the encoder sees of a place."""
    text = f"{len(LAYERS)} layers of {city.store.tile_size} × {city.store.tile_size} pixels"
    if city.checkpoint.uses_surroundings:
        text += f"; {NEAR_TILES} × {NEAR_TILES} and {FAR_TILES} × {FAR_TILES} tiles around, coarser"
    return text


def search_note(recall: float, bits: int, reasons: dict[str, Any] | None) -> str:
    """What the page computes itself, and how exact it is."""
    note = (
        f"Similarity is the cosine of two vectors. In this page they are rounded to {bits} bits a number, and "
        f"{recall:.1%} of the ten nearest tiles are the same as with the full vectors. "
    )
    if reasons is None:
        return note + "The layers named are those that both tiles show; their effect was not measured."
    also = f"; beside “{'” and “'.join(reasons['parts'])}”, when that is left out" if reasons["parts"] else ""
    return note + (
        "The number beside a layer is how much similarity is lost when that layer is left out of one tile, measured "
        f"with the network{also}. Its error is {max(reasons['error'], 1e-4):.4f} on average."
    )


# --- vectors in fewer bits -------------------------------------------------------------------------------------


def quantised_recall(vectors: np.ndarray, rounded: np.ndarray) -> float:
    """Share of the true nearest tiles that the rounded vectors find, over a sample of tiles.

    Tiles that look the same have equal vectors: any of them is as good an answer as another.
    """
    sample = np.random.default_rng(0).permutation(len(vectors))[:RECALL_SAMPLE]
    k = min(RECALL_K + 1, len(vectors))  # the tile itself is always among them
    if k < 2:
        return 1.0
    kind = np.unique(vectors, axis=0, return_inverse=True)[1].ravel()
    found = [kind[similarity.Search(some, "angular").query(some[sample], k)[0]] for some in (vectors, rounded)]
    same = [(Counter(a) & Counter(b)).total() - 1 for a, b in zip(found[0].tolist(), found[1].tolist(), strict=True)]
    return float(np.clip(np.mean(same) / (k - 1), 0, 1))


def reason_vectors(
    city: City, store_rows: np.ndarray, vectors: np.ndarray, key: str, cache_dir: Path
) -> dict[str, Any]:
    """What shows why two tiles are similar: how every tile's vector changes when one of its parts is left out.

    The changes are shortened to K directions, `axes (D, K)`, and rounded to 8 bits: `lost (M, K)`, first of each drawn
    layer, one tile after another, and then, if the encoder sees the surroundings, of each of the named `parts`, one
    tile after another. What a part contributes to the similarity of a and b is the mean of `lost` of a times b, and of
    b times a; `error` is its mean error. They are shortened about 0, not about their mean as in principal component
    analysis, because that keeps dot products.
    """
    shown = shown_parts(city.embedder, store_rows)
    is_layer = np.arange(shown.shape[1]) < len(LAYERS)
    pairs = np.concatenate([np.argwhere(shown & is_layer), np.argwhere(shown & ~is_layer)])
    without = _vectors_without(city, np.column_stack([store_rows[pairs[:, 0]], pairs[:, 1]]), key, cache_dir)
    change = vectors[pairs[:, 0]] - without
    strength, axes = np.linalg.eigh(change.T @ change)
    share = np.cumsum(strength[::-1]) / max(strength.sum(), 1e-12)
    axes = np.ascontiguousarray(
        axes[:, ::-1][:, : int(np.searchsorted(share, REASON_SHARE[crowd(len(store_rows))])) + 1]
    ).astype(np.float32)
    lost = Quantised.of(change @ axes, np.int8, one_scale=True)
    error = _reason_error(pairs, vectors, change, lost.vectors() @ axes.T)
    return {
        "dimensions": axes.shape[1],
        "axes": packed(axes),
        "lost": lost.packed(),
        "parts": list(place_parts(city.embedder)),
        "error": error,
    }


def _vectors_without(city: City, pairs: np.ndarray, key: str, cache_dir: Path) -> np.ndarray:
    """Vectors `(M, D)` of tiles without a part, for `pairs (M, 2)` of store row and part; cached."""
    path = Path(cache_dir) / f"without-{key[:16]}.l2v"
    key = digest(key, pairs, city.store.content_key)
    cached = load_intact(path, key, "measuring the reasons again")
    if cached:
        return cached[0]["vectors"]
    parts = [np.empty((0, city.embeddings.vectors.shape[1]), np.float32)]
    with progress(total=len(pairs), desc="measuring reasons", unit="vector") as bar:
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            parts.append(city.embedder.embed_without(pairs[start : start + PAIRS_AT_ONCE]))
            bar.update(len(parts[-1]))
    vectors = np.concatenate(parts)
    save_cache(path, key, {"vectors": vectors})
    return vectors


def _reason_error(pairs: np.ndarray, vectors: np.ndarray, exact: np.ndarray, short: np.ndarray) -> float:
    """Mean error of a part's contribution with `short` changes of vectors, over a sample of tiles and their nearest.

    `exact` and `short (M, D)` are in the order of `pairs`, of tile and part.
    """
    order = np.argsort(pairs[:, 0], kind="stable")
    start = np.searchsorted(pairs[order, 0], np.arange(len(vectors) + 1))
    sample = np.random.default_rng(1).permutation(len(vectors))[:ERROR_SAMPLE]
    nearest = similarity.Search(vectors, "angular").query(vectors[sample], min(2, len(vectors)))[0][:, -1]
    errors = [0.0]
    for a, b in zip(sample.tolist(), nearest.tolist(), strict=True):
        parts_a, parts_b = ({int(pairs[i, 1]): i for i in order[start[row] : start[row + 1]]} for row in (a, b))
        for part in parts_a.keys() | parts_b.keys():
            contributions = []
            for change in (exact, short):
                own = change[parts_a[part]] @ vectors[b] if part in parts_a else 0.0
                other = change[parts_b[part]] @ vectors[a] if part in parts_b else 0.0
                contributions.append(float(own + other) / 2)
            errors.append(abs(contributions[0] - contributions[1]))
    return float(np.mean(errors))


# --- command -----------------------------------------------------------------------------------------------


def run(args: Any) -> None:
    """Build the page that the parsed flags describe, and print where it is."""
    tiles, device, page = (read_flags(kind, args) for kind in (TilesFlags, DeviceFlags, PageFlags))
    if args.vectors is not None and page.compare is not None:
        raise UserError(
            "--compare needs a city of tiles; give --tiles_root instead of --vectors, and the vectors after --compare"
        )
    if args.vectors is not None:
        built = build_vector_page(args.vectors, tiles, device.seed, page)
    elif page.bbox is not None:
        raise UserError("--bbox chooses tiles of --vectors; name a dataset or file with --vectors, or leave --bbox out")
    else:
        built = build_page(tiles, args.model_path, device, page)
    size = built.path.stat().st_size / 1e6
    print(f"{built.path}: {built.tiles:,} tiles, {size:.1f} MB in one file; open it in any browser")
    if built.compared:
        print(f"side by side: {built.compared}")
    print(f"vectors in {built.bits} bits a number: {built.recall:.1%} of the exact ten nearest found")
    if built.reason_error is not None:
        print(f"reasons: mean error {built.reason_error:.4f} in cosine similarity")


def add_page_flags(parser: Parser) -> None:
    """Add the flags of this script; `run_interactive_viz.py html` has the same."""
    for config in (TilesFlags, ModelFlags, VectorFlags, PageFlags, DeviceFlags):
        add_flags(parser, config)


def main() -> None:
    """Read the flags and build the page."""
    parser = Parser(__doc__)
    add_page_flags(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    run_main(main)
