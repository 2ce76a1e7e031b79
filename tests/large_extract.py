"""Make a large extract out of a small one: copies of it side by side, each shifted by a fraction of a tile.

python tests/large_extract.py CITY.osm.pbf -o LARGE.osm.pbf --copies 3 2

The copies look alike but share no picture of a tile, so that nothing is drawn or embedded once for several of them.
"""

import sys
from pathlib import Path

import osmium

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cli import Parser, positive_int, run_main
from osm_file import extract_info

STEP = 360 / (1 << 17)  # degrees of longitude that a tile at zoom 17 is wide
FRACTION = 0.37  # of a tile, by which a copy is off the grid of the one before


def main() -> None:
    """Write the copies."""
    parser = Parser(__doc__)
    parser.add_argument("extract", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--copies", type=positive_int, nargs=2, default=(2, 2), metavar=("COLUMNS", "ROWS"))
    args = parser.parse_args()
    write_copies(args.extract, args.output, *args.copies)


def write_copies(extract: Path, output: Path, columns: int, rows: int) -> None:
    """Write `columns` x `rows` copies of an extract that says what it covers."""
    box = extract_info(extract).box
    assert box is not None, f"{extract} does not say what it covers"
    wide = (int((box[2] - box[0]) / STEP) + 1 + FRACTION) * STEP
    high = box[3] - box[1] + FRACTION * STEP
    most = {"n": 0, "w": 0, "r": 0}
    for each in osmium.FileProcessor(str(extract)):
        kind = "nwr"[int(each.is_way()) + 2 * int(each.is_relation())]
        most[kind] = max(most[kind], each.id)
    header = osmium.io.Header()
    header.set("sorting", "Type_then_ID")
    header.add_box(osmium.osm.Box(box[0], box[1], box[2] + wide * (columns - 1), box[3] + high * (rows - 1)))
    with osmium.SimpleWriter(str(output), header=header, overwrite=True) as writer:
        for kind in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION):
            for number in range(columns * rows):
                east, north = number % columns * wide, number // columns * high
                for each in osmium.FileProcessor(str(extract), kind):
                    new = each.id + number * most["n" if kind == osmium.osm.NODE else "w" if each.is_way() else "r"]
                    if each.is_node():
                        place = (each.location.lon + east, each.location.lat + north)
                        writer.add_node(each.replace(id=new, location=place))
                    elif each.is_way():
                        writer.add_way(each.replace(id=new, nodes=[n.ref + number * most["n"] for n in each.nodes]))
                    else:
                        members = [(m.type, m.ref + number * most[m.type], m.role) for m in each.members]
                        writer.add_relation(each.replace(id=new, members=members))


if __name__ == "__main__":
    run_main(main)
