"""One HTML file in which a city's map, its embedding and its tiles are linked; it works offline, from any folder.

python interactive_visualizer.py --max_tiles 500
python interactive_visualizer.py --max_tiles 0 --title Astana --output_dir my_visualizations
"""

import base64
import dataclasses
import gzip
import html
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import plotly.offline
from PIL import Image
from sklearn.cluster import KMeans

import projections
import similarity
import tile_images
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    add_flags,
    count_int,
    flag,
    positive_int,
    progress,
    read_flags,
    run_main,
    warn,
)
from data_loader import LAYERS, read_manifest
from embeddings import ZONES, City, load_city, vectors_without
from files import DamagedFile, atomic_write, digest, load_cache, save_cache
from projections import Projection

WEB = Path(__file__).parent / "web"
SCRIPTS = ("tiles", "search", "pictures", "colours", "pane", "map", "embedding", "panels", "explorer", "layout")
PAGE_NAME = "index.html"
PAGE_FORMAT = 1

SPRITE_PX, FEW_PLANE_PX, PLANE_PX = 64, 128, 64  # pictures of tiles; layers in a page of few tiles, and of many
FEW_TILES, FULL_BRIGHTNESS_TILES = 1_000, 2_000  # up to here: large layers; layers in 256 instead of 16 levels
SHEET_COLUMNS = 16
MAP_PX = 2048  # the longer edge of the city map, about
REASON_VARIANCE = 0.998  # share of the vectors' squared length that the shortened vectors of the reasons keep
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


def front_end_script() -> str:
    """The explorer's JavaScript: plain declarations, of which `mount(root, data, options)` is the way in."""
    return "".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)


def front_end_css() -> str:
    """The explorer's styles, all of them inside `.loc2vec`."""
    return (WEB / "explorer.css").read_text(encoding="utf-8")


