"""Static pictures of a city's vectors: projections, maps, clusters and sheets of neighbours, as PNG or SVG.

python visualize.py --model_path checkpoints/best_model.pth
python visualize.py --model_path checkpoints/best_model.pth --max_tiles 5000 --output_dir my_visualizations \
    --save_embeddings
"""

import argparse
import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

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
from colourings import COLOURINGS, Categories, Numbers, ShownTiles, cluster
from embeddings import City, Embeddings, load_city
from files import atomic_path
from layers import LAYERS
from progress_bars import progress
from projections import ALGORITHMS, TITLES, Projection
from similarity import Search, arithmetic, open_search, walk
from tile_facts import ZONES
from tile_grid import farther_than, great_circle_km, latlon_of_tile
from tile_images import (
    BLANK_COLOUR,
    SEQUENTIAL_COLOURS,
    city_map,
    hex_to_rgb,
    pictures,
    principal_colours,
    sequential_colours,
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
COLOURED_BY = ("layer", "zone", "density")  # of `COLOURINGS`, one panel each


@dataclasses.dataclass(frozen=True)
class PictureFlags:
    """Pictures."""

    max_tiles: int = flag(10_000, "tiles with content that are shown, spread evenly over the city", type=positive_int)
    output_dir: Path = flag(Path("visualizations"), "folder for the pictures")
    format: str = flag("png", "file format of the pictures", choices=["png", "svg"])
    clusters: int = flag(8, "number of k-means clusters", type=positive_int)
    save_embeddings: bool = flag(False, "also write the vectors and facts of the tiles as embeddings.npz")


# --- what is shown -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scene:
    """A city, its projections and its clusters: everything that the pictures show."""

    city: City
    views: dict[str, Projection]
    labels: np.ndarray
    credit: str

    @property
    def places(self) -> Embeddings:
        """The tiles that are shown."""
        return self.city.embeddings

    @property
    def shown(self) -> ShownTiles:
        """The tiles that are shown, as `colourings` takes them."""
        return ShownTiles(self.city, np.arange(len(self.places)), self.labels)

    @cached_property
    def centres(self) -> np.ndarray:
        """The most typical tile of each cluster, the largest cluster first."""
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
        """Edge of a tile on the city map, in pixels."""
        span = np.ptp(self.city.store.unwrapped_xy, axis=0).max() + 1
        return int(np.clip(MAP_PX // span, 1, 32))

    @cached_property
    def base(self) -> np.ndarray:
        """The city map, `(H, W, 3) uint8`."""
        return np.asarray(city_map(self.city.pictures, self.px_per_tile)[0])

    @cached_property
    def nearest(self) -> np.ndarray:
        """The nearest shown tile of each cell of the map, `(rows, columns) int64`; -1 on a blank tile."""
        store = self.city.store
        place = store.unwrapped_xy - store.unwrapped_xy.min(axis=0)
        x, y = place.T
        cells = np.full((y.max() + 1, x.max() + 1), -1, dtype=np.int64)
        drawn = ~store.blank
        cells[y[drawn], x[drawn]] = cKDTree(place[self.city.rows]).query(place[drawn])[1]
        return cells

    def painted(self, colours: np.ndarray) -> np.ndarray:
        """The city map `(H, W, 3) uint8` with each tile tinted in its colour `(N, 3)`; streets and water show through.

        If only a sample is shown, the tiles between take the colour of the nearest.
        """
        tint = np.where((self.nearest >= 0)[..., None], colours[self.nearest], 255).astype(np.float32)
        tint = tint.repeat(self.px_per_tile, axis=0).repeat(self.px_per_tile, axis=1)
        light = self.base.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        shade = np.clip((light[..., None] - 90) / 150, 0, 1)
        return np.clip((0.14 * 255 + 0.86 * tint) * (0.5 + 0.5 * shade), 0, 255).astype(np.uint8)

    @cached_property
    def km_per_tile(self) -> float:
        """Width of a tile in the middle of the city."""
        middle = self.city.store.unwrapped_xy[self.city.rows].mean(axis=0)
        return float(great_circle_km(*latlon_of_tile(np.stack([middle, middle + np.array([1, 0])]), self.places.zoom)))

    def tiles(self, rows: np.ndarray, size: int) -> np.ndarray:
        """Colour pictures of shown tiles."""
        return pictures(self.city.pictures, self.city.rows[rows], size)


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
    """Points with one scale on both axes, drawn in random order, so that no category covers the others."""
    order = np.random.default_rng(0).permutation(len(points))
    size = float(np.clip(24_000 / len(points), 1.5, 40))
    x, y = points[order, :2].T
    axes.scatter(x, y, s=size, c=colours[order], linewidths=0, alpha=0.85, rasterized=True)
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    panel = np.array(axes.get_window_extent().size)
    half = max(float(((high - low) / panel).max()), 1e-6) * 0.52 * panel
    axes.set_xlim((low + high)[0] / 2 - half[0], (low + high)[0] / 2 + half[0])
    axes.set_ylim((low + high)[1] / 2 - half[1], (low + high)[1] / 2 + half[1])


def tile_colours(found: Categories | Numbers) -> np.ndarray:
    """The colour of each tile, `(N, 3)` in 0..1."""
    if isinstance(found, Categories):
        table = np.array([hex_to_rgb(colour) for colour in (*found.colours, BLANK_COLOUR)])  # -1 is the last one
        return table[found.values] / 255
    low, high = found.data()["range"]
    return sequential_colours((found.values - low) / (high - low)) / 255


def add_legend(axes: Axes, found: Categories | Numbers) -> None:
    """Names with counts below the panel, the most frequent first, or a colour bar for numbers."""
    if isinstance(found, Numbers):
        low, high = (value * found.scale for value in found.data()["range"])
        ends = [f"{value:.{found.digits}f}{found.unit}" for value in (low, (low + high) / 2, high)]
        bar = axes.inset_axes((0.02, -0.065, 0.62, 0.022))
        colours = LinearSegmentedColormap.from_list("sequential", SEQUENTIAL_COLOURS)
        bar.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=colours, extent=(0, 1, 0, 1))
        bar.set_yticks([])
        bar.set_xticks([0, 0.5, 1], [*ends[:2], f"{ends[2]} and more"], size=8.5, color=INK, family=FONT)
        bar.tick_params(length=0, pad=4)
        for spine in bar.spines.values():
            spine.set_visible(False)
        return
    counts = np.bincount(found.values[found.values >= 0], minlength=len(found.names))
    style: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 6.5, "markeredgewidth": 0}
    marks = [
        Line2D([], [], color=found.colours[i], label=f"{found.names[i]}  {counts[i]:,}", **style)
        for i in np.argsort(-counts, kind="stable").tolist()
        if counts[i]
    ]
    axes.legend(
        handles=marks, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, frameon=False, labelcolor=INK,
        prop={"size": 8.5, "family": FONT}, handletextpad=0.2, columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip


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
    """The city as its tiles show it, coloured by the vectors, and the UMAP of the vectors."""
    tall = float(np.clip(5.5 * scene.base.shape[0] / scene.base.shape[1], 4.0, 8.0))
    figure = new_figure(
        17.7,
        tall + 1.75,
        f"{len(scene.places):,} places, one vector each",
        "Places of similar colour have similar vectors: the first three principal components of a tile's vector are "
        "its red, green and blue.",
        scene.credit,
    )
    show_map(add_panel(figure, (0.35, 0.4, 5.5, tall), "The map tiles that the network sees"), scene.base, scene)
    axes = add_panel(figure, (6.1, 0.4, 5.5, tall), "The same tiles, coloured by their vectors")
    show_map(axes, scene.painted(scene.colours), scene)
    axes = add_panel(figure, (11.95, 0.4, 5.4, tall), "Their vectors in two dimensions (UMAP)")
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
    facts = [(colouring, colouring.values(scene.shown)) for colouring in COLOURINGS if colouring.key in COLOURED_BY]
    for i, (colouring, found) in enumerate(facts):
        assert isinstance(found, Categories | Numbers)
        axes = add_panel(figure, (0.35 + 5.8 * i, 1.45, 5.4, 5.4), colouring.label)
        scatter(axes, view.points, tile_colours(found))
        add_legend(axes, found)
    return figure


def cluster_picture(scene: Scene) -> Figure:
    """The city by kind of place, with typical tiles of each and the two layers that stand out."""
    kinds = cluster(scene.shown)
    count = len(kinds.names)
    ratio = scene.base.shape[0] / scene.base.shape[1]
    tall = max(min(8.6 * ratio, 9.5), 0.86 * count)
    figure = new_figure(
        17.7,
        tall + 1.5,
        f"{count} kinds of places",
        "k-means of the vectors. Each kind is named after the two layers that it shows more of than the city does. "
        "Beside it are its most typical tiles.",
        scene.credit,
    )
    colours = np.round(tile_colours(kinds) * 255).astype(np.uint8)
    show_map(add_panel(figure, (0.35, 0.35, 8.6, tall)), scene.painted(colours), scene)
    step = tall / count
    for label in range(count):
        _cluster_row(figure, scene, label, kinds, 0.35 + tall - (label + 1) * step, step)
    return figure


def _cluster_row(figure: Figure, scene: Scene, label: int, kinds: Categories, bottom: float, step: float) -> None:
    """One kind of place: a swatch, its share, its name, its most typical tiles."""
    members = np.flatnonzero(scene.labels == label)
    edge = min(step - 0.1, 0.95)
    width, height = figure.get_size_inches()
    swatch = add_panel(figure, (9.3, bottom + (step - edge) / 2, 0.14, edge))
    swatch.imshow(np.array(hex_to_rgb(kinds.colours[label]), dtype=np.uint8)[None, None], aspect="auto")
    middle, share = (bottom + step / 2) / height, len(members) / len(scene.labels)
    for text, up, size, ink in (
        (f"{len(members):,} tiles, {share:.0%}", 0.11, 10.5, INK),
        (kinds.names[label], -0.13, 8.5, FAINT),
    ):
        figure.text(9.62 / width, middle + up / height, text, size=size, color=ink, family=FONT, va="center")
    typical = members[_nearest_to_mean(scene.places.vectors[members], 6)]
    tiles = add_panel(figure, (17.35 - 6 * (edge + 0.02), bottom + (step - edge) / 2, 6 * (edge + 0.02), edge))
    tiles.imshow(mosaic(scene.tiles(typical, 96), 6, gap=4), interpolation="lanczos")
    tiles.set_anchor("E")


def _nearest_to_mean(vectors: np.ndarray, count: int) -> np.ndarray:
    """Rows of the vectors nearest to their mean, distinct ones first."""
    away = ((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1)
    order = np.argsort(away, kind="stable")
    _, first = np.unique(away[order], return_index=True)
    return order[np.sort(first)][:count]


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
    """A + B - C for the most typical tiles of the kinds, which a fixed rule chooses."""
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
    """Tiles side by side from `corner` (left, bottom) on; below each its similarity and distance."""
    places, (left, bottom) = scene.places, corner
    width, height = figure.get_size_inches()
    text: dict[str, Any] = {"size": 8, "color": FAINT, "family": FONT, "va": "center"}
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
    """t-SNE as a full sheet of tiles: a sample of them, each in the grid cell near its point."""
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
    note = f"{len(sample):,} tiles in the order of their t-SNE. Tiles that are side by side here are alike in the city."
    figure = new_figure(14.7, tall + 1.5, "The atlas of places", note, scene.credit)
    add_panel(figure, (0.35, 0.35, 14.0, tall)).imshow(picture, interpolation="lanczos")
    return figure


def all_pictures(scene: Scene) -> dict[str, Callable[[Scene], Figure]]:
    """What draws each picture of a scene, by its name, the most informative first."""
    found: dict[str, Callable[[Scene], Figure]] = {"city": main_picture}
    found |= {"clusters": cluster_picture, "neighbours": neighbour_picture}
    if len(scene.centres) > 2:
        found |= {"arithmetic": arithmetic_picture, "walks": walk_picture}
    found["atlas"] = atlas_picture
    for algorithm in ALGORITHMS:
        found[TITLES[algorithm].lower().replace("-", "")] = partial(projection_picture, algorithm=algorithm)
    return found


# --- the command -------------------------------------------------------------------------------------------


def main() -> None:
    """Embed the city, project it, draw every picture and print its path."""
    parser = Parser(__doc__)
    for group in (ModelFlags, PictureFlags, TilesFlags, DeviceFlags):
        add_flags(parser, group)
    args = parser.parse_args()
    flags = read_flags(PictureFlags, args)
    scene = build_scene(args, flags)
    for name, draw in progress(list(all_pictures(scene).items()), desc="pictures", unit="picture"):
        print(save(draw(scene), flags.output_dir / f"{name}.{flags.format}"))
    if flags.save_embeddings:
        print(save_embeddings(scene, flags.output_dir / "embeddings.npz"))


def build_scene(args: argparse.Namespace, flags: PictureFlags) -> Scene:
    """Vectors, projections and clusters, from the caches if they are there."""
    if flags.clusters > MOST_CLUSTERS:
        raise UserError(f"--clusters {flags.clusters} is too many for a picture; at most {MOST_CLUSTERS} fit")
    tiles = read_flags(TilesFlags, args)
    city = load_city(tiles, args.model_path, device=args.device, max_tiles=flags.max_tiles, seed=args.seed)
    city = city.with_content()
    vectors, cache = city.embeddings.vectors, {"seed": args.seed, "cache_dir": tiles.cache_dir}
    cache["key"] = city.embeddings.key
    views = {name: projections.project(vectors, name, 2, **cache) for name in ALGORITHMS}
    labels = projections.clusters(vectors, flags.clusters, **cache)
    credit = city.manifest.get("attribution", "")
    return Scene(city, views, labels, credit)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure; a failure leaves no partial file."""
    with atomic_path(path) as temporary:
        metadata = {"Date": None} if path.suffix == ".svg" else None  # equal pictures are equal files
        figure.savefig(temporary, dpi=130, facecolor=PAPER, metadata=metadata)
    return path


def save_embeddings(scene: Scene, path: Path) -> Path:
    """Write tile coordinates, vectors, facts and points as plain arrays that `numpy.load` reads."""
    places = scene.places
    arrays: dict[str, Any] = {f"{name.lower()}_2d": view.points for name, view in scene.views.items()}
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
