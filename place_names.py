"""Names of streets, districts, stations, parks and buildings of an extract, to find a place by name without a network.

Not a command. `python render_tiles.py` writes them beside the tiles, and the page and the app search them.
"""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import pyarrow as pa
import pyarrow.parquet as pq

from cli import UserError
from files import atomic_path
from osm_extract import opened_extract
from osm_file import has_locations_on_ways
from tile_grid import KM_PER_DEGREE, Box

NAMES_FILE = "place_names.parquet"
OTHER_NAMES = ("name:en", "int_name", "alt_name", "short_name", "official_name", "old_name", "loc_name")
COMMON_LANGUAGE = 0.02  # of the named objects must have a name in a language before it can be searched
MOST_NAMES_EACH = 6
SAME_KM = 2.0  # parts of one street are closer than this to each other

# Kinds of places, the most important first: the word that people read, and the tags that make it.
KINDS: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
    ("city", {"place": ("city", "town")}),
    ("district", {"place": ("suburb", "borough", "quarter", "neighbourhood", "district", "city_block")}),
    ("village", {"place": ("village", "hamlet", "isolated_dwelling", "locality", "island", "islet")}),
    ("station", {"railway": ("station", "halt", "subway_entrance"), "aeroway": ("aerodrome", "terminal")}),
    ("square", {"place": ("square",)}),
    ("street", {"highway": ()}),
    ("park", {"leisure": (), "landuse": ("cemetery", "recreation_ground", "forest", "allotments")}),
    ("water", {"waterway": (), "natural": (), "water": ()}),
    ("sight", {"tourism": (), "historic": ()}),
    ("public place", {"amenity": (), "healthcare": (), "office": ("government",)}),
    ("stop", {"public_transport": (), "railway": ("tram_stop", "stop")}),
    ("shop", {"shop": (), "office": (), "craft": ()}),
    ("building", {"building": (), "man_made": ()}),
    ("area", {"landuse": (), "boundary": ("administrative", "protected_area", "national_park")}),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PlaceNames:
    """N named places: `names` of each, the usual one first; `kind (N,) int8` into `KINDS`; `latlon (N, 2) float64`."""

    names: list[tuple[str, ...]]
    kind: np.ndarray
    latlon: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> "PlaceNames":
        """Only some of the places, in that order."""
        return PlaceNames([self.names[row] for row in rows.tolist()], self.kind[rows], self.latlon[rows])


# --- reading an extract ------------------------------------------------------------------------------------


def read_place_names(extract: Path | str, box: Box | None = None, scratch: Path | None = None) -> PlaceNames:
    """Every named place of an extract, the most important kind first; parts of one street are one place.

    A large file is cut to `box` first, in the folder `scratch`, so that memory follows the box.

    Raises `UserError` for a file that is not a whole extract.
    """
    found: list[tuple[int, float, float, dict[str, str]]] = []
    with opened_extract(Path(extract), box, scratch) as (source, _, _):
        for place in _named_objects(source):
            tags = {tag.k: tag.v for tag in place.tags}
            number = kind_of(tags)
            middle = _middle(place) if number >= 0 else None
            if middle is not None:
                found.append((number, *middle, {key: value for key, value in tags.items() if "name" in key}))
    languages = Counter(key for *_, tags in found for key in tags if key.startswith("name:"))
    searched = [key for key, count in sorted(languages.items()) if count >= COMMON_LANGUAGE * len(found)]
    names = [_distinct_names(tags, searched) for *_, tags in found]
    kind = np.array([one[0] for one in found], dtype=np.int8)
    latlon = np.array([one[1:3] for one in found], dtype=np.float64).reshape(-1, 2)
    return joined_names([PlaceNames(names, kind, latlon)])


def joined_names(parts: list[PlaceNames]) -> PlaceNames:
    """The places of several lists as one; a place that is in two of them is there once."""
    names = [some for part in parts for some in part.names]
    kind = np.concatenate([part.kind for part in parts])
    latlon = np.concatenate([part.latlon for part in parts])
    kept = _one_of_each(names, kind, latlon)
    return PlaceNames([names[row] for row in kept.tolist()], kind[kept], latlon[kept])


def _named_objects(extract: Path) -> Any:
    named = osmium.filter.KeyFilter("name")
    objects = osmium.FileProcessor(str(extract))
    if not has_locations_on_ways(extract):
        objects = objects.with_locations()
    return objects.with_areas(named).with_filter(named)


def kind_of(tags: dict[str, str]) -> int:
    """The first kind of `KINDS` that the tags make, -1 for none."""
    for number, (_, wanted) in enumerate(KINDS):
        for key, values in wanted.items():
            if tags.get(key, "no") != "no" and (not values or tags[key] in values):
                return number
    return -1