def packed_plotly() -> str:
    """Plotly's script as base64 of gzip: 2.0 MB in place of 4.8 MB."""
    return base64.b64encode(gzip.compress(plotly.offline.get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")


def json_for_html(data: Any) -> str:
    """JSON that can stand inside a `<script>`: no `<`, no `>`, no `&`, no line separator."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


# --- the data ----------------------------------------------------------------------------------------------


def page_data(city: City, page: PageFlags, cache_dir: Path, seed: int) -> dict[str, Any]:
    """Everything the explorer shows, as plain JSON with typed arrays in base64; see web/tiles.js."""
    rows = _sheet_order(city)
    store, places = city.store, city.embeddings.take(rows)
    store_rows = city.rows[rows]
    vectors = Quantised.of(places.vectors, places.vectors.mean(axis=0))
    cluster = clusters_of(places.vectors, page.clusters, seed)
    reasons = reason_vectors(city, store_rows, places.vectors, places.key, cache_dir) if page.reasons else None
    recall = quantised_recall(places.vectors, vectors.vectors())
    facts = tile_facts(city, rows, store_rows)
    arrays = facts | {
        "cluster": cluster,
        "principal_colours": tile_images.principal_colours(places.vectors),
    }
    return frame(city, page, len(rows)) | {
        "dimensions": places.vectors.shape[1],
        "vectors": vectors.packed(),
        "arrays": {name: packed(array) for name, array in arrays.items()},
        "clusters": named_clusters(cluster, store.layer_mass[store_rows]),
        "projections": packed_projections(places.vectors, places.key, page.dr_algorithms, cache_dir, seed),
        "sprites": sprites(city, store_rows),
        "planes": planes(city, store_rows),
        "damaged": [tile_id(store.zoom, xy) for xy in store.tile_xy[store_rows[~store.whole(store_rows)]]],
        "map": base_map(city),
        "reasons": reasons,
        "measured": {"recall": recall, "reason_error": reasons and reasons["error"]},
        "search_note": search_note(recall, reasons and reasons["error"]),
        "facts": city_facts(city, len(rows), recall),
    }


def frame(city: City, page: PageFlags, count: int) -> dict[str, Any]:
    """Titles, palettes and the recipe of the pictures."""
    manifest = read_manifest(city.store.tiles_root)
    name = manifest.get("extract", city.store.tiles_root.resolve().parent.name).split(".")[0]
    content = int((~city.store.blank).sum())
    return {
        "format": PAGE_FORMAT,
        "title": page.title or name.replace("_", " ").replace("-", " ").title(),
        "subtitle": f"{count:,} of {content:,} map tiles, each a vector of {city.embeddings.vectors.shape[1]} numbers",
        "attribution": manifest.get("attribution", "").split(",")[0],
        "zoom": city.store.zoom,
        "count": count,
        "layers": [{"name": name, "colour": tile_images.LAYER_COLOURS[name]} for name in LAYERS],
        "zones": [
            {"name": name, "colour": colour}
            for name, colour in zip(ZONES, tile_images.zone_palette(len(ZONES)), strict=True)
        ],
        "blank_colour": tile_images.BLANK_COLOUR,
        "ramp": tile_images.SEQUENTIAL_COLOURS,
        "paint": tile_images.paint_recipe(),
    }


def _sheet_order(city: City) -> np.ndarray:
    """Rows of the embeddings with content, by squares of the map: what is seen together is decoded together."""
    rows = np.flatnonzero(~city.embeddings.blank)
    x, y = (city.embeddings.tile_xy[rows] - city.embeddings.tile_xy.min(axis=0)).T
    return rows[np.lexsort((x, y, x // SHEET_COLUMNS, y // SHEET_COLUMNS))]


def tile_facts(city: City, rows: np.ndarray, store_rows: np.ndarray) -> dict[str, np.ndarray]:
    """Small arrays, one entry a tile."""
    places, store = city.embeddings, city.store
    bits = (store.plane_of[store_rows] > 0) @ (1 << np.arange(len(LAYERS)))
    return {
        "tile_xy": places.tile_xy[rows],
        "dominant_layer": places.dominant_layer[rows],
        "representative_layer": tile_images.representative_layers(store)[store_rows],
        "zone": places.zone[rows],
        "density": np.round(places.density[rows] * 255).astype(np.uint8),
        "layer_bits": bits.astype(np.uint16),
        "layer_mass": np.round(np.sqrt(store.layer_mass[store_rows]) * 255).astype(np.uint8),
    }


def tile_id(zoom: int, tile_xy: np.ndarray) -> str:
    """A tile's name in the page and in its address."""
    return f"{zoom}/{tile_xy[0]}/{tile_xy[1]}"


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its type, its shape and its little-endian bytes in base64."""
    array = np.ascontiguousarray(array)
    data = base64.b64encode(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data.decode("ascii")}


def city_facts(city: City, count: int, recall: float) -> list[dict[str, str]]:
    """What the page says about itself before a tile is picked."""
    facts = {
        "Tiles shown": f"{count:,}",
        "Tiles of the city": f"{len(city.store):,}, {city.store.blank.mean():.0%} of them blank",
        "The network saw": f"12 layers of {city.store.tile_size} × {city.store.tile_size} pixels",
        "Trained for": f"{city.checkpoint.epoch:,} epochs",
        "Search in this page": f"{recall:.1%} of the exact ten nearest",
    }
    return [{"name": name, "value": value} for name, value in facts.items()]


def search_note(recall: float, reason_error: float | None) -> str:
    """What is computed in the page, and how exact it is."""
    note = (
        f"Similarity is the cosine of two vectors, rounded to 8 bits a number for this page: {recall:.1%} of the ten "
        "nearest tiles are those of the full vectors. "
    )
    if reason_error is None:
        return note + "Named are the layers that both tiles show; which of them decide was not measured."
    return note + (
        "A figure beside a layer is how much of the similarity goes when that layer is left out of both tiles, as "
        f"measured with the network, to within {reason_error:.3f} on average."
    )


# --- vectors in 8 bits -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Quantised:
    """Vectors in 8 bits a number: `mean (D,)` + `scale (N, 1)` * `steps (N, D) int8`, brought to unit length."""

    steps: np.ndarray
    scale: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, mean: np.ndarray) -> "Quantised":
        """Round what each vector has beyond `mean`, so that vectors that differ little still differ."""
        beyond = vectors - mean
        scale = np.maximum(np.abs(beyond).max(axis=1, keepdims=True), 1e-12) / 127
        return cls(np.round(beyond / scale).astype(np.int8), scale.astype(np.float32), mean.astype(np.float32))

    def vectors(self) -> np.ndarray:
        """The vectors `(N, D) float32` that the page works with."""
        return similarity.unit(self.mean + self.scale * self.steps)

    def packed(self) -> dict[str, Any]:
        """As JSON."""
        return {name: packed(getattr(self, name)) for name in ("steps", "scale", "mean")}


def quantised_recall(vectors: np.ndarray, rounded: np.ndarray) -> float:
    """Share of the true nearest tiles that the rounded vectors find, over a sample of tiles."""
    sample = np.random.default_rng(0).permutation(len(vectors))[:RECALL_SAMPLE]
    k = min(RECALL_K + 1, len(vectors))  # the tile itself is always among them
    if k < 2:
        return 1.0
    found = [similarity.Search(some, "angular").query(some[sample], k)[0] for some in (vectors, rounded)]
    same = [len(set(a) & set(b)) - 1 for a, b in zip(found[0].tolist(), found[1].tolist(), strict=True)]
    return float(np.clip(np.mean(same) / (k - 1), 0, 1))


def reason_vectors(
    city: City, store_rows: np.ndarray, vectors: np.ndarray, key: str, cache_dir: Path
) -> dict[str, Any]:
    """What tells which layers make two tiles alike: every tile's vector without each of its layers.

    They are shortened to the directions that the vectors use and rounded to 8 bits: `whole (N, K)` for the tiles,
    `without (M, K)` for their drawn layers one after another; `error` is the mean error of a layer's contribution.
    """
    pairs = np.argwhere(city.store.plane_of[store_rows] > 0)
    without = _vectors_without(city, np.column_stack([store_rows[pairs[:, 0]], pairs[:, 1]]), key, cache_dir)
    axes = _main_axes(np.concatenate([vectors, without]))
    mean = (vectors @ axes).mean(axis=0)
    whole, less = Quantised.of(vectors @ axes, mean), Quantised.of(without @ axes, mean)
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
            parts.append(vectors_without(city.encoder, city.store, pairs[start : start + 2048], city.device))
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
    count = min(count, len(np.unique(vectors, axis=0)), 100)
    labels = KMeans(count, n_init=3, random_state=seed).fit_predict(vectors)
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    return np.argsort(order)[labels].astype(np.int8)


def named_clusters(cluster: np.ndarray, layer_mass: np.ndarray) -> list[dict[str, str]]:
    """A name for each cluster by the two layers it has most of, compared with all tiles; and its colour."""
    usual = layer_mass.mean(axis=0)
    names = []
    for number in range(cluster.max() + 1):
        lift = layer_mass[cluster == number].mean(axis=0) / np.maximum(usual, 1e-9) * np.sqrt(usual)
        names.append(f"{number + 1} · {' + '.join(LAYERS[layer] for layer in np.argsort(-lift)[:2])}")
    colours = tile_images.category_palette(len(names))
    return [{"name": name, "colour": colour} for name, colour in zip(names, colours, strict=True)]


def packed_projections(
    vectors: np.ndarray, key: str, algorithms: list[str], cache_dir: Path, seed: int
) -> dict[str, dict[str, Any]]:
    """Every algorithm in 2-D and 3-D, in 16 bits a number, by names such as `UMAP-2`."""
    result = {}
    wanted = [(name, dimensions) for name in algorithms for dimensions in (2, 3)]
    for name, dimensions in progress(wanted, desc="projecting", unit="projection"):
        found = projections.project(vectors, name, dimensions, seed=seed, cache_dir=cache_dir, key=key)
        result[f"{name}-{dimensions}"] = packed_projection(found)
    return result


def packed_projection(projection: Projection) -> dict[str, Any]:
    """A projection as the explorer takes it."""
    points = np.asarray(projection.points, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    steps = np.round((points - low) / np.maximum(high - low, 1e-12) * 65535).astype(np.uint16)
    explained = projection.explained
    return {
        "points": packed(steps),
        "range": np.stack([low, high], axis=1).tolist(),
        "trustworthiness": float(projection.trustworthiness),
        "explained": None if explained is None else np.asarray(explained, dtype=float).tolist(),
    }


# --- pictures ----------------------------------------------------------------------------------------------


def sprites(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """Composites of the tiles, in sheets of 16 × 16."""
    size = min(SPRITE_PX, city.store.tile_size)
    chunks = _chunks(store_rows)
    cells = (tile_images.pictures(city.store, chunk, size) for chunk in chunks)
    sheets = [_sheet_uri(part, quality=75) for part in progress(cells, total=len(chunks), desc="picturing tiles")]
    return {"size": size, "columns": SHEET_COLUMNS, "per_sheet": SHEET_COLUMNS**2, "sheets": sheets}


def planes(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """The drawn layers of the tiles, each distinct one once, as grey masks in sheets of 16 × 16."""
    drawn = city.store.plane_of[store_rows]
    drawn = drawn[drawn > 0]  # by tile, then by layer: the order of "parts" in web/tiles.js
    distinct, first, cell = np.unique(drawn, return_index=True, return_inverse=True)
    order = np.argsort(first)  # layers of one tile stay together
    size = min(FEW_PLANE_PX if len(store_rows) <= FEW_TILES else PLANE_PX, city.store.tile_size)
    chunks = _chunks(distinct[order])
    masks = (_masks(city, chunk, size, len(store_rows)) for chunk in chunks)
    return {
        "size": size,
        "columns": SHEET_COLUMNS,
        "per_sheet": SHEET_COLUMNS**2,
        "cell_of_part": packed(np.argsort(order)[cell].astype(np.uint32)),
        "sheets": [_sheet_uri(part) for part in progress(masks, total=len(chunks), desc="picturing layers")],
    }


def _masks(city: City, planes: np.ndarray, size: int, tiles: int) -> np.ndarray:
    masks = tile_images.shrink_planes(city.store.planes[planes], size)
    if tiles > FULL_BRIGHTNESS_TILES:
        masks = (np.round(masks / 17) * 17).astype(np.uint8)
    return masks


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + SHEET_COLUMNS**2] for start in range(0, len(rows), SHEET_COLUMNS**2)]


def _sheet_uri(cells: np.ndarray, quality: int | None = None) -> str:
    """Cells `(n, S, S)` or `(n, S, S, 3)` side by side as WebP; without a quality, nothing is lost."""
    rows, size = -(-len(cells) // SHEET_COLUMNS), cells.shape[1]
    sheet = np.zeros((rows * SHEET_COLUMNS, *cells.shape[1:]), dtype=np.uint8)
    sheet[: len(cells)] = cells
    sheet = sheet.reshape(rows, SHEET_COLUMNS, size, size, -1).transpose(0, 2, 1, 3, 4)
    shape = (rows * size, SHEET_COLUMNS * size, *cells.shape[3:])
    image = Image.fromarray(sheet.reshape(shape))
    if quality:
        return tile_images.data_uri(image, "webp", quality)
    buffer = BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=6, quality=60)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def base_map(city: City) -> dict[str, Any]:
    """The city drawn from all of its tiles, sampled or not."""
    extent = city.store.tile_xy.max(axis=0) - city.store.tile_xy.min(axis=0) + 1
    px = int(np.clip(MAP_PX // extent.max(), 4, min(64, city.store.tile_size)))
    image, origin = tile_images.city_map(city.store, px)
    return {
        "image": tile_images.data_uri(image, "webp", 70),
        "origin": list(origin),
        "width": image.width,
        "height": image.height,
        "px_per_tile": px,
        "tiles": len(city.store),
    }


# --- command -----------------------------------------------------------------------------------------------


def run(args: Any) -> None:
    """Build the page that the parsed flags ask for and say where it is."""
    flags = [read_flags(kind, args) for kind in (TilesFlags, DeviceFlags, PageFlags)]
    built = build_page(flags[0], args.model_path, flags[1], flags[2])
    size = built.path.stat().st_size / 1e6
    print(f"{built.path}: {built.tiles:,} tiles, {size:.1f} MB in one file; open it in any browser")
    print(f"vectors in 8 bits: {built.recall:.1%} of the exact ten nearest found")
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
