"""A second city, or a second encoder, beside the first one: what the page that compares two of them shows.

Not a command. `python interactive_visualizer.py --compare OTHER` uses it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

import projections
from cli import DeviceFlags, ModelFlags, TilesFlags, UserError
from colourings import Colouring, Numbers, ShownTiles
from embeddings import City, load_city
from explorer_data import NEIGHBOURS, city_title, packed, packed_projection, sheet_order
from files import digest
from layers import LAYERS
from pretrained import CONFIG, PRETRAINED, WEIGHTS, load_model
from similarity import Search
from vector_city import VectorCity, open_vectors, vector_city
from vector_dataset import is_dataset

Kind = Literal["cities", "encoders"]


# --- opening -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two cities as one encoder sees them ("cities"), or one city as two encoders see it ("encoders").

    Two encoders have the same tiles in the same order. `names` tell the two sides apart, `encoder` is the name of the
    first side's encoder.
    """

    kind: Kind
    cities: tuple[City, City]
    names: tuple[str, str]
    encoder: str

    @property
    def title(self) -> str:
        """The heading of the page."""
        first, second = self.names
        return f"{first} and {second}" if self.kind == "cities" else f"{city_title(self.cities[0])}: two encoders"

    @property
    def subtitle(self) -> str:
        """What the two have in common."""
        if self.kind == "cities":
            size = self.cities[0].embeddings.vectors.shape[1]
            return f"{self.encoder}, vectors of {size} numbers, one projection of both"
        return f"the same {len(self.cities[0].embeddings):,} tiles, as each encoder sees them"

    @property
    def details(self) -> list[str]:
        """What each side shows, in a few words."""
        if self.kind == "cities":
            counts = [f"{int((~city.embeddings.blank).sum()):,} tiles" for city in self.cities]
            return [counts[0], counts[1] + ", without pictures" * isinstance(self.cities[1], VectorCity)]
        return [
            f"{city.embeddings.vectors.shape[1]} numbers, {city.store.tile_size} px, "
            + (f"epoch {city.checkpoint.epoch:,}" if city.checkpoint.epoch else "untrained")
            for city in self.cities
        ]


def open_pair(other: Path, city: City, tiles: TilesFlags, model_path: Path, device: DeviceFlags, most: int) -> Pair:
    """Open `other` beside a city.

    It is a folder of tiles, or a file or dataset of vectors, for the city's encoder, or another encoder for the city's
    tiles. At most `most` tiles are taken, 0 for all, as `load_city` takes them. Raises `UserError` for anything else,
    for another zoom, for tiles or an encoder compared with itself, and for vectors of another encoder.
    """
    options: dict[str, Any] = {"device": device.device, "max_tiles": most or None, "seed": device.seed}
    encoder = encoder_name(model_path)
    if not other.exists():
        raise UserError(
            f"--compare {other}: nothing there; expected another city's folder of tiles, which `python render_tiles.py "
            f"CITY.osm.pbf --tiles_root {other}` draws, vectors that embed.py wrote (.parquet), or a checkpoint (.pth)"
        )
    if other.suffix.lower() == ".parquet" or is_dataset(other):
        second: City = city_of_vectors(other, city, most or None)
        name = other.stem.replace("_", " ").replace("-", " ").title()
        names = told_apart(tiles.tiles_root, other, (city_title(city), name))
        return Pair("cities", (city, second), names, encoder)
    if other.is_file() or all((other / name).is_file() for name in (CONFIG, WEIGHTS)):
        check_encoder(other, city, tiles)
        pair = common_tiles((city, load_city(tiles, other, **options)))
        return Pair("encoders", pair, told_apart(model_path, other, (encoder, encoder_name(other))), encoder)
    check_tiles(other, tiles)
    second = load_city(dataclasses.replace(tiles, tiles_root=other), model_path, **options)
    names = told_apart(tiles.tiles_root, other, (city_title(city), city_title(second)))
    return Pair("cities", (city, second), names, encoder)


