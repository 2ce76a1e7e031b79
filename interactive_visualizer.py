"""One HTML file in which a city's map, its embedding and its tiles are linked; it works offline, from any folder.

python interactive_visualizer.py --max_tiles 500
python interactive_visualizer.py --max_tiles 0 --title Astana --output_dir my_visualizations
"""

import base64
import dataclasses
import gzip
import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import projections
import similarity
from cache_files import DamagedFile, load_cache, save_cache
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    add_flags,
    count_int,
    flag,
    positive_int,
    read_flags,
    run_main,
)
from embeddings import City, load_city
from explorer_data import (
    WEB,
    Quantised,
    explorer_data,
    front_end_css,
    front_end_script,
    packed_projection,
    planes,
    sheet_order,
)
from files import atomic_write, digest
from layers import LAYERS
from progress_bars import progress, warn

PAGE_NAME = "index.html"

REASON_VARIANCE = 0.9995  # share of the vectors' squared length that the shortened vectors of the reasons keep
RECALL_SAMPLE, RECALL_K = 500, 10


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
    title: str | None = flag(None, "title of the page (default: the name of the extract)")


@dataclasses.dataclass(frozen=True)
class Built:
    """A finished page: where it is and what quantising the vectors costs."""

    path: Path
    tiles: int
    recall: float
    reason_error: float | None


# --- the page ----------------------------------------------------------------------------------------------


def build_page(tiles: TilesFlags, model_path: Path, device: DeviceFlags, page: PageFlags) -> Built:
    """Embed, project and picture a city's tiles, and write them with the explorer as one HTML file."""
    city = load_city(tiles, model_path, device=device.device, max_tiles=page.max_tiles or None, seed=device.seed)
    data = page_data(city, page, tiles.cache_dir, device.seed)
    path = page.output_dir / PAGE_NAME
    write_page(path, data)
    return Built(path, data["count"], data["measured"]["recall"], data["measured"]["reason_error"])


def write_page(path: Path, data: dict[str, Any]) -> None:
    """Write the explorer with its data as one file that needs nothing else."""
    template = (WEB / "page.html").read_text(encoding="utf-8")
    script = front_end_script() + (WEB / "page.js").read_text(encoding="utf-8")
    parts = {
        "title": html.escape(data["title"]),
        "css": front_end_css(),
        "data": json_for_html(data),
        "plotly": packed_plotly(),
        "script": script,
    }
    with atomic_write(path, "w") as file:
        for i, piece in enumerate(template.replace("}}", "{{").split("{{")):
            file.write(parts[piece] if i % 2 else piece)


def packed_plotly() -> str:
    """Plotly's script as base64 of gzip: 2.0 MB in place of 4.8 MB."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")


def json_for_html(data: Any) -> str:
    """JSON that can stand inside a `<script>`: no `<`, no `>`, no `&`, no line separator."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


# --- the data ----------------------------------------------------------------------------------------------


def page_data(city: City, page: PageFlags, cache_dir: Path, seed: int) -> dict[str, Any]:
    """Everything the explorer shows, as plain JSON with typed arrays in base64; see web/tiles.js."""
    rows = sheet_order(city)
    places, store_rows = city.embeddings.take(rows), city.rows[rows]
    cluster = clusters_of(places.vectors, page.clusters, seed)
    reasons = reason_vectors(city, store_rows, places.vectors, places.key, cache_dir) if page.reasons else None
    recall = quantised_recall(places.vectors, Quantised.of(places.vectors).vectors())
    return explorer_data(city, rows, cluster, page.title) | {
        "projections": packed_projections(places.vectors, places.key, page.dr_algorithms, cache_dir, seed),
        "planes": planes(city, store_rows),
        "reasons": reasons,
        "measured": {"recall": recall, "reason_error": reasons and reasons["error"]},
        "search_note": search_note(recall, reasons and reasons["error"]),
        "facts": city_facts(city, len(rows), recall),
    }


def city_facts(city: City, count: int, recall: float) -> list[dict[str, str]]:
    """What the page says about itself before a tile is picked."""
    facts = {
        "Tiles shown": f"{count:,}",
        "Tiles of the city": f"{len(city.store):,}, {city.store.blank.mean():.0%} of them blank",
        "The network saw": f"{len(LAYERS)} layers of {city.store.tile_size} × {city.store.tile_size} pixels",
        "Trained for": f"{city.checkpoint.epoch:,} epoch{'s' * (city.checkpoint.epoch != 1)}",
        "Search in this page": f"{recall:.1%} of the exact ten nearest",
    }
    return [{"name": name, "value": value} for name, value in facts.items()]


def search_note(recall: float, reason_error: float | None) -> str:
    """What is computed in the page, and how exact it is."""
    note = (
        f"Similarity is the cosine of two vectors, rounded to 16 bits a number for this page: {recall:.1%} of the ten "
        "nearest tiles are those of the full vectors. "
    )
    if reason_error is None:
        return note + "Named are the layers that both tiles show; which of them decide was not measured."
    return note + (
        "A figure beside a layer is how much of the similarity goes when that layer is left out of both tiles, as "
        f"measured with the network, to within {max(reason_error, 1e-4):.4f} on average."
    )


# --- vectors in fewer bits -------------------------------------------------------------------------------------


