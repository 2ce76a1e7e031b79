"""Draw an OpenStreetMap extract as 12 grey masks per map tile, whole city, restartable.

python render_tiles.py sample_data/astana.osm.pbf
python render_tiles.py --city kyiv --preview --labels labels.parquet
python render_tiles.py CITY.osm.pbf --bbox 30.49,50.42,30.56,50.47 --tiles_root 12_layer_tiles/tiles
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli import Parser, TilesFlags, UserError, add_flags, flag, positive_int, read_flags, run_main
from extract_download import fetch_extract
from files import atomic_path, atomic_write, digest, file_digest, locked
from layers import LAYERS, MANIFEST_NAME, MAX_TILE_PX, STYLE_PATH
from map_index import STYLE_PX, DrawIndex, build_index
from map_labels import labels_table
from map_style import Style, load_style
from osm_extract import ATTRIBUTION, Features, is_cut, read_features
from osm_file import extract_info
from place_names import NAMES_FILE, joined_names, load_place_names, read_place_names, save_place_names
from progress_bars import warn
from tile_area import (
    MAX_TILES,
    TileArea,
    box_text,
    boxes_overlap,
    check_overlap,
    clipped,
    common_box,
    data_box,
    near_tiles,
    tile_count,
)
from tile_grid import GRID_LIMIT, MAX_LATITUDE, Box
from tile_workers import DrawJob, draw_tiles, start_workers
from tile_writer import PARTIAL, inked_tiles, missing_tiles
from version import VERSION

SAMPLE_EXTRACT = Path(__file__).with_name("sample_data") / "astana.osm.pbf"
# The 48 x 48 tiles of the sample on which the most buildings and roads are drawn (41,815 of 100,198 marks on tiles).
SAMPLE_BBOX: Box = (71.3644409, 51.1224889, 71.4962769, 51.2051626)
NAMED_OBJECTS = 10  # broken objects that are named on the terminal; the manifest names up to MANIFEST_OBJECTS
MANIFEST_OBJECTS = 1000


@dataclasses.dataclass(frozen=True)
class City:
    """A city known by name: its box, and where its extract comes from."""

    box: Box | None
    source: str


KNOWN_CITIES = {
    "kyiv": City((30.239, 50.213, 30.826, 50.591), "https://download.bbbike.org/osm/bbbike/Kiew/Kiew.osm.pbf"),
    "astana": City(None, str(SAMPLE_EXTRACT)),
    "sample": City(SAMPLE_BBOX, str(SAMPLE_EXTRACT)),
}


@dataclasses.dataclass(frozen=True)
class RenderConfig(TilesFlags):
    """Rendering."""

    extract: Path | None = None
    tms: bool = False  # no flag: tiles are always written with y from the north
    bbox: str | None = flag(
        None,
        "only this box: west,south,east,north in degrees; west > east crosses 180 degrees",
        metavar="W,S,E,N",
    )
    city: str | None = flag(
        None, f"a city known by name: {', '.join(KNOWN_CITIES)} (sample: the middle of Astana)", metavar="NAME"
    )
    source: str | None = flag(None, "extract to use instead of the city's own: a URL or a file", metavar="URL|FILE")
    downloads: Path = flag(Path("downloads"), "folder for downloaded extracts")
    tile_px: int = flag(STYLE_PX, "edge of a PNG in pixels", type=positive_int)
    jobs: int = flag(os.cpu_count() or 1, "processes that draw", type=positive_int)
    style: Path = flag(STYLE_PATH, "style table: what each layer shows, how drawn, how bright")
    clip_boundary: bool = flag(False, "stay inside the city's administrative boundary where the extract holds it")
    force: bool = flag(False, "draw everything again, also over tiles of another extract or style")
    preview: bool = flag(False, "also write pictures of the whole city and of each layer to <tiles_root>/preview")
    labels: Path | None = flag(None, "also write what the masks do not show, per tile, to this Parquet file", type=Path)


@dataclasses.dataclass
class RenderReport:
    """What a run did: tiles in the area, tiles drawn now, objects and inked tiles by layer, broken geometries.

    `broken` and `repaired` count objects by what is wrong with them, `named` names some of them.
    """

    area: TileArea
    drawn: int
    box: Box
    layers: dict[str, dict[str, int]]
    broken: dict[str, int]
    repaired: dict[str, int]
    named: dict[str, list[str]]
    outputs: list[Path] = dataclasses.field(default_factory=list)

    @property
    def tiles(self) -> int:
        """Tiles in the area."""
        return len(self.area.tile_xy)


# --- a run -------------------------------------------------------------------------------------------------


def render(config: RenderConfig) -> RenderReport:
    """Render what `config` asks for and return what was done; finished tiles are left alone.

    Raises `UserError` for an extract, box or folder that cannot be used, `WorkError` when a process is lost.
    """
    if config.tile_px > MAX_TILE_PX:
        raise UserError(f"--tile_px {config.tile_px} is too large for a tile; at most {MAX_TILE_PX} can be read")
    # Locate the extract and the box.
    extract, box = locate(config)
    style, info = load_style(config.style), extract_info(extract)
    check_overlap(box, info.box, extract)
    root = config.tiles_root
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".render.lock", wait_s=1):
        identity = {
            "extract": extract.name,
            "extract_digest": file_digest(extract),
            "date": info.date,
            "zoom": config.zoom,
            "tile_px": config.tile_px,
            "style_version": style.version,
            "style_digest": style.digest,
            "attribution": ATTRIBUTION,
        }
        former = _former_manifest(root, identity, config.force)
        box = box or info.box
        report = _finished(config, former, box)
        names = root / NAMES_FILE
        # A large extract is cut to the box, so that the names may be those of another box.
        same_box = former.get("complete") and box and list(box) in (former.get("asked_bbox"), former["bbox"])
        of_other_box = box is not None and not same_box and is_cut(extract)
        needs_names = config.force or of_other_box or not names.exists()
        if report is None:
            with _partial_folder(root) as scratch, start_workers(config.jobs) as pool:
                # Read the objects, choose the tiles, find what lies on each tile. Names are read beside it.
                named = pool.submit(read_place_names, extract, box, scratch) if needs_names else None
                features = read_features(extract, style, box, scratch)
                area, found_box = choose_area(features, style, box, config.zoom, extract)
                area = clipped(area, features.boundaries, extract) if config.clip_boundary else area
                index = build_index(features, style, area)
                if named is not None:
                    keeps = former and names.exists() and not config.force  # tiles of the other box are still there
                    known = [load_place_names(names)] if keeps else []
                    with contextlib.suppress(BrokenProcessPool):  # drawing says so
                        save_place_names(names, joined_names([*known, named.result()]))
                # Draw what is missing.
                missing = missing_tiles(root, area, config.force)
                manifest: dict[str, Any] = identity | {
                    "generator": f"Loc2Vec {VERSION}",
                    "bbox": found_box,
                    "asked_bbox": box,
                    "tiles": len(area.tile_xy),
                    "clip_boundary": config.clip_boundary,
                }
                _write_manifest(root, manifest | {"complete": False})
                job = DrawJob(scratch, root, config.zoom, config.tile_px)
                inked = draw_tiles(job, area, index, missing, pool, config.jobs)
            if not missing.all():  # what was there before this run
                inked |= inked_tiles(root, area, config.tile_px)
            # Labels and the manifest.
            outputs = []
            if config.labels:
                write_labels(config.labels, labels_table(features, style, area, index), _labels_key(manifest))
                outputs.append(config.labels)
            manifest |= {"complete": True, "layers": _layer_counts(inked, style, index)} | _geometry_report(features)
            _write_manifest(root, manifest)
            report = _report(manifest, area, int(missing.any(axis=1).sum()), outputs)
        elif needs_names:
            with _partial_folder(root) as scratch:
                save_place_names(names, read_place_names(extract, box, scratch))
        if config.preview:
            from tile_previews import write_previews  # SciPy, which drawing does not need

            report.outputs += write_previews(root, report.area, config.tile_px, config.jobs)
    return report


def locate(config: RenderConfig) -> tuple[Path, Box | None]:
    """The extract to read, downloaded if necessary, and the box asked for."""
    box = parse_box(config.bbox) if config.bbox else None
    source = config.source
    if config.city is not None:
        city = KNOWN_CITIES.get(config.city.lower())
        if city is None:
            raise UserError(
                f"--city {config.city} is not known; known are {', '.join(KNOWN_CITIES)}. For any other place "
                "name an extract: `python render_tiles.py CITY.osm.pbf [--bbox W,S,E,N]`"
            )
        box, source = box or city.box, source or city.source
    if config.extract is not None:
        if config.source is not None:
            raise UserError(f"both {config.extract} and --source {config.source} are given; name one extract")
        return Path(config.extract), box
    if source is None:
        raise UserError("no extract given; name one (`python render_tiles.py CITY.osm.pbf`) or a city (`--city kyiv`)")
    if "://" in source:
        return fetch_extract(source, config.downloads), box
    return Path(source), box


def parse_box(text: str) -> Box:
    """Parse `W,S,E,N` in degrees; W > E is a box across 180 degrees."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--bbox is {text!r}; expected west,south,east,north in degrees, such as 30.24,50.21,30.83,50.59"
        ) from None
    edge = MAX_LATITUDE + 1e-4  # written with four decimals
    across = west < east or 0 < (east - west) % 360 < 180  # a wider box across 180 degrees is a mistake in the order
    if not (-180 <= west <= 180 and -180 <= east <= 180 and across and -edge <= south < north <= edge):
        raise UserError(
            f"--bbox {text}: expected west < east within 180 degrees (or west > east for a box across 180 "
            "degrees) and south < north within 85.05, where Web Mercator ends; the order is W,S,E,N"
        )
    return west, south, east, north


