"""How long Mapnik takes to draw the 12 layers of an extract as the renderer does, with every advantage.

python bench.py render --mapnik      # after `uv pip install mapnik`
python tests/mapnik_timing.py sample_data/astana.osm.pbf

The time covers drawing metatiles of 8 x 8 tiles, and encoding and writing the PNGs that show something, on all cores.
It leaves out some work that the renderer's own time includes: reading the extract (Mapnik gets indexed shapefiles, one
per layer and kind, in drawing order), starting processes, and blank tiles.
"""

import functools
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import shapely

from cli import Parser, UserError, run_main
from layers import LAYERS
from map_index import STYLE_PX, build_index, draw_order
from map_style import FILL, LINE, POINT, Style, load_style
from osm_extract import Features, read_features
from osm_file import extract_info
from tile_area import TileArea
from tile_grid import METATILE, tile_of_latlon
from tile_writer import PARTIAL, TileWriter, encode_png

ZOOM = 17
KINDS = {FILL: "fill", LINE: "line", POINT: "point"}  # in the order of drawing
EDGE = METATILE * STYLE_PX
FASTEST = "png8:z=1"  # of the formats that Mapnik writes
BUFFER = 64  # pixels round a metatile within which objects are looked for; the widest line is narrower
MAP = '<Map srs="epsg:3857" buffer-size="{buffer}">{body}</Map>'
LAYER = """
<Style name="{kind}">{rules}</Style>
<Layer name="{kind}" srs="epsg:3857"><StyleName>{kind}</StyleName>
<Datasource><Parameter name="type">shape</Parameter><Parameter name="file">{path}</Parameter></Datasource></Layer>
"""
RULE = "<Rule><Filter>[class] = {number}</Filter>{symbolizer}</Rule>"
SYMBOLIZER = {
    FILL: '<PolygonSymbolizer fill="rgb({gray},{gray},{gray})" clip="true"/>',
    LINE: '<LineSymbolizer stroke="rgb({gray},{gray},{gray})" stroke-width="{size}" stroke-linejoin="round" '
    'stroke-linecap="round" clip="true"/>',
    POINT: '<MarkersSymbolizer fill="rgb({gray},{gray},{gray})" stroke-width="0" width="{across}" height="{across}" '
    'allow-overlap="true" ignore-placement="true"/>',
}


def measure(extract: Path, scratch: Path, jobs: int, own_encoder: bool = True) -> tuple[float, int]:
    """Seconds that Mapnik takes for the whole extract, and the number of PNGs it wrote.

    With `own_encoder` Mapnik writes 8-bit palette PNGs, its fastest format; otherwise it uses the renderer's encoder.
    """
    try:
        import mapnik  # noqa: F401
    except ImportError:
        raise UserError("Mapnik is not installed; `uv pip install mapnik` installs it") from None
    style, info = load_style(), extract_info(extract)
    features = read_features(extract, style, info.box, scratch)
    area = TileArea.of_box(info.box, ZOOM)
    maps = write_maps(features, style, area, scratch)
    out = scratch / "mapnik"
    for layer in LAYERS:
        for x in np.unique(area.tile_xy[:, 0]).tolist():
            (out / layer / str(ZOOM) / str(x)).mkdir(parents=True)
    (out / PARTIAL).mkdir()
    blocks = np.unique(area.tile_xy // METATILE, axis=0).tolist()
    with ProcessPoolExecutor(jobs, get_context("spawn"), _maps, (maps,)) as pool:
        list(pool.map(time.sleep, [1.0] * jobs))  # until every process has opened its maps
        started = time.perf_counter()
        tasks = ((maps, out, area, block, own_encoder) for block in blocks)
        written = sum(pool.map(_draw, *zip(*tasks, strict=True)))
        return time.perf_counter() - started, written


def write_maps(features: Features, style: Style, area: TileArea, folder: Path) -> tuple[tuple[int, str], ...]:
    """Write the shapefiles of all layers; return each layer's number and its Mapnik map as XML."""
    world = tile_of_latlon(features.lonlat[:, 1], features.lonlat[:, 0], area.zoom)
    order = draw_order(features, style, np.rint(world * (1 << 14)).astype(np.int64))
    sizes = build_index(features, style, area).item_size * STYLE_PX
    layer = np.array([row.layer for row in style.classes])[features.item_class]
    points = np.where([True, False], world * STYLE_PX, -world * STYLE_PX)  # pixels; y grows to the north
    maps = []
    for number, name in enumerate(LAYERS):
        body = ""
        for kind, word in KINDS.items():
            items = order[(layer[order] == number) & (features.item_kind[order] == kind)]
            if len(items):
                path = folder / f"{name}-{word}.shp"
                shapes = [_shape(features, points, owner, kind) for owner in features.item_object[items]]
                _write_shapes(path, shapes, features.item_class[items], word)
                rules = _rules(style, kind, features.item_class[items], sizes[items])
                body += LAYER.format(kind=word, rules=rules, path=path)
        if body:
            maps.append((number, MAP.format(buffer=BUFFER, body=body)))
    return tuple(maps)


def _shape(features: Features, points: np.ndarray, owner: int, kind: int) -> shapely.Geometry:
    rings = range(features.ring_start[owner], features.ring_start[owner + 1])
    parts = [points[features.point_start[ring] : features.point_start[ring + 1]] for ring in rings]
    if kind == POINT:
        return shapely.Point(parts[0][0])
    if kind == LINE:
        return shapely.MultiLineString(parts)
    surfaces = [shapely.make_valid(shapely.Polygon(part)) for part in parts]
    return functools.reduce(shapely.symmetric_difference, surfaces)  # holes stay holes


def _write_shapes(path: Path, shapes: list, classes: np.ndarray, word: str) -> None:
    import mapnik
    import pyogrio.raw

    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array(shapes, dtype=object)),
        field_data=[classes.astype(np.int32)],
        fields=["class"],
        geometry_type={"fill": "MultiPolygon", "line": "MultiLineString", "point": "Point"}[word],
        crs="EPSG:3857",
        promote_to_multi=word != "point",
    )
    folder = Path(mapnik.__file__).parent
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder / "lib")}
    subprocess.run([folder / "bin" / "shapeindex", path], check=True, capture_output=True, env=environment)


