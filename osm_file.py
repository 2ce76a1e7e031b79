"""OpenStreetMap files as people have them: what kind a file is, whether it is whole, sorting it, cutting it to a box.

Not a command. `osm_extract.py` turns the objects of such a file into geometries.
"""

import dataclasses
import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import osmium

from cli import UserError
from progress_bars import progress, warn
from tile_grid import Box

CUT_MARGIN = 0.1  # degrees; what crosses the box without a node this near to it is not seen in a file that is cut
_KINDS = {"n": 0, "w": 1, "r": 2}  # nodes come first in a sorted file
SORT_BELOW_BYTES = 32 << 20  # sorting needs the whole file in memory, so larger files are refused


# --- what a file is ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ExtractInfo:
    """What the header of an extract says; `box` is None if it names none, or one of more than half of the Earth."""

    box: Box | None
    date: str | None
    is_sorted: bool = False  # nodes, ways, relations, each by rising id; False if the header does not say so


def extract_info(path: Path | str) -> ExtractInfo:
    """Read the header of an extract. Raises `UserError` when the file is not an OSM extract, or is a history file."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}; expected an OpenStreetMap extract such as CITY.osm.pbf")
    try:
        with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
            header = reader.header()
    except (RuntimeError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None
    if header.has_multiple_object_versions:
        raise UserError(_history_message(path))
    bounds, box = header.box(), None
    # libosmium sorts the corners, so a box across 180 degrees reads as one around the rest of the Earth.
    if bounds.valid() and bounds.top_right.lon - bounds.bottom_left.lon <= 180:
        box = bounds.bottom_left.lon, bounds.bottom_left.lat, bounds.top_right.lon, bounds.top_right.lat
    date = header.get("osmosis_replication_timestamp") or header.get("timestamp") or None
    return ExtractInfo(box, date, header.get("sorting") == "Type_then_ID")


def unreadable(path: Path, error: Exception) -> str:
    """One sentence for an extract that pyosmium cannot read. Raises `OSError` if instead the disk is full."""
    if os.strerror(errno.ENOSPC) in str(error):  # of the temporary files; such errors have no number
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    with open(path, "rb") as file:
        start = file.read(512)
    size = path.stat().st_size
    if not size:
        return f"{path} is empty, so it holds no map data; get it again"
    if path.suffix == ".pbf" and (start[:1] == b"<" or b"<html" in start.lower()):
        return f"{path} is text (HTML or XML), not a PBF extract; a server's error page, perhaps: get it again"
    if "EOF" in str(error) or "truncated" in str(error):
        return f"{path} is cut short ({size:,} bytes; {error}); get it again"
    return f"{path} is not a readable OpenStreetMap extract ({error}); get it again, or name another file"


def check_whole(path: Path, name: str | None = None) -> None:
    """Read a file from end to end. Raises `UserError` when it is not an extract, holds nothing, or is cut short.

    `name` is the name by which the format is known, if `path` has another one (a download that is not complete yet).
    A file that ends exactly between two blocks cannot be told from a whole one.
    """
    known = name or path.name
    file = osmium.io.File(str(path), "".join(Path(known).suffixes[-2:]).lstrip("."))
    try:
        if next(iter(osmium.FileProcessor(file)), None) is None:
            raise UserError(f"{path} holds no map data ({path.stat().st_size:,} bytes); expected an extract")
        with osmium.io.Reader(file, osmium.osm.CHANGESET) as reader:  # decodes every block, keeps none
            osmium.apply(reader)
    except (RuntimeError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None


def _history_message(path: Path) -> str:
    if ".osc" in path.name:
        return (
            f"{path} is a change file: it holds what changed, not a map. Apply it to an extract first: "
            f"`osmium apply-changes EXTRACT.osm.pbf {_quoted(path)} -o CITY.osm.pbf`"
        )
    return (
        f"{path} is a history file: it holds several versions of the same object. Cut it to one date "
        f"first: `osmium time-filter {_quoted(path)} 2025-01-01T00:00:00Z -o CITY.osm.pbf`"
    )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


# --- order -------------------------------------------------------------------------------------------------


def check_order(path: Path) -> bool:
    """Whether the objects stand in the order that reading needs: nodes, ways, relations, each by rising id.

    Walks the whole file: about two seconds for a million objects. Raises `UserError` when the file holds several
    versions of an object, objects that were never uploaded (negative ids), or no objects at all.
    """
    before, version, in_order = (-1, 0), 0, True
    objects = osmium.FileProcessor(str(path), osmium.osm.NODE | osmium.osm.WAY | osmium.osm.RELATION)
    for found in progress(objects, desc="checking the order", unit=" objects"):
        if found.id < 0:
            raise UserError(
                f"{path} holds objects with negative ids, which were never uploaded (such as {object_name(found)}); "
                f"number them first: `osmium renumber {_quoted(path)} -o CITY.osm.pbf`"
            )
        here = _KINDS[found.type_str()], found.id
        if here == before and found.version != version:
            raise UserError(_history_message(path))
        in_order &= here > before
        before, version = here, found.version
    if before[0] < 0:
        raise UserError(f"{path} holds no map data ({path.stat().st_size:,} bytes); expected an OpenStreetMap extract")
    return in_order


def object_name(found: Any) -> str:
    """`node 7`, `way 7` or `relation 7`."""
    return {"n": "node", "w": "way", "r": "relation"}[found.type_str()] + f" {found.id}"


def sort_extract(path: Path, out: Path) -> None:
    """Write the objects of `path` to `out` in order. Of objects that occur twice the newest version stays.

    Raises `UserError` with the command that sorts when the file is too large to sort it in memory.
    """
    if path.stat().st_size > SORT_BELOW_BYTES:
        raise UserError(
            f"{path} is not sorted (nodes, ways, relations, each by id) and too large to sort on the way; sort it "
            f"first: `osmium sort {_quoted(path)} -o CITY.osm.pbf`"
        )
    warn(f"{path} is not sorted (nodes, ways, relations, each by id); sorting a copy before reading it")
    everything = osmium.MergeInputReader()
    everything.add_file(str(path))
    with osmium.SimpleWriter(osmium_file(out, has_locations_on_ways(path)), overwrite=True) as writer:
        everything.apply(writer, simplify=True)


# --- locations on ways -------------------------------------------------------------------------------------


def has_locations_on_ways(path: Path) -> bool:
    """Whether ways bring the locations of their nodes, as `osmium add-locations-to-ways` writes them.

    Such files usually lack the untagged nodes. Looks at the first way only, as a file is of one kind.
    """
    for way in osmium.FileProcessor(str(path), osmium.osm.WAY):
        return isinstance(way, osmium.osm.Way) and any(node.location.valid() for node in way.nodes)
    return False


def osmium_file(path: Path, locations_on_ways: bool) -> osmium.io.File:
    """A PBF file to write to, with or without the locations of nodes in the ways."""
    return osmium.io.File(str(path), "pbf,locations_on_ways=true" if locations_on_ways else "pbf")


def read_objects(
    path: Path, areas: Any, others: Any, locations_on_ways: bool, nodes: Path | None = None
) -> Iterator[Any]:
    """Yield the nodes, ways, relations and areas of a sorted file that pass the filter `others`; ways have locations.

    The locations of nodes are kept in memory, or in a new file `nodes`, 16 bytes each. Relations that pass the filter
    `areas` become areas, closed ways always do. This is what `osmium.FileProcessor` does, except that it would
    overwrite the locations that ways bring with those of nodes that are not in the file. Raises `UserError` for a name
    of `nodes` with a comma.
    """
    if nodes is not None and "," in str(nodes):
        raise UserError(f"{nodes.parent} has a comma in its name, which the file of node locations must not have")
    manager = osmium.area.AreaManager()
    with osmium.io.Reader(str(path), osmium.osm.RELATION) as reader:
        osmium.apply(reader, areas, manager.first_pass_handler())
    finished = osmium.BufferIterator(others)
    handlers: list[Any] = [manager.second_pass_to_buffer(finished)]
    if not locations_on_ways:
        kept = "flex_mem" if nodes is None else f"sparse_file_array,{nodes}"
        locations = osmium.NodeLocationsForWays(osmium.index.create_map(kept))
        locations.ignore_errors()
        handlers.insert(0, locations)
    with osmium.io.Reader(str(path)) as reader:
        for found in osmium.OsmFileIterator(reader, *handlers, others):
            yield found
            if finished:
                yield from finished
    yield from finished


# --- cutting -----------------------------------------------------------------------------------------------


def cut_extract(path: Path, box: Box, out: Path) -> None:
    """Write the objects that have a node in `box`, with every node and way they need, to `out`.

    Needs two bits of memory per object id instead of the location of every node, which makes a country's file usable.
    Raises `UserError` when the file is not sorted: a way before its nodes would be lost.
    """
    west, south, east, north = box

    def inside(place: Any) -> bool:
        across = west <= place.lon <= east if west <= east else place.lon >= west or place.lon <= east
        return across and south <= place.lat <= north

    tracker, on_ways, latest = osmium.IdTracker(), has_locations_on_ways(path), 0
    areas = osmium.filter.TagFilter(("type", "multipolygon"), ("type", "boundary"))
    areas.enable_for(osmium.osm.RELATION)
    for found in progress(osmium.FileProcessor(str(path)).with_filter(areas), desc="cutting the box", unit=" objects"):
        kind = _KINDS[found.type_str()]
        if kind < latest:
            raise UserError(
                f"{path} is not sorted: {object_name(found)} comes after a way or relation. Sort it first: "
                f"`osmium sort {_quoted(path)} -o CITY.osm.pbf`"
            )
        latest = kind
        if found.is_node():
            if found.location.valid() and inside(found.location):
                tracker.add_node(found.id)
        elif found.is_way():
            places = (node.location for node in found.nodes) if on_ways else ()
            if tracker.contains_any_references(found) or any(place.valid() and inside(place) for place in places):
                tracker.add_way(found.id)
        elif tracker.contains_any_references(found):
            tracker.add_relation(found.id)
    tracker.complete_backward_references(str(path), relation_depth=1)
    with osmium.SimpleWriter(osmium_file(out, on_ways)) as writer:
        for found in osmium.FileProcessor(str(path)).with_filter(tracker.id_filter()):
            writer.add(found)