@contextlib.contextmanager
def _partial_folder(root: Path) -> Iterator[Path]:
    """A folder for unfinished files; removed at the end, also after an error, so that a full disk is not kept full."""
    folder = root / PARTIAL
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- which tiles -------------------------------------------------------------------------------------------


def choose_area(features: Features, style: Style, box: Box | None, zoom: int, extract: Path) -> tuple[TileArea, Box]:
    """The tiles to draw and the box that they fill: `box`, or the box of the objects if there is none.

    A box of more than `MAX_TILES` tiles shrinks to the objects in it, and if that is not enough, tiles that hold
    nothing are left out. Objects few and far from the rest are left out of the box; a warning names them.
    """
    drawn = np.unique(features.item_object)
    if not len(drawn):
        wrong = "; ".join(_geometry_lines(_geometry_report(features)))
        reason = f": {wrong}" if wrong else " that the style table draws"
        raise UserError(f"{extract} holds nothing{' that can be drawn' if wrong else ''}{reason}")
    if box is not None and tile_count(box, zoom) <= MAX_TILES:
        return TileArea.of_box(box, zoom), box
    bounds = features.bounds()[drawn]
    if box is not None:
        inside = np.array([boxes_overlap(_wrapped_box(row), box) for row in bounds.tolist()], dtype=bool)
        if not inside.any():
            raise UserError(f"the box {box_text(box)} holds nothing of {extract} that the style table draws")
        drawn, bounds = drawn[inside], bounds[inside]
    data, far = data_box(bounds, features.point_counts()[drawn], zoom)
    if len(far):
        shown = far[:NAMED_OBJECTS]
        west, south, east, north = bounds[shown].T
        lat = np.where(south < data[1], south, north)  # the end that lies outside
        lon = np.where(west < data[0], west, east)
        names = zip(features.names(drawn[shown]), lat, lon, strict=True)
        what = ", ".join(f"{name} at {y:.5f}, {x:.5f} (lat, lon)" for name, y, x in names)
        warn(
            f"the box leaves out what lies far from the rest, or reaches far beyond it ({len(far):,} objects): {what}"
            f"{', ...' if len(far) > len(shown) else ''}. --bbox W,S,E,N draws another box"
        )
    if box is not None:
        data = common_box(data, box)
        warn(
            f"the box {box_text(box)} holds {tile_count(box, zoom):,} tiles at zoom {zoom}, more than {MAX_TILES:,}; "
            f"drawing {box_text(data)}, where the objects are"
        )
    if tile_count(data, zoom) <= MAX_TILES:
        return TileArea.of_box(data, zoom), data
    area = TileArea.of_box(data, zoom, limit=GRID_LIMIT)
    near = near_tiles(area, np.diff(build_index(features, style, area).tile_start) > 0)
    warn(
        f"the box {box_text(data)} holds {tile_count(data, zoom):,} tiles at zoom {zoom}; drawing the "
        f"{len(near.tile_xy):,} that hold something or lie next to one that does"
    )
    return near, data


