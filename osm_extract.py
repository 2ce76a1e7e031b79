"""OpenStreetMap extracts: the style table, download, and reading what a style draws from a file.

Not a command itself; `python render_tiles.py --city kyiv` shows it at work.
"""

import dataclasses
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import shapely

from cli import UserError
from coastlines import sea_surfaces
from map_style import FILL, LINE, POINT, Style
from progress_bars import progress
from tile_grid import Box

ATTRIBUTION = "© OpenStreetMap contributors, Open Database License (ODbL) 1.0, https://www.openstreetmap.org/copyright"
LEVELS_TAG, ADDRESS_TAG = "building:levels", "addr:housenumber"  # never drawn: labels are made of them
CUT_MARGIN = 0.1  # degrees; what crosses the box without a node this near to it is not seen in a file that is cut
CUT_ABOVE_BYTES = 96 << 20  # larger files are first cut to the box, so that memory follows the box, not the file


# --- what a file holds -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ExtractInfo:
    """What the header of an extract says."""

    box: Box | None
    date: str | None


def extract_info(path: Path | str) -> ExtractInfo:
    """Read the header of an extract. Raises `UserError` when the file is no whole OSM extract."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; expected an OpenStreetMap extract such as CITY.osm.pbf")
    if path.suffix == ".pbf":
        check_whole_pbf(path)
    try:
        with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
            header = reader.header()
    except (RuntimeError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None
    date = header.get("osmosis_replication_timestamp") or header.get("timestamp") or None
    return ExtractInfo(_header_box(path), date)


def _header_box(path: Path) -> Box | None:
    with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
        box = reader.header().box()
    if not box.valid():
        return None
    return box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat


def unreadable(path: Path, error: Exception) -> str:
    """One sentence for an extract that pyosmium cannot read."""
    return f"{path} is no readable OpenStreetMap extract ({error}); get it again, or name another file"


def check_whole_pbf(path: Path) -> None:
    """Walk the blobs of a PBF file from end to end. Raises `UserError` when it is not one, or is cut short."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(512)
        file.seek(0)
        if start[:1] == b"<" or b"<html" in start.lower():
            raise UserError(
                f"{path} is text (HTML or XML), not a PBF extract; a server's error page, perhaps: get it again"
            )
        position, kinds = 0, Counter()
        while position < size:
            kind, length = _blob(file, path, first=position == 0)
            kinds[kind] += 1
            position = file.tell() + length
            if position > size:
                raise UserError(f"{path} is cut short: {size:,} bytes, at least {position:,} expected; get it again")
            file.seek(position)
    if not kinds[b"OSMData"]:
        raise UserError(f"{path} holds no map data ({size:,} bytes); expected an OpenStreetMap extract")


def _blob(file: Any, path: Path, first: bool) -> tuple[bytes, int]:
    """Read one blob header: its type and the length of the blob that follows."""
    raw = file.read(4)
    length = struct.unpack(">I", raw)[0] if len(raw) == 4 else 0
    header = file.read(length) if 0 < length <= 1 << 16 else b""
    if not header or len(header) < length:
        where = "at its start" if first else f"at byte {file.tell():,}"
        raise UserError(f"{path} is not a whole PBF extract (no block {where}); get it again, or name another file")
    fields = dict(_protobuf_fields(header))
    kind, size = fields.get(1), fields.get(3)
    if not isinstance(kind, bytes) or not isinstance(size, int) or (first and kind != b"OSMHeader"):
        raise UserError(f"{path} is not a PBF extract (its blocks have no OSM header); name another file")
    return kind, size


def _protobuf_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while position < len(data):
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        return value

    while position < len(data):
        key = varint()
        value: int | bytes = varint()
        if key & 7 == 2:
            length, start = int(value), position
            position += length
            value = data[start:position]
        elif key & 7 != 0:
            return
        yield key >> 3, value


