"""Static pictures of a city's vectors: projections, maps, clusters and sheets of neighbours, as PNG or SVG.

python visualize.py --model_path checkpoints/best_model.pth
python visualize.py --model_path checkpoints/best_model.pth --max_tiles 5000 --output_dir my_visualizations \
    --save_embeddings
"""

import argparse
import dataclasses
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

import projections
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    UserError,
    add_flags,
    flag,
    positive_int,
    read_flags,
    run_main,
)
from embeddings import City, Embeddings, load_city
from files import atomic_path
from layers import LAYERS
from progress_bars import progress
from projections import ALGORITHMS, TITLES, Projection
from similarity import Search, arithmetic, open_search, walk
from tile_facts import ZONES, layer_prominence
from tile_files import read_manifest
from tile_grid import farther_than, great_circle_km, latlon_of_tile
from tile_images import (
    LAYER_COLOURS,
    SEQUENTIAL_COLOURS,
    category_palette,
    city_map,
    hex_to_rgb,
    pictures,
    principal_colours,
    sequential_colours,
    zone_palette,
)
from vectors import centres

PAPER, INK, FAINT = "#fdfcf9", "#2f2b28", "#8a837b"
FONT = "DejaVu Sans"
MAP_PX = 1400  # the longer side of a city map
FAR_KM = 2.0
NEIGHBOURS = 6
WALK_TILES = 10
SHEET_EDGE, SHEET_STEP = 1.06, 1.28  # of a tile and a row on the sheet of neighbours, in inches
ATLAS_COLUMNS = 36
MOST_CLUSTERS = 100


@dataclasses.dataclass(frozen=True)
class PictureFlags:
    """Pictures."""

    max_tiles: int = flag(10_000, "tiles with content that are shown, spread evenly over the city", type=positive_int)
    output_dir: Path = flag(Path("visualizations"), "folder for the pictures")
    format: str = flag("png", "file format of the pictures", choices=["png", "svg"])
    clusters: int = flag(8, "kinds of places that k-means tells apart", type=positive_int)
    save_embeddings: bool = flag(False, "also write the vectors and facts of the tiles as embeddings.npz")