def _wrapped_box(bounds: list[float]) -> Box:
    west, south, east, north = bounds
    tiny = 1e-9  # so that a point has an inside
    return west - tiny, south - tiny, (east if east <= 180 else east - 360) + tiny, north + tiny


# --- manifest ----------------------------------------------------------------------------------------------

_IDENTITY = ("extract_digest", "zoom", "tile_px", "style_digest")  # tiles that differ in these do not mix


def _former_manifest(root: Path, identity: dict[str, Any], force: bool) -> dict[str, Any]:
    """The manifest of the tiles that are there, {} if there are none.

    Raises `UserError` if they are of another extract, style or size; with `force` they are removed.
    """
    path = root / MANIFEST_NAME
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        foreign = [name for name in LAYERS if any((root / name).glob("*/*/*.png"))]
        if foreign:
            raise UserError(
                f"{root} holds tiles of {foreign[0]} that were drawn by something else (no {MANIFEST_NAME}); "
                "name another --tiles_root"
            ) from None
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        former = {}
    former = former if isinstance(former, dict) else {}
    differing = [key for key in _IDENTITY if former.get(key) != identity[key]]
    if not differing:
        return former
    if not force:
        if not former:
            raise UserError(f"{root / MANIFEST_NAME} is damaged; --force draws the tiles again")
        what = ", ".join(f"{key} {former.get(key)} there, {identity[key]} now" for key in differing if former.get(key))
        raise UserError(
            f"{root} holds tiles drawn differently ({what}); name another --tiles_root, or --force redraws them"
        )
    for layer in LAYERS:
        shutil.rmtree(root / layer, ignore_errors=True)
    return {}


