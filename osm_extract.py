"""Read the objects of an OpenStreetMap extract that a style table draws, as flat arrays of coordinates.

Not a command; `python render_tiles.py --city kyiv` shows it at work. Separate from drawing, so that the renderer does
not depend on OSM.
"""

import contextlib
import dataclasses
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import shapely

from cli import UserError
from coastlines import sea_surfaces
from map_style import FILL, LINE, POINT, Style
from osm_file import (
    CUT_MARGIN,
    check_order,
    cut_extract,
    extract_info,
    has_locations_on_ways,
    read_objects,
    sort_extract,
    unreadable,
)
from osm_repair import repaired_surface, unwrap_objects
from progress_bars import progress
from tile_grid import MAX_LATITUDE, Box

ATTRIBUTION = "© OpenStreetMap contributors, Open Database License (ODbL) 1.0, https://www.openstreetmap.org/copyright"
LEVELS_TAG, ADDRESS_TAG = "building:levels", "addr:housenumber"  # never drawn: labels are made of them
CUT_ABOVE_BYTES = 96 << 20  # larger files are first cut to the box, so that memory follows the box, not the file
BATCH_POINTS = 1 << 20  # of a batch of `stream_features`
_BATCH = 8192  # geometries that are decoded together

NO_SURFACE = "closed ways that are no valid surface"
OPEN_WAY = "ways that should close and do not"
MISSING_NODES = "ways with missing nodes, drawn in part"
LOST_NODES = "closed ways with missing nodes, left out"
NO_LENGTH = "ways without length"
INCOMPLETE = "relations that are incomplete or do not close"
NO_PLACE = "nodes without a place"
BEYOND = "objects beyond Web Mercator (85.05 degrees north or south)"
DOUBTFUL_SEA = "parts of the sea whose coastline has gaps"
REPAIRED = "surfaces whose rings cross, overlap or repeat"


@dataclasses.dataclass
class Features:
    """Everything that a style draws from an extract, flat.

    Object i has the rings `ring_start[i]:ring_start[i + 1]`; ring r has the points `point_start[r]:point_start[r + 1]`
    of `lonlat (P, 2) float64`. Every object is in one piece: one that crosses 180 degrees has longitudes above 180.
    `osm_key (M,)` orders objects the same way in every run. Item j draws object `item_object[j]` as `item_kind[j]` in
    the manner of class `item_class[j]`.
    `levels`, `addresses`: (lon, lat, value) rows that become labels and are never drawn.
    `broken` and `repaired` name the objects with broken geometries: what is wrong -> `way 7`, ...
    """

    lonlat: np.ndarray
    point_start: np.ndarray
    ring_start: np.ndarray
    osm_key: np.ndarray
    item_object: np.ndarray
    item_class: np.ndarray
    item_kind: np.ndarray
    levels: np.ndarray
    addresses: np.ndarray
    broken: dict[str, list[str]]
    repaired: dict[str, list[str]]
    boundaries: list[tuple[str, str]]  # name and hexadecimal WKB of administrative areas

    def names(self, objects: np.ndarray) -> list[str]:
        """What OSM calls some objects: `node 7`, `way 7` or `relation 7`."""
        kinds = ("node", "way", "relation")
        keys = self.osm_key[objects].tolist()
        return [f"{kinds[key % 4]} {key // 4}" if key >= 0 else "part of the sea" for key in keys]

    def bounds(self) -> np.ndarray:
        """West, south, east, north of each object, `(M, 4) float64`; east may be above 180."""
        first = self.point_start[self.ring_start[:-1]]
        if not len(first):
            return np.zeros((0, 4))
        return np.hstack([np.minimum.reduceat(self.lonlat, first), np.maximum.reduceat(self.lonlat, first)])

    def point_counts(self) -> np.ndarray:
        """Number of points of each object, `(M,) int64`."""
        return np.diff(self.point_start[self.ring_start])