def _middle(place: Any) -> tuple[float, float] | None:
    """Latitude and longitude of a node, of the middle of a way that is no surface, or of an area's outline."""
    if place.is_node():
        return (place.location.lat, place.location.lon) if place.location.valid() else None
    if place.is_way():
        if place.is_closed() and len(place.nodes) > 3 and "highway" not in place.tags:
            return None  # it comes again as an area
        nodes = [node.location for node in place.nodes if node.location.valid()]
        return (nodes[len(nodes) // 2].lat, nodes[len(nodes) // 2].lon) if nodes else None
    if not place.is_area() or (place.from_way() and "highway" in place.tags):
        return None
    places = [(node.lat, node.lon) for ring in place.outer_rings() for node in ring]
    if not places:
        return None
    lat, lon = np.array(places).T
    return float(lat.min() + lat.max()) / 2, float(lon.min() + lon.max()) / 2


def _distinct_names(tags: dict[str, str], languages: list[str]) -> tuple[str, ...]:
    """The usual name, then the others: each once, in one line."""
    values = [tags.get(key, "") for key in ("name", *OTHER_NAMES, *languages)]
    parts = [" ".join(part.split()) for value in values for part in value.split(";")]
    return tuple(dict.fromkeys(part for part in parts if part))[:MOST_NAMES_EACH]


def _one_of_each(names: list[tuple[str, ...]], kind: np.ndarray, latlon: np.ndarray) -> np.ndarray:
    """Rows of the places to keep, by kind and name: of those of one kind and name that touch, the middle one."""
    together: dict[tuple[int, str], list[int]] = {}
    for row, (number, some) in enumerate(zip(kind.tolist(), names, strict=True)):
        if some:
            together.setdefault((number, some[0]), []).append(row)
    kept: list[int] = []
    for _, rows in sorted(together.items()):
        waiting = set(rows)
        while waiting:
            group = _connected(sorted(waiting), latlon)
            waiting -= set(group)
            off = latlon[group] - latlon[group].mean(axis=0)
            kept.append(group[int((off**2).sum(axis=1).argmin())])
    return np.array(kept, dtype=np.int64)


def _connected(rows: list[int], latlon: np.ndarray) -> list[int]:
    """Those of the rows that are joined with the first one by steps of at most `SAME_KM`."""
    places = latlon[rows] * KM_PER_DEGREE
    places[:, 1] *= np.cos(np.radians(latlon[rows[0], 0]))
    reached = np.zeros(len(rows), dtype=bool)
    edge = [0]
    while edge:
        at = edge.pop()
        reached[at] = True
        near = np.flatnonzero(~reached & (((places - places[at]) ** 2).sum(axis=1) <= SAME_KM**2))
        reached[near] = True
        edge.extend(near.tolist())
    return [row for row, there in zip(rows, reached.tolist(), strict=True) if there]


# --- beside the tiles --------------------------------------------------------------------------------------


def save_place_names(path: Path, places: PlaceNames) -> None:
    """Write the places as Parquet: `names`, `kind`, `lat`, `lon`."""
    kinds = [KINDS[number][0] for number in places.kind.tolist()]
    columns = {"names": [list(some) for some in places.names], "kind": kinds}
    table = pa.table(columns | {"lat": places.latlon[:, 0], "lon": places.latlon[:, 1]})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def load_place_names(path: Path) -> PlaceNames:
    """Read what `save_place_names` wrote. Raises `UserError` for a file that is damaged or something else."""
    numbers = {name: number for number, (name, _) in enumerate(KINDS)}
    try:
        table = pq.read_table(path, page_checksum_verification=True).to_pydict()
        kind = np.array([numbers[name] for name in table["kind"]], dtype=np.int8)
        latlon = np.column_stack([table["lat"], table["lon"]]).astype(np.float64).reshape(-1, 2)
        return PlaceNames([tuple(map(str, some)) for some in table["names"]], kind, latlon)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        again = "`python render_tiles.py CITY.osm.pbf` writes it again after you delete it"
        raise UserError(f"{path} holds no place names ({type(error).__name__}); {again}") from None


def find_place_names(
    tiles_root: Path, extract: Path | None = None, box: Box | None = None, scratch: Path | None = None
) -> PlaceNames | None:
    """The names of an extract if one is given, else those beside the tiles, None where there are none.

    `box` and `scratch` are those of `read_place_names`.
    """
    if extract is not None:
        return read_place_names(extract, box, scratch)
    path = Path(tiles_root) / NAMES_FILE
    return load_place_names(path) if path.is_file() else None