def _write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    with atomic_write(root / MANIFEST_NAME, "w") as file:
        json.dump(manifest, file, indent=2, ensure_ascii=False)
        file.write("\n")


def _finished(config: RenderConfig, former: dict[str, Any], box: Box | None) -> RenderReport | None:
    """The report of the run before, if there is nothing left to do."""
    asked = None if box is None else list(box)
    if config.force or not former.get("complete") or asked not in (former.get("asked_bbox"), former["bbox"]):
        return None
    if config.clip_boundary or former.get("clip_boundary") or tile_count(former["bbox"], config.zoom) > MAX_TILES:
        return None
    if config.labels and not _labels_are_there(config.labels, _labels_key(former)):
        return None
    area = TileArea.of_box(former["bbox"], config.zoom)
    if missing_tiles(config.tiles_root, area, False).any():
        return None
    return _report(former, area, 0, [])


def _report(manifest: dict[str, Any], area: TileArea, drawn: int, outputs: list[Path]) -> RenderReport:
    return RenderReport(
        area,
        drawn,
        tuple(manifest["bbox"]),
        manifest["layers"],
        manifest["broken_geometries"],
        manifest.get("repaired_geometries", {}),
        manifest.get("named_objects", {}),
        outputs,
    )


def _geometry_report(features: Features) -> dict[str, Any]:
    """What the manifest says about broken geometries: counts, and names of objects."""
    named = features.broken | features.repaired
    return {
        "broken_geometries": {what: len(names) for what, names in features.broken.items()},
        "repaired_geometries": {what: len(names) for what, names in features.repaired.items()},
        "named_objects": {what: names[:MANIFEST_OBJECTS] for what, names in named.items()},
    }