def city_of_vectors(path: Path, city: City, most: int | None) -> VectorCity:
    """The city of a dataset or of a file that embed.py wrote, of which only the vectors are known.

    Raises `UserError` for vectors of another encoder or zoom than those of `city`.
    """
    tiles, own = open_vectors(path, city.cache_dir), city.embeddings
    again = f"`python embed.py CITY.osm.pbf -o {path}` with the same --model_path writes them"
    if tiles.zoom != own.zoom:
        raise UserError(f"--compare {path}: zoom {tiles.zoom}, the city's tiles have zoom {own.zoom}; {again}")
    if tiles.about["dimensions"] != own.vectors.shape[1]:
        raise UserError(
            f"--compare {path}: vectors of {tiles.about['dimensions']} numbers, those of the city have "
            f"{own.vectors.shape[1]}; {again}"
        )
    if tiles.about["encoder"] != own.model_key:
        raise UserError(f"--compare {path}: these vectors are of another encoder than the city's; {again}")
    return vector_city(tiles, tiles.read(tiles.overview_rows(most or len(tiles))))


def encoder_name(path: Path) -> str:
    """What an encoder is called on the page."""
    bundled = path.resolve() == PRETRAINED.resolve() or (path == ModelFlags.model_path and not path.exists())
    return "bundled encoder" if bundled else path.stem


def told_apart(first: Path, second: Path, names: tuple[str, str]) -> tuple[str, str]:
    """Two names that differ: equal ones get the part of their paths that differs."""
    if names[0] != names[1]:
        return names
    parts = [path.resolve().parts for path in (first, second)]
    differ = next((pair for pair in zip(*(reversed(part) for part in parts), strict=False) if pair[0] != pair[1]), None)
    first_part, second_part = differ or ("1", "2")
    return f"{names[0]} ({first_part})", f"{names[1]} ({second_part})"


def check_encoder(path: Path, city: City, tiles: TilesFlags) -> None:
    """Raise `UserError` for an encoder of another zoom, for the city's own one, and for a file that is no encoder."""
    if path.suffix.lower() in (".csv", ".geojson", ".npy", ".pbf", ".gpkg"):
        raise UserError(
            f"--compare {path}: a {path.suffix} file is neither a folder of tiles nor an encoder; compare with the "
            "tiles that `python render_tiles.py CITY.osm.pbf --tiles_root FOLDER` draws"
        )
    checkpoint = load_model(path)
    if checkpoint.zoom != tiles.zoom:
        raise UserError(
            f"--compare {path}: this encoder was trained on tiles of zoom {checkpoint.zoom}, the tiles have zoom "
            f"{tiles.zoom}; compare with an encoder of zoom {tiles.zoom}"
        )
    if checkpoint.key() == city.checkpoint.key():
        raise UserError(f"--compare {path}: this is the encoder of --model_path; name another one")


def check_tiles(folder: Path, tiles: TilesFlags) -> None:
    """Raise `UserError` for the tiles of the city itself, and for tiles of another zoom."""
    if folder.resolve() == tiles.tiles_root.resolve():
        raise UserError(f"--compare {folder}: these are the tiles of --tiles_root; name those of another city")
    layers = [path for path in folder.iterdir() if path.is_dir() and path.name in LAYERS]
    zooms = sorted({path.name for layer in layers for path in layer.iterdir() if path.name.isdigit()}, key=int)
    if zooms and str(tiles.zoom) not in zooms:
        raise UserError(
            f"--compare {folder}: tiles of zoom {', '.join(zooms)}, those of {tiles.tiles_root} have zoom "
            f"{tiles.zoom}; `python render_tiles.py CITY.osm.pbf --zoom {tiles.zoom} --tiles_root {folder}` draws them"
        )


def common_tiles(cities: tuple[City, City]) -> tuple[City, City]:
    """The two reduced to the tiles with content that both have, in one order. Raises `UserError` if there are none."""
    first, second = (city.embeddings.with_content() for city in cities)
    common = first.tile_xy[second.rows(first.tile_xy) >= 0]
    if not len(common):
        raise UserError("the two encoders share no tile of this city; show all of its tiles (--max_tiles 0)")
    taken = (first.take(first.rows(common)), second.take(second.rows(common)))
    left, right = (
        dataclasses.replace(city, embeddings=some, rows=city.store.grid.rows(some.tile_xy))
        for city, some in zip(cities, taken, strict=True)
    )
    return left, right


# --- arranging ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Arranged:
    """Where the shown tiles of a city are: their `cluster (N,)`, and their `points` in each projection as JSON.

    `more` colourings follow the usual ones; tiles shown `beside` these share their colours.
    """

    cluster: np.ndarray
    points: dict[str, Any]
    more: tuple[Colouring, ...] = ()
    beside: ShownTiles | None = None