# --- what is shown -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scene:
    """A city, its projections and its clusters: everything the pictures are made of."""

    city: City
    views: dict[str, Projection]
    labels: np.ndarray
    credit: str

    @property
    def places(self) -> Embeddings:
        """The tiles that are shown."""
        return self.city.embeddings

    @cached_property
    def centres(self) -> np.ndarray:
        """The most typical tile of each kind, the commonest kind first."""
        return centres(self.places.vectors, self.labels)

    @cached_property
    def search(self) -> Search:
        """Exact search among the tiles that are shown."""
        return open_search(self.places.vectors, exact=True)

    @cached_property
    def colours(self) -> np.ndarray:
        """The first three principal components of each tile as colour, `(N, 3) uint8`."""
        return principal_colours(self.places.vectors)

    @cached_property
    def px_per_tile(self) -> int:
        """Edge of a tile on the city map."""
        span = np.ptp(self.city.store.tile_xy, axis=0).max() + 1
        return int(np.clip(MAP_PX // span, 1, 32))

    @cached_property
    def base(self) -> np.ndarray:
        """The city map, `(H, W, 3) uint8`."""
        return np.asarray(city_map(self.city.pictures, self.px_per_tile)[0])

    @cached_property
    def nearest(self) -> np.ndarray:
        """For each cell of the map the shown tile that is nearest, `(rows, columns) int64`; -1 on blank ground."""
        store = self.city.store
        x, y = (store.tile_xy - store.tile_xy.min(axis=0)).T
        cells = np.full((y.max() + 1, x.max() + 1), -1, dtype=np.int64)
        drawn = ~store.blank
        cells[y[drawn], x[drawn]] = cKDTree(self.places.tile_xy).query(store.tile_xy[drawn])[1]
        return cells

    def painted(self, colours: np.ndarray) -> np.ndarray:
        """The city map `(H, W, 3) uint8` with each tile washed in its colour `(N, 3)`: streets and water show through.

        Where only a sample is shown, the tiles between take the colour of the nearest.
        """
        washed = np.where((self.nearest >= 0)[..., None], colours[self.nearest], 255).astype(np.float32)
        washed = washed.repeat(self.px_per_tile, axis=0).repeat(self.px_per_tile, axis=1)
        light = self.base.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        shade = np.clip((light[..., None] - 90) / 150, 0, 1)
        return np.clip((0.14 * 255 + 0.86 * washed) * (0.5 + 0.5 * shade), 0, 255).astype(np.uint8)

    @cached_property
    def km_per_tile(self) -> float:
        """Width of a tile in the middle of the city."""
        middle = self.places.tile_xy.mean(axis=0)
        return float(great_circle_km(*latlon_of_tile(np.stack([middle, middle + np.array([1, 0])]), self.places.zoom)))

    def tiles(self, rows: np.ndarray, size: int) -> np.ndarray:
        """Colour pictures of shown tiles."""
        return pictures(self.city.pictures, self.city.rows[rows], size)


@dataclasses.dataclass(frozen=True)
class Colouring:
    """One way to colour the tiles: colours `(N, 3)` 0 to 1, and how to read them.

    `legend` holds (label, colour, count), most first; for a quantity it is empty and `top` is where the scale ends.
    """

    title: str
    colours: np.ndarray
    legend: list[tuple[str, str, int]]
    top: float = 1.0


def colourings(places: Embeddings) -> list[Colouring]:
    """Dominant layer, geographic zone, content density."""
    layers = _by_category("Dominant layer", places.dominant_layer, LAYERS, list(LAYER_COLOURS.values()))
    zones = _by_category("Geographic zone", places.zone, ZONES, zone_palette(len(ZONES)))
    top = max(0.05, float(np.percentile(places.density, 99)))
    density = Colouring("Content density", sequential_colours(places.density / top) / 255, [], top)
    return [layers, zones, density]


def _by_category(title: str, category: np.ndarray, names: tuple[str, ...], palette: list[str]) -> Colouring:
    table = np.array([hex_to_rgb(colour) for colour in palette]) / 255
    counts = np.bincount(category[category >= 0], minlength=len(names))
    shown = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    return Colouring(title, table[category], [(names[i], palette[i], int(counts[i])) for i in shown])


# --- pieces of pictures ------------------------------------------------------------------------------------


def new_figure(width: float, height: float, title: str, note: str, credit: str) -> Figure:
    """An empty figure in inches with a title, one line that says how to read it, and the data's credit."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    left = 0.35 / width
    figure.text(left, 1 - 0.42 / height, title, size=17, weight="bold", color=INK, family=FONT, va="center")
    figure.text(left, 1 - 0.76 / height, note, size=10, color=FAINT, family=FONT, va="center")
    figure.text(1 - left, 0.16 / height, credit, size=7, color=FAINT, family=FONT, ha="right", va="center")
    return figure


def add_panel(figure: Figure, box: tuple[float, float, float, float], title: str = "") -> Axes:
    """Axes without any frame at `box` (left, bottom, width, height in inches) under a small title."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.set_axis_off()
    axes.set_title(title, size=11, color=INK, family=FONT, loc="left", pad=6)
    return axes


def scatter(axes: Axes, points: np.ndarray, colours: np.ndarray) -> None:
    """Points in a square of their own; drawn in random order, so that no category covers the others."""
    order = np.random.default_rng(0).permutation(len(points))
    size = float(np.clip(24_000 / len(points), 1.5, 40))
    axes.scatter(*points[order, :2].T, s=size, c=colours[order], linewidths=0, alpha=0.85, rasterized=True)
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    panel = np.array(axes.get_window_extent().size)
    half = max(float(((high - low) / panel).max()), 1e-6) * 0.52 * panel  # one scale on both axes
    axes.set_xlim((low + high)[0] / 2 - half[0], (low + high)[0] / 2 + half[0])
    axes.set_ylim((low + high)[1] / 2 - half[1], (low + high)[1] / 2 + half[1])


def add_legend(axes: Axes, colouring: Colouring) -> None:
    """Names with counts below the panel, or a colour bar for a quantity."""
    if not colouring.legend:
        return add_colour_bar(axes, colouring.top)
    look = {"marker": "o", "linestyle": "", "markersize": 6.5, "markeredgewidth": 0}
    marks = [Line2D([], [], color=colour, label=f"{name}  {n:,}", **look) for name, colour, n in colouring.legend]
    axes.legend(
        handles=marks, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, frameon=False, labelcolor=INK,
        prop={"size": 8.5, "family": FONT}, handletextpad=0.2, columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    return None


def add_colour_bar(axes: Axes, top: float) -> None:
    """A slim bar from 0 to `top` below the panel."""
    bar = axes.inset_axes((0.02, -0.065, 0.62, 0.022))
    bar.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=_sequential_map(), extent=(0, 1, 0, 1))
    bar.set_yticks([])
    bar.set_xticks([0, 0.5, 1], ["0", f"{top / 2:.2f}", f"{top:.2f} and more"], size=8.5, color=INK, family=FONT)
    bar.tick_params(length=0, pad=4)
    for spine in bar.spines.values():
        spine.set_visible(False)


def _sequential_map() -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("density", SEQUENTIAL_COLOURS)


def show_map(axes: Axes, picture: np.ndarray, scene: Scene) -> None:
    """A city map with a scale bar of a round length, about a fifth of its width."""
    axes.imshow(picture, interpolation="lanczos" if picture.shape[1] > 800 else "nearest")
    km_per_px = scene.km_per_tile / scene.px_per_tile
    wanted = picture.shape[1] * km_per_px / 5
    length = max((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if step <= wanted), default=0.1)
    height, width = picture.shape[:2]
    x, y = 0.03 * width, 0.965 * height
    axes.plot([x, x + length / km_per_px], [y, y], color="white", linewidth=6, solid_capstyle="round")
    axes.plot([x, x + length / km_per_px], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt")
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
    axes.text(x, y - 0.018 * height, f"{length:g} km", size=8, color=INK, family=FONT, va="bottom", bbox=box)


def mosaic(tiles: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """Tiles `(n, S, S, 3)` in rows of `columns` with gaps in the paper's colour."""
    size, rows = tiles.shape[1] + gap, -(-len(tiles) // columns)
    sheet = np.empty((rows * size - gap, columns * size - gap, 3), dtype=np.uint8)
    sheet[:] = hex_to_rgb(PAPER)
    for i, tile in enumerate(tiles):
        top, left = i // columns * size, i % columns * size
        sheet[top : top + len(tile), left : left + len(tile)] = tile
    return sheet


# --- the pictures ------------------------------------------------------------------------------------------


def main_picture(scene: Scene) -> Figure:
    """The city made of its own tiles, the same city in the colours of its vectors, and their UMAP."""
    tall = float(np.clip(5.5 * scene.base.shape[0] / scene.base.shape[1], 4.0, 8.0))
    figure = new_figure(
        17.7,
        tall + 1.75,
        f"{len(scene.places):,} places, one vector each",
        "Equal colours are places that work alike: the first three principal components of a tile's vector are its "
        "red, green and blue.",
        scene.credit,
    )
    show_map(add_panel(figure, (0.35, 0.4, 5.5, tall), "What the network sees: the map's tiles"), scene.base, scene)
    show_map(add_panel(figure, (6.1, 0.4, 5.5, tall), "What it makes of them"), scene.painted(scene.colours), scene)
    axes = add_panel(figure, (11.95, 0.4, 5.4, tall), "The space it puts them in (UMAP)")
    scatter(axes, scene.views["UMAP"].points, scene.colours / 255)
    return figure


def projection_picture(scene: Scene, algorithm: str) -> Figure:
    """One projection, coloured by each fact."""
    view = scene.views[algorithm]
    how = f"trustworthiness {view.trustworthiness:.3f} (1 = no false neighbours)"
    if view.explained is not None:
        how = f"the two axes hold {view.explained[:2].sum():.0%} of the variance; {how}"
    title = f"{TITLES[algorithm]} of {len(scene.places):,} tiles"
    figure = new_figure(17.7, 8.2, title, f"Each point is a tile; {how}.", scene.credit)
    for i, colouring in enumerate(colourings(scene.places)):
        axes = add_panel(figure, (0.35 + 5.8 * i, 1.45, 5.4, 5.4), colouring.title)
        scatter(axes, view.points, colouring.colours)
        add_legend(axes, colouring)
    return figure


def cluster_picture(scene: Scene) -> Figure:
    """The city by kind of place, with typical tiles of each and the layers that it has more of than others."""
    count = int(scene.labels.max()) + 1
    palette = category_palette(count)
    ratio = scene.base.shape[0] / scene.base.shape[1]
    tall = max(min(8.6 * ratio, 9.5), 0.86 * count)
    figure = new_figure(
        17.7,
        tall + 1.5,
        f"{count} kinds of places",
        "k-means of the vectors; beside each kind its most typical tiles and what it shows more of than the city does.",
        scene.credit,
    )
    colours = np.array([hex_to_rgb(colour) for colour in palette], dtype=np.uint8)
    show_map(add_panel(figure, (0.35, 0.35, 8.6, tall)), scene.painted(colours[scene.labels]), scene)
    step = tall / count
    for label in range(count):
        _cluster_row(figure, scene, label, palette[label], 0.35 + tall - (label + 1) * step, step)
    return figure


def _cluster_row(figure: Figure, scene: Scene, label: int, colour: str, bottom: float, step: float) -> None:
    """One kind of place: a swatch, its share, what it shows more of, its most typical tiles."""
    members = np.flatnonzero(scene.labels == label)
    edge = min(step - 0.1, 0.95)
    width, height = figure.get_size_inches()
    swatch = add_panel(figure, (9.3, bottom + (step - edge) / 2, 0.14, edge))
    swatch.imshow(np.array(hex_to_rgb(colour), dtype=np.uint8)[None, None], aspect="auto")
    middle, share = (bottom + step / 2) / height, len(members) / len(scene.labels)
    for text, up, size, ink in (
        (f"{len(members):,} tiles, {share:.0%}", 0.11, 10.5, INK),
        (_stands_out(scene, members), -0.13, 8.5, FAINT),
    ):
        figure.text(9.62 / width, middle + up / height, text, size=size, color=ink, family=FONT, va="center")
    typical = members[_nearest_to_mean(scene.places.vectors[members], 6)]
    tiles = add_panel(figure, (17.35 - 6 * (edge + 0.02), bottom + (step - edge) / 2, 6 * (edge + 0.02), edge))
    tiles.imshow(mosaic(scene.tiles(typical, 96), 6, gap=4), interpolation="lanczos")
    tiles.set_anchor("E")


def _stands_out(scene: Scene, members: np.ndarray) -> str:
    """In a few words: the layers of which these tiles show most, compared with all tiles."""
    prominence = layer_prominence(scene.city.store)[scene.city.rows]
    more = prominence[members].mean(axis=0) - prominence.mean(axis=0)
    standing = [LAYERS[i] for i in np.argsort(-more)[:2] if more[i] > 0.1]
    if prominence[members].sum(axis=1).mean() < prominence.sum(axis=1).mean() / 3:
        return "little drawn"
    return f"more {', '.join(standing)}" if standing else "a common mix"


def _nearest_to_mean(vectors: np.ndarray, count: int) -> np.ndarray:
    """Rows of the vectors nearest to their mean, distinct ones first."""
    away = ((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1)
    order = np.argsort(away, kind="stable")
    _, first = np.unique(away[order], return_index=True)
    chosen = order[np.sort(first)][:count]
    return chosen


@dataclasses.dataclass(frozen=True)
class Strip:
    """A row of a sheet: groups of shown tiles, and the vector that the figures below each tile compare it with."""

    groups: list[np.ndarray]
    vector: np.ndarray
    start: int


def sheet(scene: Scene, title: str, note: str, columns: dict[str, int], strips: list[Strip]) -> Figure:
    """Strips of tiles one below the other; `columns` gives each group's title and how many tiles it holds."""
    edge, gap, tall = SHEET_EDGE + 0.1, 0.4, SHEET_STEP * len(strips)
    lefts = 0.35 + np.cumsum([0] + [count * edge + gap for count in columns.values()])
    figure = new_figure(lefts[-1] - gap + 0.25, tall + 1.75, title, note, scene.credit)
    width, height = figure.get_size_inches()
    for left, name in zip(lefts, columns, strict=False):
        figure.text(left / width, (tall + 0.55) / height, name, size=11, color=INK, family=FONT, va="center")
    for i, strip in enumerate(strips):
        bottom = 0.3 + tall - (i + 1) * SHEET_STEP
        for left, rows in zip(lefts, strip.groups, strict=False):
            _tile_row(figure, scene, strip, rows, (float(left), bottom))
    return figure


def neighbour_picture(scene: Scene) -> Figure:
    """For the most typical tile of each kind: its nearest tiles anywhere, and those farther than 2 km."""
    places, search = scene.places, scene.search
    strips = []
    for query in scene.centres:
        far = farther_than(places.tile_xy, places.zoom, places.latlon[query], FAR_KM)
        others = np.arange(len(places)) != query
        found = [search.query(places.vectors[query], NEIGHBOURS, allowed=allowed)[0][0] for allowed in (others, far)]
        groups = [np.array([query]), *[rows[rows >= 0] for rows in found]]
        strips.append(Strip(groups, places.vectors[query], query))
    return sheet(
        scene,
        "Places most alike",
        "Queries are the tiles nearest to the centres of the k-means clusters. Below each tile: its cosine similarity "
        "to the query, and how far away it lies.",
        {"Query": 1, "Nearest anywhere": NEIGHBOURS, f"Nearest at least {FAR_KM:g} km away": NEIGHBOURS},
        strips,
    )


def arithmetic_picture(scene: Scene) -> Figure:
    """A + B - C for the most typical tiles of the kinds, by a rule and not by choice."""
    places, centres = scene.places, scene.centres
    strips = []
    for a, b in zip(centres[1:], np.roll(centres[1:], -1), strict=True):
        chosen = np.array([a, b, centres[0]])
        vector = arithmetic(*places.vectors[chosen])
        found = scene.search.query(vector, NEIGHBOURS, allowed=~np.isin(np.arange(len(places)), chosen))[0][0]
        strips.append(Strip([*chosen[:, None], found[found >= 0]], vector, a))
    return sheet(
        scene,
        "A + B − C",
        "A and B are the most typical tiles of one kind and the next, C that of the commonest kind. Below each tile: "
        "its cosine similarity to A + B − C, and how far from A it lies.",
        {"A": 1, "B": 1, "C": 1, "Nearest to A + B − C": NEIGHBOURS},
        strips,
    )


def walk_picture(scene: Scene) -> Figure:
    """From the most typical tile of each kind to that of the kind least like it, over tiles that lie between."""
    places, centres = scene.places, scene.centres
    alike = places.vectors[centres] @ places.vectors[centres].T
    strips = []
    for start, end in zip(centres, centres[alike.argmin(axis=1)], strict=True):
        rows = walk(scene.search, start, end, steps=WALK_TILES - 2)
        strips.append(Strip([rows], places.vectors[start], start))
    return sheet(
        scene,
        "Walks through the space",
        "From the most typical tile of each kind to that of the kind least like it. Below each tile: its cosine "
        "similarity to the first, and how far from it it lies.",
        {"From … to": WALK_TILES},
        strips,
    )


def _tile_row(figure: Figure, scene: Scene, strip: Strip, rows: np.ndarray, corner: tuple[float, float]) -> None:
    """Tiles side by side from `corner` (left, bottom) on; below each its likeness, and how far it is from the start."""
    places, (left, bottom) = scene.places, corner
    width, height = figure.get_size_inches()
    text = {"size": 8, "color": FAINT, "family": FONT, "va": "center"}
    if not len(rows):
        figure.text(left / width, (bottom + SHEET_EDGE / 2) / height, "no such tile", **text)
    for i, (row, tile) in enumerate(zip(rows, scene.tiles(rows, 128), strict=True)):
        at = left + i * (SHEET_EDGE + 0.1)
        add_panel(figure, (at, bottom + 0.17, SHEET_EDGE, SHEET_EDGE)).imshow(tile, interpolation="lanczos")
        km = float(great_circle_km(places.latlon[row], places.latlon[strip.start]))
        label = f"{places.vectors[row] @ strip.vector:.3f} · {km:.1f} km"
        if row == strip.start:
            label = "{}/{}".format(*places.tile_xy[row])
        figure.text(at / width, (bottom + 0.08) / height, label, **text)


def atlas_picture(scene: Scene) -> Figure:
    """t-SNE as a full sheet of tiles: a sample of them, each in a cell of a grid near to its point."""
    points = scene.views["TSNE"].points[:, :2].astype(np.float64)
    columns = int(min(ATLAS_COLUMNS, max(1, np.sqrt(len(points) * 1.5))))
    lines = max(1, min(round(columns / 1.5), len(points) // columns))
    sample = np.random.default_rng(0).permutation(len(points))[: columns * lines]
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(lines)), axis=-1).reshape(-1, 2)
    even = np.argsort(np.argsort(points[sample], axis=0), axis=0) / len(sample)  # ranks fill the sheet evenly
    cost = cdist(even * (columns, lines), cells + 0.5, "sqeuclidean")
    order = np.empty(len(sample), dtype=np.int64)
    order[linear_sum_assignment(cost)[1]] = sample
    picture = mosaic(scene.tiles(order, 48), columns)
    tall = 14.0 * picture.shape[0] / picture.shape[1]
    note = f"{len(sample):,} tiles in the order of their t-SNE: what lies side by side here works alike in the city."
    figure = new_figure(14.7, tall + 1.5, "The atlas of places", note, scene.credit)
    add_panel(figure, (0.35, 0.35, 14.0, tall)).imshow(picture, interpolation="lanczos")
    return figure


def all_pictures(scene: Scene) -> Iterator[tuple[str, Figure]]:
    """Name and figure of every picture, the one that says most first."""
    yield "city", main_picture(scene)
    yield "clusters", cluster_picture(scene)
    yield "neighbours", neighbour_picture(scene)
    if len(scene.centres) > 2:
        yield "arithmetic", arithmetic_picture(scene)
        yield "walks", walk_picture(scene)
    yield "atlas", atlas_picture(scene)
    for algorithm in ALGORITHMS:
        yield TITLES[algorithm].lower().replace("-", ""), projection_picture(scene, algorithm)


# --- the command -------------------------------------------------------------------------------------------


def main() -> None:
    """Embed the city, project it, draw every picture and print its path."""
    args = parse_args()
    what = read_flags(PictureFlags, args)
    scene = build_scene(args, what)
    names = 6 + len(ALGORITHMS)
    for name, figure in progress(all_pictures(scene), total=names, desc="pictures", unit="picture"):
        print(save(figure, what.output_dir / f"{name}.{what.format}"))
    if what.save_embeddings:
        print(save_embeddings(scene, what.output_dir / "embeddings.npz"))


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__)
    for group in (ModelFlags, PictureFlags, TilesFlags, DeviceFlags):
        add_flags(parser, group)
    return parser.parse_args()


def build_scene(args: argparse.Namespace, what: PictureFlags) -> Scene:
    """Vectors, projections and clusters, from the caches where they are there."""
    if what.clusters > MOST_CLUSTERS:
        raise UserError(f"--clusters {what.clusters} do not fit into a picture; at most {MOST_CLUSTERS} do")
    tiles = read_flags(TilesFlags, args)
    city = load_city(tiles, args.model_path, device=args.device, max_tiles=what.max_tiles, seed=args.seed)
    vectors, cache = city.embeddings.vectors, {"seed": args.seed, "cache_dir": tiles.cache_dir}
    cache["key"] = city.embeddings.key
    views = {name: projections.project(vectors, name, 2, **cache) for name in ALGORITHMS}
    labels = projections.clusters(vectors, what.clusters, **cache)
    credit = read_manifest(tiles.tiles_root).get("attribution", "")
    return Scene(city, views, labels, credit)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all."""
    with atomic_path(path) as temporary:
        metadata = {"Date": None} if path.suffix == ".svg" else None  # equal pictures are equal files
        figure.savefig(temporary, dpi=130, facecolor=PAPER, metadata=metadata)
    return path


def save_embeddings(scene: Scene, path: Path) -> Path:
    """Write tile coordinates, vectors, facts and points as plain arrays that `numpy.load` reads."""
    places = scene.places
    arrays = {f"{name.lower()}_2d": view.points for name, view in scene.views.items()}
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            zoom=places.zoom,
            tile_xy=places.tile_xy,
            latlon=places.latlon,
            vectors=places.vectors,
            dominant_layer=places.dominant_layer,
            zone=places.zone,
            density=places.density,
            cluster=scene.labels,
            layers=np.array(LAYERS),
            zones=np.array(ZONES),
            **arrays,
        )
    return path


if __name__ == "__main__":
    run_main(main)