def _geometry_lines(manifest: dict[str, Any]) -> list[str]:
    """One phrase for each kind of broken geometry, with the first objects."""
    counts = manifest["broken_geometries"] | {
        f"repaired: {what}": count for what, count in manifest["repaired_geometries"].items()
    }
    lines = []
    for what, count in counts.items():
        names = manifest["named_objects"].get(what.removeprefix("repaired: "), [])
        more = ", ..." if count > NAMED_OBJECTS else ""
        lines.append(f"{count:,} {what} ({', '.join(names[:NAMED_OBJECTS])}{more})" if names else f"{count:,} {what}")
    return lines


def _layer_counts(inked: np.ndarray, style: Style, index: DrawIndex) -> dict[str, dict[str, int]]:
    """By layer: objects drawn, and tiles that show something, which `inked (N, 12) bool` tells."""
    drawn = np.unique(index.pair_item)
    layer = np.array([row.layer for row in style.classes])[index.item_class[drawn]]
    one_each = np.unique(np.stack([layer, index.osm_key[index.item_object[drawn]]], axis=1), axis=0)[:, 0]
    objects = np.bincount(one_each, minlength=len(LAYERS)).tolist()
    tiles = inked.sum(axis=0).tolist()
    return {name: {"objects": objects[i], "tiles": tiles[i]} for i, name in enumerate(LAYERS)}


# --- labels ------------------------------------------------------------------------------------------------


def write_labels(path: Path, table: pa.Table, key: str) -> None:
    """Write the table as Parquet; `key` identifies what it was made from."""
    table = table.replace_schema_metadata({"loc2vec": key, "attribution": ATTRIBUTION})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _labels_key(manifest: dict[str, Any]) -> str:
    return digest(*(manifest[key] for key in (*_IDENTITY, "bbox", "clip_boundary")))


def _labels_are_there(path: Path, key: str) -> bool:
    try:
        return (pq.read_schema(path).metadata or {}).get(b"loc2vec") == key.encode()
    except (OSError, pa.ArrowInvalid):
        return False


# --- command line ------------------------------------------------------------------------------------------


def print_report(config: RenderConfig, report: RenderReport) -> None:
    """Say on stdout what was done."""
    print(f"{report.tiles:,} tiles in {config.tiles_root}, {report.drawn:,} drawn now; box {box_text(report.box)}")
    for name, counts in report.layers.items():
        print(f"  {name:17} {counts['objects']:>9,} objects on {counts['tiles']:>7,} tiles")
    lines = _geometry_lines(
        {
            "broken_geometries": report.broken,
            "repaired_geometries": report.repaired,
            "named_objects": report.named,
        }
    )
    print(f"broken geometries: {'; '.join(lines) or 'none'}")
    for path in report.outputs:
        print(f"wrote {path}")
    print(ATTRIBUTION)


def main() -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("extract", nargs="?", type=Path, help="OpenStreetMap extract, such as CITY.osm.pbf")
    names = [field.name for field in dataclasses.fields(RenderConfig) if field.name != "cache_dir"]
    add_flags(parser, RenderConfig, only=names)
    config = read_flags(RenderConfig, parser.parse_args())
    print_report(config, render(config))


if __name__ == "__main__":
    run_main(main)