def arrange(cities: Sequence[City], algorithms: Sequence[str], clusters: int, **cache: Any) -> list[Arranged]:
    """Clusters and projections of the vectors of one or more cities together, for the shown tiles of each.

    `cache` holds `seed` and `cache_dir`. Positions and clusters mean the same in all of the cities. The vectors of one
    city are projected in their own order, as `precompute_embeddings.py`, the app and the static pictures do it, so that
    all of them share the cache.
    """
    places = [city.embeddings.with_content() for city in cities]
    key = places[0].key if len(places) == 1 else digest("together", *(some.key for some in places))
    vectors, cache = np.concatenate([some.vectors for some in places]), cache | {"key": key}
    cluster = projections.clusters(vectors, clusters, **cache)
    found = {
        f"{name}-{dimensions}": projections.project(vectors, name, dimensions, **cache)
        for name in algorithms
        for dimensions in (2, 3)
    }
    first = np.cumsum([0, *map(len, places)])
    parts = [
        start + some.rows(city.embeddings.tile_xy[sheet_order(city)])
        for start, some, city in zip(first, places, cities, strict=False)
    ]
    return [
        Arranged(cluster[part], {name: packed_projection(projection, part) for name, projection in found.items()})
        for part in parts
    ]


def arrange_pair(
    pair: Pair, algorithms: Sequence[str], clusters: int, **cache: Any
) -> tuple[list[Arranged], dict[str, Any]]:
    """The arrangement of both sides, and what the page says of the two together, as JSON.

    Two cities are projected and clustered together, two encoders each on its own. `closest (N,)` of two cities is the
    most similar tile of the other city for each tile; `agreement` of two encoders is the mean share of their nearest
    neighbours that both find.
    """
    rows = [sheet_order(city) for city in pair.cities]
    places = [city.embeddings.take(some) for city, some in zip(pair.cities, rows, strict=True)]
    if pair.kind == "encoders":
        sides = [arrange([city], algorithms, clusters, **cache)[0] for city in pair.cities]
        shared = shared_neighbours(places[0].vectors, places[1].vectors, NEIGHBOURS)
        more = (_agreement_colouring(shared),)
        return [dataclasses.replace(side, more=more) for side in sides], {"agreement": float(shared.mean())}
    sides = arrange(pair.cities, algorithms, clusters, **cache)
    shown = [ShownTiles(*parts) for parts in zip(pair.cities, rows, [side.cluster for side in sides], strict=True)]
    found = [closest(places[0].vectors, places[1].vectors), closest(places[1].vectors, places[0].vectors)]
    sides = [
        dataclasses.replace(side, more=(_match_colouring(cosine),), beside=other)
        for side, other, (_, cosine) in zip(sides, reversed(shown), found, strict=True)
    ]
    return sides, {"closest": [packed(nearest.astype(np.int32)) for nearest, _ in found]}


def closest(vectors: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar of `others (M, D)` for each of `vectors (N, D)`: its row and the cosine, both `(N,)`."""
    rows = Search(others, "angular").query(vectors, 1)[0][:, 0]
    return rows, (vectors * others[rows]).sum(axis=1)


def shared_neighbours(first: np.ndarray, second: np.ndarray, k: int, rows: np.ndarray | None = None) -> np.ndarray:
    """Share of each tile's `k` nearest that are the same by two sets of vectors, `(N, D)` and `(N, E)`.

    Of all tiles, `(N,)`, or of those in `rows (n,)`, `(n,)`.
    """
    rows = np.arange(len(first)) if rows is None else rows
    k = min(k, len(first) - 1)
    if k < 1:
        return np.ones(len(rows))
    near = [Search(vectors, "angular").query(vectors[rows], k + 1)[0].tolist() for vectors in (first, second)]
    shares = [len((set(a) & set(b)) - {row}) / k for row, a, b in zip(rows.tolist(), *near, strict=True)]
    return np.minimum(np.array(shares), 1)


def _match_colouring(cosine: np.ndarray) -> Colouring:
    caption = "cosine similarity to the most similar tile of the other city"
    return Colouring("match", "Best match in the other city", lambda _: Numbers(cosine, caption))


def _agreement_colouring(shared: np.ndarray) -> Colouring:
    caption = f"of the {NEIGHBOURS} nearest tiles are the same for both encoders"
    found = Numbers(shared, caption, 0, 1, scale=100, digits=0, unit=" %")
    return Colouring("agreement", "Neighbours that both encoders find", lambda _: found)