def read_features(path: Path | str, style: Style, box: Box | None = None, scratch: Path | None = None) -> Features:
    """Read all objects that `style` draws.

    Geometries that cannot be built are repaired or named in `broken`; they are not fatal. A small file that is not
    sorted is sorted first, and a large one is cut to `box` and a margin if `box` and a folder `scratch` are given.
    Raises `UserError` for a file that is not a whole extract, is a history file, or is large and not sorted.
    """
    with opened_extract(Path(path), box, scratch) as (source, frame, _):
        (features,) = _Reading(source, style, frame).batches()
    return features


def stream_features(
    path: Path | str, style: Style, box: Box | None, scratch: Path, points: int = BATCH_POINTS
) -> Iterator[Features]:
    """The same objects in batches of about `points` points, with bounded memory.

    The locations of nodes lie in a file in `scratch`, 16 bytes each, instead of in memory. `broken` and `repaired` are
    those of the whole file and come with the last batch; `boundaries` are left out. Raises what `read_features` raises.
    """
    with opened_extract(Path(path), box, scratch) as (source, frame, folder):
        yield from _Reading(source, style, frame, folder / "nodes").batches(points)


def is_cut(path: Path) -> bool:
    """Whether an extract is so large that only what lies in the box is read, given one."""
    return path.stat().st_size > CUT_ABOVE_BYTES


