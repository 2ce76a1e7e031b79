"""Repeat an extract side by side and on top of itself: a big city to measure memory with.

python tests/big_extract.py sample_data/astana.osm.pbf big.osm.pbf
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import osmium

from cli import Parser, run_main
from osm_file import extract_info

HIGHEST_ID = 13_000_000_000  # ids of the copies spread as widely as those of real extracts
SHIFT = 0.0007  # degrees between copies that lie on top of each other: some buildings' width


def write_big_extract(source: Path, out: Path, side_by_side: int = 2, layers: int = 9) -> None:
    """Write `side_by_side` x `layers` copies of every object in `source` to `out`."""
    ids = {kind: _ids(source, kind) for kind in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION)}
    west, south, east, north = extract_info(source).box
    header = osmium.io.Header()
    header.add_box(
        osmium.osm.Box(
            osmium.osm.Location(west, south),
            osmium.osm.Location(west + (east - west) * side_by_side, north + SHIFT * layers),
        )
    )
    with osmium.SimpleWriter(str(out), header=header) as writer:
        for kind, copy in ((osmium.osm.NODE, _node), (osmium.osm.WAY, _way), (osmium.osm.RELATION, _relation)):
            for number in range(side_by_side * layers):
                shift = number % side_by_side * (east - west), number // side_by_side * SHIFT
                new = {name: _new_ids(old, number, side_by_side * layers) for name, old in ids.items()}
                for found in osmium.FileProcessor(str(source), kind):
                    writer.add(copy(found, new, shift))


def _ids(source: Path, kind: osmium.osm.osm_entity_bits) -> list[int]:
    return [found.id for found in osmium.FileProcessor(str(source), kind)]


def _new_ids(old: list[int], number: int, copies: int) -> dict[int, int]:
    step = HIGHEST_ID // max(1, len(old) * copies)
    fresh = (np.arange(len(old), dtype=np.int64) + number * len(old) + 1) * step
    return dict(zip(old, fresh.tolist(), strict=True))


def _node(found: osmium.osm.Node, new: dict, shift: tuple[float, float]) -> osmium.osm.mutable.Node:
    place = found.location.lon + shift[0], found.location.lat + shift[1]
    return found.replace(id=new[osmium.osm.NODE][found.id], location=place)


def _way(found: osmium.osm.Way, new: dict, _shift: tuple[float, float]) -> osmium.osm.mutable.Way:
    known = new[osmium.osm.NODE]
    return found.replace(id=new[osmium.osm.WAY][found.id], nodes=[known[n.ref] for n in found.nodes if n.ref in known])


def _relation(found: osmium.osm.Relation, new: dict, _shift: tuple[float, float]) -> osmium.osm.mutable.Relation:
    kinds = {"n": osmium.osm.NODE, "w": osmium.osm.WAY, "r": osmium.osm.RELATION}
    members = [(m.type, new[kinds[m.type]].get(m.ref), m.role) for m in found.members]
    return found.replace(
        id=new[osmium.osm.RELATION][found.id], members=[member for member in members if member[1] is not None]
    )


def main() -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, help="extract to repeat")
    parser.add_argument("out", type=Path, help="where the big extract goes")
    args = parser.parse_args()
    write_big_extract(args.source, args.out)


if __name__ == "__main__":
    run_main(main)