def _rules(style: Style, kind: int, classes: np.ndarray, sizes: np.ndarray) -> str:
    rules = []
    for number in np.unique(classes).tolist():
        row, size = style.classes[number], float(np.median(sizes[classes == number]))
        gray = row.fill_gray if kind == FILL else row.gray
        symbolizer = SYMBOLIZER[kind].format(gray=gray, size=round(size, 2), across=round(2 * size, 2))
        rules.append(RULE.format(number=number, symbolizer=symbolizer))
    return "".join(rules)


@functools.lru_cache(maxsize=1)
def _maps(texts: tuple[tuple[int, str], ...]) -> list:
    """Each layer's number and its map, opened in this process."""
    import mapnik

    maps = []
    for number, text in texts:
        one = mapnik.Map(EDGE, EDGE)
        mapnik.load_map_from_string(one, text)
        maps.append((number, one))
    return maps


def _draw(texts: tuple[tuple[int, str], ...], out: Path, area: TileArea, block: list[int], own_encoder: bool) -> int:
    """Draw one metatile in all layers and write its PNGs that show something; how many."""
    import mapnik

    writer = TileWriter(out, area.zoom, STYLE_PX)
    left, top = np.array(block) * METATILE
    written, image = 0, mapnik.Image(EDGE, EDGE)
    for number, one in _maps(texts):
        one.zoom_to_box(mapnik.Box2d(*(np.array([left, -top - METATILE, left + METATILE, -top]) * STYLE_PX).tolist()))
        image.clear()
        mapnik.render(one, image)
        for x, y in np.ndindex(METATILE, METATILE) if image.painted() else ():
            view = image.view(x * STYLE_PX, y * STYLE_PX, STYLE_PX, STYLE_PX)
            blank = view.is_solid() and image.get_pixel(x * STYLE_PX, y * STYLE_PX) == 0
            if not blank and area.number(np.array([left + x]), np.array([top + y]))[0] >= 0:
                png = view.to_string(FASTEST) if own_encoder else encode_png(_red(view.to_string()))
                writer.write(f"{writer.folders[number]}/{left + x}/{top + y}.png", png)
                written += 1
    return written


def _red(pixels: bytes) -> np.ndarray:
    return np.frombuffer(pixels, dtype=np.uint8).reshape(STYLE_PX, STYLE_PX, 4)[..., 0]


def main() -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("extract", type=Path, help="OpenStreetMap extract, such as CITY.osm.pbf")
    extract = parser.parse_args().extract
    with tempfile.TemporaryDirectory() as scratch:
        for own_encoder, name in ((True, "its own PNGs"), (False, "the renderer's PNG encoder")):
            folder = Path(scratch) / str(own_encoder)
            folder.mkdir()
            seconds, written = measure(extract, folder, os.cpu_count() or 1, own_encoder)
            print(f"Mapnik with {name}: {seconds:.1f} s for {written:,} PNGs")


if __name__ == "__main__":
    run_main(main)