@contextlib.contextmanager
def opened_extract(path: Path, box: Box | None, scratch: Path | None) -> Iterator[tuple[Path, Box | None, Path]]:
    """The file to read, sorted and cut if need be; the frame of its sea; a folder for temporary files.

    What reads it may raise the errors of libosmium: they become a `UserError` that names `path`.
    """
    info = extract_info(path)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            folder, source, frame = Path(name), path, info.box or box
            if box is not None and scratch is not None and is_cut(path):
                source = folder / "box.osm.pbf"
                margin = np.array([-CUT_MARGIN, -CUT_MARGIN, CUT_MARGIN, CUT_MARGIN])
                frame = tuple((np.array(box) + margin).tolist())
                cut_extract(path, frame, source)
            elif not info.is_sorted and not check_order(path):
                source = folder / "sorted.osm.pbf"
                sort_extract(path, source)
            yield source, frame, folder
    except (RuntimeError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None


class _Reading:
    """One pass over an extract; what it collects becomes `Features`. The sea ends at `frame`.

    With a file `nodes` the locations of nodes go there, and the boundaries of areas are not kept.
    """

    def __init__(self, path: Path, style: Style, frame: Box | None, nodes: Path | None = None):
        self.path, self.style, self.frame, self.nodes = path, style, frame, nodes
        self.on_ways = has_locations_on_ways(path)
        self._start_batch()
        self.broken: defaultdict[str, list[str]] = defaultdict(list)
        self.repaired: defaultdict[str, list[str]] = defaultdict(list)
        self.boundaries: list[tuple[str, str]] = []
        self.coast: list[str] = []
        self.closed: dict[int, tuple[int, ...]] = {}  # classes of closed ways until their area comes
        self.crossed: set[tuple[str, int]] = set()  # ways and relations that libosmium makes no surface of
        self._classes: dict[tuple, tuple[int, ...]] = {}
        self._wkb = osmium.geom.WKBFactory()

    def _start_batch(self) -> None:
        self.waiting: list[str] = []  # geometries as hexadecimal WKB, decoded by the batch
        self.lonlat: list[np.ndarray] = []
        self.point_counts: list[np.ndarray] = []
        self.ring_counts: list[np.ndarray] = []
        self.decoded = 0  # points
        self.osm_key = array("q")
        self.items = array("q")  # object, class, kind
        self.levels, self.addresses, self.addressed = array("d"), array("d"), array("q")

    def batches(self, points: int | None = None) -> Iterator[Features]:
        """Everything as one batch, or as batches of about so many points."""
        member_lines, surfaces = self._relations()
        keys = self.style.member_keys
        areas = osmium.filter.KeyFilter(*keys)
        others = osmium.filter.KeyFilter(*keys, ADDRESS_TAG)
        others.enable_for(osmium.osm.NODE | osmium.osm.AREA)
        objects = read_objects(self.path, areas, others, self.on_ways, self.nodes)
        for found in progress(objects, desc="reading the map", unit=" objects"):
            if found.is_way():
                self._way(found, member_lines.get(found.id, ()))
            elif found.is_area():
                self._area(found, surfaces)
            elif found.is_node():
                self._node(found)
            if points is not None and self.decoded >= points:
                yield self._features()
                self._start_batch()
        for number, classes in self.closed.items():  # no surface came, because the locations of nodes are unknown
            if any(self.style.classes[i].fill is True or self.style.classes[i].draws(POINT) for i in classes):
                self.broken[LOST_NODES].append(f"way {number}")
        if self.crossed:
            self._repair(surfaces)
        self.broken[INCOMPLETE] += [f"relation {number}" for number in sorted(surfaces)]
        self._sea()
        features = self._features()
        features.broken = {what: names for what, names in self.broken.items() if names}
        features.repaired = dict(self.repaired)
        yield features

    # --- objects -------------------------------------------------------------------------------------------

    def _relations(self) -> tuple[dict[int, list[int]], set[int]]:
        """Classes that relations lend to their member ways as lines, and relations that should give surfaces."""
        lines: dict[int, list[int]] = {}
        surfaces: set[int] = set()
        keys = osmium.filter.KeyFilter(*self.style.member_keys)
        for relation in osmium.FileProcessor(str(self.path), osmium.osm.RELATION).with_filter(keys):
            if not isinstance(relation, osmium.osm.Relation):
                continue
            if relation.tags.get("type") not in ("multipolygon", "boundary"):
                continue
            rows = [(number, self.style.classes[number]) for number in self._classes_of(relation.tags)]
            if any(row.fill for _, row in rows):
                surfaces.add(relation.id)
            drawn = [number for number, row in rows if row.line is not None and not row.fill]
            for member in relation.members if drawn else ():
                if member.type == "w":
                    lines.setdefault(member.ref, []).extend(drawn)
        return lines, surfaces

    def _classes_of(self, tags: Any) -> tuple[int, ...]:
        values = tuple(map(tags.get, self.style.keys))
        classes = self._classes.get(values)
        if classes is None:
            known = {key: value for key, value in zip(self.style.keys, values, strict=True) if value is not None}
            classes = self._classes[values] = self.style.classes_of(known)
        return classes

    def _node(self, node: Any) -> None:
        place = node.location
        if not place.valid():
            self.broken[NO_PLACE].append(f"node {node.id}")
            return
        if node.tags.get(ADDRESS_TAG):
            self.addresses.extend((place.lon, place.lat))
        drawn = [number for number in self._classes_of(node.tags) if self.style.classes[number].draws(POINT)]
        if drawn:
            self._add(node.id * 4, self._wkb.create_point(node), drawn, POINT)

    def _way(self, way: Any, lent: list[int] | tuple[()]) -> None:
        classes = self._classes_of(way.tags)
        if not classes and not lent:
            return
        rows, closed, area = self.style.classes, way.is_closed(), way.tags.get("area")
        drawn = [number for number in classes if rows[number].draws(LINE, area, closed)]
        if closed and area != "no" and len(way.nodes) > 3:
            self.closed[way.id] = classes
        elif area != "no" and not drawn and any(rows[number].fill for number in classes):
            self.broken[NO_SURFACE if closed else OPEN_WAY].append(f"way {way.id}")
        drawn.extend(number for number in lent if number not in drawn)
        if drawn:
            parts = self._line_parts(way)
            if way.tags.get("natural") == "coastline":
                self.coast += parts
            for part in parts:
                self._add(way.id * 4 + 1, part, drawn, LINE)

    def _line_parts(self, way: Any) -> list[str]:
        """The way's line as WKB; where nodes are missing, the lines between the gaps."""
        try:
            return [self._wkb.create_linestring(way)]
        except osmium.InvalidLocationError:
            self.broken[MISSING_NODES].append(f"way {way.id}")
        except RuntimeError:  # fewer than two different points
            self.broken[NO_LENGTH].append(f"way {way.id}")
            return []
        parts: list[list[tuple[float, float]]] = [[]]
        for node in way.nodes:
            if node.location.valid():
                parts[-1].append((node.lon, node.lat))
            elif parts[-1]:
                parts.append([])
        return [shapely.to_wkb(shapely.LineString(part), hex=True) for part in parts if len(part) >= 2]

    def _area(self, area: Any, surfaces: set[int]) -> None:
        from_way, osm_id = area.from_way(), area.orig_id()
        classes = self.closed.pop(osm_id, ()) if from_way else self._classes_of(area.tags)
        drawn = self._surface_classes(area.tags, classes, from_way)
        administrative = not from_way and area.tags.get("boundary") == "administrative"
        if not (administrative or any(drawn)):
            return
        if area.num_rings()[0] == 0:
            self.crossed.add(("way" if from_way else "relation", osm_id))
            return
        if not from_way:
            surfaces.discard(osm_id)
        self._add_surface(osm_id, from_way, area.tags, drawn, self._wkb.create_multipolygon(area))

    def _surface_classes(self, tags: Any, classes: tuple[int, ...], from_way: bool) -> tuple[list[int], list[int]]:
        """The classes that fill a surface, and those that mark it with a point."""
        rows, area = self.style.classes, tags.get("area") if from_way else "yes"
        filled = [number for number in classes if rows[number].draws(FILL, area)]
        return filled, [number for number in classes if rows[number].draws(POINT)]

    def _add_surface(
        self, osm_id: int, from_way: bool, tags: Any, drawn: tuple[list[int], list[int]], wkb: str
    ) -> None:
        filled, marked = drawn
        if not from_way and tags.get("boundary") == "administrative" and self.nodes is None:
            self.boundaries.append((tags.get("name") or "", wkb))
        key = osm_id * 4 + (1 if from_way else 2)
        if filled:
            self._add(key, wkb, filled, FILL)
            number, levels = len(self.osm_key) - 1, tags.get(LEVELS_TAG)
            if tags.get(ADDRESS_TAG):
                self.addressed.append(number)
            if levels and tags.get("building", "no") != "no" and (value := _number(levels)) is not None:
                self.levels.extend((number, value))
        if marked:
            middle = shapely.point_on_surface(shapely.from_wkb(bytes.fromhex(wkb)))
            self._add(key, shapely.to_wkb(middle, hex=True), marked, POINT)

    def _repair(self, surfaces: set[int]) -> None:
        """Read again what libosmium made no surface of (rings that cross themselves) and repair what can be."""
        ways = {number for kind, number in self.crossed if kind == "way"}
        relations = {number for kind, number in self.crossed if kind == "relation"}
        members, tags_of, lines = {}, {}, {}
        chosen = osmium.filter.IdFilter(relations)
        for found in osmium.FileProcessor(str(self.path), osmium.osm.RELATION).with_filter(chosen):
            if isinstance(found, osmium.osm.Relation):
                members[found.id] = [(member.ref, member.role) for member in found.members if member.type == "w"]
                tags_of["relation", found.id] = dict(found.tags)
        needed = ways.union(*({way for way, _ in found} for found in members.values()))
        reader = osmium.FileProcessor(str(self.path))
        if not self.on_ways:
            again = "flex_mem" if self.nodes is None else f"sparse_file_array,{self.nodes}-again"
            reader = reader.with_locations(again)
        only_ways = osmium.filter.EntityFilter(osmium.osm.WAY)
        for found in reader.with_filter(only_ways).with_filter(osmium.filter.IdFilter(needed)):
            if not isinstance(found, osmium.osm.Way):
                continue
            tags_of["way", found.id] = dict(found.tags)
            places = [(node.lon, node.lat) for node in found.nodes if node.location.valid()]
            if len(places) >= 2:
                lines[found.id] = np.array(places)
        for kind, number in sorted(self.crossed):
            parts = [(number, "outer")] if kind == "way" else members[number]
            outer = [lines[way] for way, role in parts if role != "inner" and way in lines]
            inner = [lines[way] for way, role in parts if role == "inner" and way in lines]
            surface = repaired_surface(outer, inner) if outer else None
            tags = tags_of[kind, number]
            if surface is None:
                if kind == "way":
                    self.broken[NO_SURFACE].append(f"way {number}")
                continue  # relations stay in `surfaces`
            if kind == "relation":
                surfaces.discard(number)
            self.repaired[REPAIRED].append(f"{kind} {number}")
            drawn = self._surface_classes(tags, self._classes_of(tags), kind == "way")
            self._add_surface(number, kind == "way", tags, drawn, shapely.to_wkb(surface, hex=True))

    def _sea(self) -> None:
        """Add the surfaces that the coastlines bound, as objects tagged `natural=sea`."""
        classes = [i for i in self.style.classes_of({"natural": "sea"}) if self.style.classes[i].draws(FILL)]
        if not classes or not self.coast:
            return
        surfaces, doubtful = sea_surfaces(list(shapely.from_wkb(self.coast)), self.frame)
        self.broken[DOUBTFUL_SEA] += [f"around {part.x:.4f}, {part.y:.4f} (lon, lat)" for part in doubtful]
        for number, surface in enumerate(surfaces):
            self._add(-1 - number, shapely.to_wkb(surface, hex=True), classes, FILL)

    # --- arrays --------------------------------------------------------------------------------------------

    def _add(self, key: int, wkb: str, classes: list[int], kind: int) -> None:
        for number in classes:
            self.items.extend((len(self.osm_key), number, kind))
        self.osm_key.append(key)
        self.waiting.append(wkb)
        if len(self.waiting) >= _BATCH:
            self._decode()

    def _decode(self) -> None:
        """Turn the geometries that wait into coordinates, in their order, outer and inner rings alike."""
        shapes = shapely.from_wkb([bytes.fromhex(wkb) for wkb in self.waiting])  # GEOS reads hexadecimal text slowly
        self.waiting.clear()
        polygons, owner = shapely.get_parts(shapes, return_index=True)
        surface = shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON
        rings, polygon = shapely.get_rings(polygons[surface], return_index=True)
        owner = np.concatenate([owner[~surface], owner[surface][polygon]])
        counts = shapely.get_num_coordinates(np.concatenate([polygons[~surface], rings]))
        order = np.argsort(owner, kind="stable")
        self.lonlat.append(shapely.get_coordinates(shapes))
        self.point_counts.append(counts[order])
        self.ring_counts.append(np.bincount(owner, minlength=len(shapes)))
        self.decoded += len(self.lonlat[-1])

    def _features(self) -> Features:
        self._decode()
        point_start, ring_start = _starts(self.point_counts), _starts(self.ring_counts)
        items = np.array(self.items, dtype=np.int64).reshape(-1, 3)
        features = Features(
            lonlat=unwrap_objects(np.concatenate(self.lonlat), point_start, ring_start),
            point_start=point_start,
            ring_start=ring_start,
            osm_key=np.array(self.osm_key, dtype=np.int64),
            item_object=items[:, 0],
            item_class=items[:, 1].astype(np.int32),
            item_kind=items[:, 2].astype(np.int8),
            levels=np.zeros((0, 3)),
            addresses=np.array(self.addresses).reshape(-1, 2),
            broken={},
            repaired={},
            boundaries=self.boundaries,
        )
        # Labels of surfaces belong to the middle of their bounding box.
        bounds = features.bounds()
        middles = (bounds[:, :2] + bounds[:, 2:]) / 2
        objects, levels = np.array(self.levels).reshape(-1, 2).T
        features.levels = np.column_stack([middles[objects.astype(np.int64)], levels])
        addressed = np.array(self.addressed, dtype=np.int64)
        features.addresses = np.concatenate([features.addresses, middles[addressed]])
        # What lies wholly beyond the edge of the projection cannot be drawn.
        beyond = np.flatnonzero((bounds[:, 1] > MAX_LATITUDE) | (bounds[:, 3] < -MAX_LATITUDE))
        self.broken[BEYOND] += features.names(beyond)
        seen = ~np.isin(features.item_object, beyond)
        for name in ("item_object", "item_class", "item_kind"):
            setattr(features, name, getattr(features, name)[seen])
        return features


def _starts(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)


def _number(text: str) -> float | None:
    try:
        value = float(text.split(";")[0].replace(",", "."))
    except ValueError:
        return None
    return value if 0 < value < 200 else None