def quantised_recall(vectors: np.ndarray, rounded: np.ndarray) -> float:
    """Share of the true nearest tiles that the rounded vectors find, over a sample of tiles.

    Tiles that are drawn alike have one vector: any of them is as good an answer as another.
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
    """What tells which layers make two tiles alike: every tile's vector without each of its layers.

    They are shortened to the directions that the vectors use, and rounded: `whole (N, K)` for the tiles,
    `without (M, K)` for their drawn layers one after another; `error` is the mean error of a layer's contribution.
    """
    pairs = np.argwhere(city.store.plane_of[store_rows] > 0)
    without = _vectors_without(city, np.column_stack([store_rows[pairs[:, 0]], pairs[:, 1]]), key, cache_dir)
    axes = _main_axes(np.concatenate([vectors, without]))
    whole, less = (Quantised.of(some @ axes) for some in (vectors, without))
    error = _reason_error(pairs, (vectors, without), (whole.vectors(), less.vectors()))
    return {"dimensions": axes.shape[1], "whole": whole.packed(), "without": less.packed(), "error": error}


def _vectors_without(city: City, pairs: np.ndarray, key: str, cache_dir: Path) -> np.ndarray:
    """Vectors `(M, D)` of tiles without a layer, for `pairs (M, 2)` of store row and layer; from the cache if there."""
    path = Path(cache_dir) / f"without-{key[:16]}.l2v"
    key = digest(key, pairs, city.store.content_key)
    try:
        cached = load_cache(path, key)
    except DamagedFile as error:
        warn(f"{error}; measuring the layers again")
        cached = None
    if cached:
        return cached[0]["vectors"]
    parts = []
    with progress(total=len(pairs), desc="measuring layers", unit="layer") as bar:
        for start in range(0, len(pairs), 2048):
            parts.append(city.embedder.embed_without_layer(pairs[start : start + 2048]))
            bar.update(len(parts[-1]))
    vectors = np.concatenate([np.empty((0, city.embeddings.vectors.shape[1]), np.float32), *parts])
    save_cache(path, key, {"vectors": vectors})
    return vectors


def _main_axes(vectors: np.ndarray) -> np.ndarray:
    """The fewest orthogonal axes `(D, K)` that keep `REASON_VARIANCE` of the vectors' squared length."""
    strength, axes = np.linalg.eigh(vectors.T @ vectors)
    kept = np.cumsum(strength[::-1]) / max(strength.sum(), 1e-12)
    return np.ascontiguousarray(axes[:, ::-1][:, : int(np.searchsorted(kept, REASON_VARIANCE)) + 1])


def _reason_error(
    pairs: np.ndarray, exact: tuple[np.ndarray, np.ndarray], short: tuple[np.ndarray, np.ndarray]
) -> float:
    """Mean error of a layer's contribution by the `short` vectors, over a sample of tiles and their nearest.

    Both `exact` and `short` are the tiles' vectors and those without a layer, in the order of `pairs`.
    """
    start = np.searchsorted(pairs[:, 0], np.arange(len(exact[0]) + 1))
    sample = np.random.default_rng(1).permutation(len(exact[0]))[:100]
    nearest = similarity.Search(exact[0], "angular").query(exact[0][sample], min(2, len(exact[0])))[0][:, -1]
    errors = [0.0]
    for a, b in zip(sample.tolist(), nearest.tolist(), strict=True):
        parts = [{int(pairs[part, 1]): part for part in range(start[row], start[row + 1])} for row in (a, b)]
        for layer in parts[0].keys() | parts[1].keys():
            ends = [part.get(layer, -1) for part in parts]
            errors.append(abs(_contribution(exact, a, b, *ends) - _contribution(short, a, b, *ends)))
    return float(np.mean(errors))


def _contribution(vectors: tuple[np.ndarray, np.ndarray], a: int, b: int, part_a: int, part_b: int) -> float:
    """What of the similarity of tiles a and b goes with a layer; a part of -1 says that the tile lacks the layer."""
    whole, without = vectors
    end_a = without[part_a] if part_a >= 0 else whole[a]
    end_b = without[part_b] if part_b >= 0 else whole[b]
    return float(whole[a] @ whole[b] - end_a @ end_b)


# --- clusters and projections ------------------------------------------------------------------------------


def clusters_of(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A cluster for each vector `(N,) int8`, the largest first (k-means; on unit vectors that groups by angle)."""
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(vectors, axis=0)), 100)
    labels = KMeans(count, n_init=3, random_state=seed).fit_predict(vectors)
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    return np.argsort(order)[labels].astype(np.int8)


def packed_projections(
    vectors: np.ndarray, key: str, algorithms: list[str], cache_dir: Path, seed: int
) -> dict[str, dict[str, Any]]:
    """Every algorithm in 2-D and 3-D, in 16 bits a number, by names such as `UMAP-2`."""
    result = {}
    for name, dimensions in [(name, dimensions) for name in algorithms for dimensions in (2, 3)]:
        found = projections.project(vectors, name, dimensions, seed=seed, cache_dir=cache_dir, key=key)
        result[f"{name}-{dimensions}"] = packed_projection(found)
    return result


# --- command -----------------------------------------------------------------------------------------------


def run(args: Any) -> None:
    """Build the page that the parsed flags ask for and say where it is."""
    flags = [read_flags(kind, args) for kind in (TilesFlags, DeviceFlags, PageFlags)]
    built = build_page(flags[0], args.model_path, flags[1], flags[2])
    size = built.path.stat().st_size / 1e6
    print(f"{built.path}: {built.tiles:,} tiles, {size:.1f} MB in one file; open it in any browser")
    print(f"vectors in 16 bits a number: {built.recall:.1%} of the exact ten nearest found")
    if built.reason_error is not None:
        print(f"layers' contributions: mean error {built.reason_error:.4f} in cosine similarity")


def add_page_flags(parser: Parser) -> None:
    """The flags of this script; `run_interactive_viz.py html` takes the same."""
    for config in (TilesFlags, ModelFlags, PageFlags, DeviceFlags):
        add_flags(parser, config)


def main() -> None:
    """Read the flags and build the page."""
    parser = Parser(__doc__)
    add_page_flags(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    run_main(main)