# --- reading -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Features:
    """Everything that a style draws from an extract, flat.

    Object i has the rings `ring_start[i]:ring_start[i + 1]`; ring r has the points `point_start[r]:point_start[r + 1]`
    of `lonlat (P, 2) float64`. `osm_key (M,)` orders objects the same way in every run. Item j draws object
    `item_object[j]` as `item_kind[j]` in the manner of class `item_class[j]`.
    `levels`, `addresses`: (lon, lat, value) rows that become labels and are never drawn.
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
    broken: dict[str, int]
    boundaries: list[tuple[str, bytes]]  # name and WKB of administrative areas
    date: str | None = None


def read_features(path: Path | str, style: Style, box: Box | None = None, scratch: Path | None = None) -> Features:
    """Read all objects that `style` draws. Geometries that cannot be built are counted in `broken`, not fatal.

    A large file is first cut to `box` and a margin, in the folder `scratch`, if both are given.
    """
    path = Path(path)
    try:
        if box is not None and scratch is not None and path.stat().st_size > CUT_ABOVE_BYTES:
            small = scratch / "box.osm.pbf"
            box = box[0] - CUT_MARGIN, box[1] - CUT_MARGIN, box[2] + CUT_MARGIN, box[3] + CUT_MARGIN
            cut_extract(path, box, small)
            path = small
        return _Reading(path, style, box).run()
    except (RuntimeError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None


def cut_extract(path: Path, box: Box, out: Path) -> None:
    """Write the objects that have a node in `box`, with every node and way they need, to `out`.

    Two bits of memory per object id instead of the location of every node: what makes a country's file usable.
    """
    west, south, east, north = box
    tracker = osmium.IdTracker()
    areas = osmium.filter.TagFilter(("type", "multipolygon"), ("type", "boundary")).enable_for(osmium.osm.RELATION)
    for found in progress(osmium.FileProcessor(str(path)).with_filter(areas), desc="cutting the box", unit=" objects"):
        if found.is_node():
            if west <= found.lon <= east and south <= found.lat <= north:
                tracker.add_node(found.id)
        elif tracker.contains_any_references(found):
            (tracker.add_way if found.is_way() else tracker.add_relation)(found.id)
    tracker.complete_backward_references(str(path), relation_depth=1)
    with osmium.SimpleWriter(str(out)) as writer:
        for found in osmium.FileProcessor(str(path)).with_filter(tracker.id_filter()):
            writer.add(found)


class _Reading:
    """One pass over an extract; its lists become `Features`. The sea ends at `frame`, or where the header says."""

    def __init__(self, path: Path, style: Style, frame: Box | None):
        self.path, self.style = path, style
        self.frame = _header_box(path) or frame
        self.coast: list[bytes] = []
        self.lonlat, self.point_counts, self.ring_counts = array("d"), array("q"), array("q")
        self.osm_key = array("q")
        self.items = array("q")  # object, class, kind
        self.levels, self.addresses, self.addressed = array("d"), array("d"), array("q")
        self.broken: Counter[str] = Counter()
        self.boundaries: list[tuple[str, bytes]] = []
        self._classes: dict[tuple, tuple[int, ...]] = {}
        self._closed: dict[int, tuple[int, ...]] = {}
        self._wkb = osmium.geom.WKBFactory()

    def run(self) -> Features:
        member_lines, surfaces = self._relations()
        keys = self.style.member_keys
        areas = osmium.filter.KeyFilter(*keys)
        others = osmium.filter.KeyFilter(*keys, ADDRESS_TAG).enable_for(osmium.osm.NODE | osmium.osm.AREA)
        reader = osmium.FileProcessor(str(self.path)).with_locations().with_areas(areas).with_filter(others)
        for found in progress(reader, desc="reading the map", unit=" objects"):
            if found.is_way():
                self._way(found, member_lines.get(found.id, ()))
            elif found.is_area():
                self._area(found, surfaces)
            elif found.is_node():
                self._node(found)
        self.broken["relations that are incomplete or do not close"] += len(surfaces)
        self._sea()
        return self._features()

    def _sea(self) -> None:
        """Add the surfaces that the coastlines bound, as objects tagged `natural=sea`."""
        classes = [i for i in self.style.classes_of({"natural": "sea"}) if self.style.classes[i].draws(FILL)]
        lines = [shapely.linestrings(np.frombuffer(part).reshape(-1, 2)) for part in self.coast]
        if not classes or not lines:
            return
        frame = self.frame or tuple(shapely.total_bounds(lines))
        surfaces, doubtful = sea_surfaces(lines, frame)
        self.broken["parts of the sea whose coastline has gaps"] += doubtful
        for number, surface in enumerate(surfaces):
            self._add(-1 - number, list(_wkb_rings(shapely.to_wkb(surface, byte_order=1))), classes, FILL)

    def _relations(self) -> tuple[dict[int, list[int]], set[int]]:
        """Classes that relations lend to their member ways as lines, and relations that should give surfaces."""
        lines: dict[int, list[int]] = {}
        surfaces: set[int] = set()
        keys = osmium.filter.KeyFilter(*self.style.member_keys)
        for relation in osmium.FileProcessor(str(self.path), osmium.osm.RELATION).with_filter(keys):
            if relation.tags.get("type") not in ("multipolygon", "boundary"):
                continue
            rows = [(number, self.style.classes[number]) for number in self._classes_of(relation)]
            if any(row.fill for _, row in rows):
                surfaces.add(relation.id)
            drawn = [number for number, row in rows if row.line is not None and not row.fill]
            for member in relation.members if drawn else ():
                if member.type == "w":
                    lines.setdefault(member.ref, []).extend(drawn)
        return lines, surfaces

    def _classes_of(self, found: Any) -> tuple[int, ...]:
        values = tuple(map(found.tags.get, self.style.keys))
        classes = self._classes.get(values)
        if classes is None:
            tags = {key: value for key, value in zip(self.style.keys, values, strict=True) if value is not None}
            classes = self._classes[values] = self.style.classes_of(tags)
        return classes

    def _node(self, node: Any) -> None:
        place = node.location
        if not place.valid():
            self.broken["nodes without a place"] += 1
            return
        if node.tags.get(ADDRESS_TAG):
            self.addresses.extend((place.lon, place.lat))
        drawn = [number for number in self._classes_of(node) if self.style.classes[number].draws(POINT)]
        if drawn:
            self._add(node.id * 4, [struct.pack("<2d", place.lon, place.lat)], drawn, POINT)

    def _way(self, way: Any, lent: list[int] | tuple[()]) -> None:
        classes = self._classes_of(way)
        if not classes and not lent:
            return
        rows, closed, area = self.style.classes, way.is_closed(), way.tags.get("area")
        drawn = [number for number in classes if rows[number].draws(LINE, area, closed)]
        if closed:
            self._closed[way.id] = classes
        elif classes and not drawn and any(rows[number].fill for number in classes):
            self.broken["ways that should close and do not"] += 1
        drawn.extend(number for number in lent if number not in drawn)
        if drawn:
            parts = self._line_parts(way)
            if way.tags.get("natural") == "coastline":
                self.coast += parts
            for part in parts:
                self._add(way.id * 4 + 1, [part], drawn, LINE)

    def _line_parts(self, way: Any) -> list[bytes]:
        """The way's points; where nodes are missing, what stands between the gaps."""
        try:
            return [bytes.fromhex(self._wkb.create_linestring(way))[9:]]
        except osmium.InvalidLocationError:
            self.broken["ways with missing nodes, drawn in part"] += 1
        except RuntimeError:  # fewer than two different points
            self.broken["ways without length"] += 1
            return []
        parts: list[list[float]] = [[]]
        for node in way.nodes:
            if node.location.valid():
                parts[-1].extend((node.lon, node.lat))
            elif parts[-1]:
                parts.append([])
        return [struct.pack(f"<{len(part)}d", *part) for part in parts if len(part) >= 4]

    def _area(self, area: Any, surfaces: set[int]) -> None:
        from_way, osm_id = area.from_way(), area.orig_id()
        classes = self._closed.pop(osm_id, ()) if from_way else self._classes_of(area)
        rows, tag = self.style.classes, area.tags.get("area") if from_way else "yes"
        filled = [number for number in classes if rows[number].draws(FILL, tag)]
        marked = [number for number in classes if rows[number].draws(POINT)]
        administrative = not from_way and area.tags.get("boundary") == "administrative"
        if not (filled or marked or administrative):
            return
        if area.num_rings()[0] == 0:
            if from_way:
                self.broken["closed ways that are no valid surface"] += 1
            return
        surfaces.discard(-1 if from_way else osm_id)
        wkb = bytes.fromhex(self._wkb.create_multipolygon(area))
        if administrative:
            self.boundaries.append((area.tags.get("name") or "", wkb))
        key = osm_id * 4 + (1 if from_way else 2)
        if filled:
            self._add(key, list(_wkb_rings(wkb)), filled, FILL)
            self._labels(area)
        if marked:
            middle = shapely.get_coordinates(shapely.point_on_surface(shapely.from_wkb(wkb)))
            self._add(key, [middle.tobytes()], marked, POINT)

    def _labels(self, area: Any) -> None:
        """Note what the object just added says about levels and address; `_middles` turns it into a place."""
        number = len(self.osm_key) - 1
        levels = area.tags.get(LEVELS_TAG)
        if area.tags.get(ADDRESS_TAG):
            self.addressed.append(number)
        if levels and area.tags.get("building", "no") != "no" and (value := _number(levels)) is not None:
            self.levels.extend((number, value))

    def _middles(self, lonlat: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """The middle of each object's bounding box."""
        if not len(objects):
            return np.zeros((0, 2))
        first = _starts(self.point_counts)[_starts(self.ring_counts)]
        low, high = np.minimum.reduceat(lonlat, first[:-1]), np.maximum.reduceat(lonlat, first[:-1])
        return (low[objects] + high[objects]) / 2

    def _add(self, key: int, rings: list[bytes], classes: list[int], kind: int) -> None:
        for number in classes:
            self.items.extend((len(self.osm_key), number, kind))
        self.osm_key.append(key)
        self.ring_counts.append(len(rings))
        for ring in rings:
            self.lonlat.frombytes(ring)
            self.point_counts.append(len(ring) // 16)

    def _features(self) -> Features:
        items = np.array(self.items, dtype=np.int64).reshape(-1, 3)
        lonlat = np.frombuffer(self.lonlat, dtype=np.float64).reshape(-1, 2)
        objects, levels = np.array(self.levels).reshape(-1, 2).T
        addressed = self._middles(lonlat, np.array(self.addressed, dtype=np.int64))
        return Features(
            lonlat=lonlat,
            point_start=_starts(self.point_counts),
            ring_start=_starts(self.ring_counts),
            osm_key=np.array(self.osm_key, dtype=np.int64),
            item_object=items[:, 0],
            item_class=items[:, 1].astype(np.int32),
            item_kind=items[:, 2].astype(np.int8),
            levels=np.column_stack([self._middles(lonlat, objects.astype(np.int64)), levels]),
            addresses=np.concatenate([np.array(self.addresses).reshape(-1, 2), addressed]),
            broken={what: count for what, count in self.broken.items() if count},
            boundaries=self.boundaries,
        )


def _starts(counts: array) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))]).astype(np.int64)


def _number(text: str) -> float | None:
    try:
        value = float(text.split(";")[0].replace(",", "."))
    except ValueError:
        return None
    return value if 0 < value < 200 else None


def _wkb_rings(wkb: bytes) -> Iterator[bytes]:
    """Yield the rings of a little-endian WKB multipolygon, outer and inner alike."""
    polygons, position = struct.unpack_from("<I", wkb, 5)[0], 9
    for _ in range(polygons):
        rings = struct.unpack_from("<I", wkb, position + 5)[0]
        position += 9
        for _ in range(rings):
            length = struct.unpack_from("<I", wkb, position)[0] * 16
            yield wkb[position + 4 : position + 4 + length]
            position += 4 + length
