"""A thousand damaged or hostile tables, polygons, vector files and datasets: a sentence, or what they hold."""

import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from cli import UserError, WorkError
from dataset_search import open_dataset, tile_at
from exports import read_export
from label_tables import load_columns
from map_style import load_style
from test_dataset_search import CORNER, write_parts
from test_hardening import damage
from tile_grid import latlon_of_tile
from user_tables import read_places, read_polygons, write_frame
from vector_city import open_vectors
from vector_dataset import read_tiles

pytestmark = pytest.mark.slow

ROWS = 12
LAT, LON = np.linspace(51.12, 51.13, ROWS), np.linspace(71.42, 71.44, ROWS)
TILES = np.stack(np.meshgrid(np.arange(91520, 91528), np.arange(43776, 43784)), axis=-1).reshape(-1, 2)


def ending_of(work: Callable[[], object]) -> str:
    """`refused` with a sentence, or `read`; anything else is raised."""
    try:
        work()
    except (UserError, WorkError) as error:
        said = str(error)
        assert said and "Traceback" not in said and "\n" not in said.strip(), said
        return "refused"
    return "read"


def seeds(folder: Path) -> dict[str, bytes]:
    """One good file of each kind of table."""
    frame = pd.DataFrame({"name": [f"shop {i}" for i in range(ROWS)], "rent": np.arange(ROWS) * 1.5})
    points = geopandas.GeoDataFrame(frame, geometry=geopandas.points_from_xy(LON, LAT), crs="EPSG:4326")
    areas = geopandas.GeoDataFrame(frame, geometry=shapely.box(LON, LAT, LON + 0.01, LAT + 0.01), crs="EPSG:4326")
    frame.assign(lat=LAT, lon=LON).to_csv(folder / "a.csv", index=False)
    frame.assign(lat=LAT, lon=LON).to_csv(folder / "b.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    points.to_parquet(folder / "a.parquet")
    for name, table in (("points", points), ("areas", areas)):
        for suffix in (".geojson", ".gpkg", ".fgb", ".gml"):
            table.to_file(folder / f"{name}{suffix}")
    areas.to_parquet(folder / "areas.parquet")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".xsd"}


def check_places(path: Path) -> None:
    places = read_places(path)
    assert len(places.lat) == len(places.lon) == len(places.frame)
    known = np.isfinite(places.lat)
    assert (np.abs(places.lat[known]) <= 90).all() and (np.abs(places.lon[known]) <= 180).all()


def check_areas(path: Path) -> None:
    shapes = read_polygons(path).geometry.to_numpy()
    there = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    assert shapely.is_valid(there).all()


@pytest.mark.timeout(900)
def test_seven_hundred_damaged_tables_and_polygons(tmp_path, tally):
    """Damage to bytes: flipped bits, pieces overwritten or cut out, the end gone."""
    (tmp_path / "good").mkdir()
    rng, good = random.Random(7), seeds(tmp_path / "good")
    for name in good:
        (check_areas if name.startswith("areas") else check_places)(tmp_path / "good" / name)
    for turn in range(700):
        name = sorted(good)[turn % len(good)]
        path = tmp_path / f"bad{turn}{Path(name).suffix}"
        path.write_bytes(damage(good[name], rng))
        if turn % 5 == 0:
            work = lambda path=path: load_columns(path, TILES.astype(np.int32), 17)  # noqa: E731
        else:
            work = lambda path=path, name=name: (check_areas if name.startswith("areas") else check_places)(path)  # noqa: E731
        tally["damaged tables", ending_of(work)] += 1
        path.unlink()


HOSTILE = {
    "an endless cell": lambda: b"lat,lon,text\n51.12,71.42," + b"x" * 5_000_000 + b"\n",
    "ten thousand columns": lambda: (
        ",".join(["lat", "lon", *(f"c{i}" for i in range(10_000))]) + "\n" + ",".join(["51", "71", *["1"] * 10_000])
    ).encode(),
    "an open quote": lambda: b'lat,lon,text\n51.12,71.42,"' + b"a,b\n" * 20_000,
    "numbers without end": lambda: b"lat,lon\n" + b"9" * 5000 + b"," + b"1" * 5000 + b"\n",
    "infinities": lambda: b"lat,lon\ninf,nan\n-inf,1e400\n51.12,71.42\n",
    "nothing but separators": lambda: b",;,;,\n" * 200,
    "a name that is a path": lambda: b"lat,lon,../../etc/passwd\n51.12,71.42,1\n",
    "names of one kind": lambda: b"lat,lon,lat\n51.12,71.42,2\n",
    "an invisible name": lambda: "lat,lon,\u202eeman\u200b\n51.12,71.42,2\n".encode(),
    "zero bytes": lambda: b"lat,lon\n51.12,71.42\0\n",
    "half of a letter": lambda: b"lat,lon,name\n51.12,71.42,\xd0\n",
}
HOSTILE_JSON = {
    "deep nesting": "[" * 50_000,
    "a list": "[]",
    "no features": '{"type":"FeatureCollection","features":[]}',
    "a feature of nothing": '{"type":"FeatureCollection","features":[{"type":"Feature","geometry":null,'
    '"properties":{}}]}',
    "a pointer to another file": '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/vsicurl/http://127.0.0.1:9/'
    "a.geojson</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>",
    "coordinates of text": '{"type":"Point","coordinates":["a","b"]}',
    "three hundred degrees": '{"type":"Point","coordinates":[300,300]}',
    "a ring of one point": '{"type":"Polygon","coordinates":[[[71,51]]]}',
    "an endless number": '{"type":"Point","coordinates":[1e999,51]}',
    "names of objects": '{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Point",'
    '"coordinates":[71.42,51.12]},"properties":{"__proto__":{"x":1},"constructor":"y","":"z"}}]}',
}


@pytest.mark.parametrize("name", [*HOSTILE, *HOSTILE_JSON])
def test_a_table_that_somebody_made_on_purpose(name, tmp_path, tally):
    path = tmp_path / ("a.csv" if name in HOSTILE else "a.geojson")
    path.write_bytes(HOSTILE[name]() if name in HOSTILE else HOSTILE_JSON[name].encode())
    for work in (check_places, check_areas, lambda path: load_columns(path, TILES.astype(np.int32), 17)):
        tally["made on purpose", ending_of(lambda work=work: work(path))] += 1


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/http://127.0.0.1:9/a.geojson",
        "/vsizip/bomb.zip/a.geojson",
        "bomb.zip",
        "/dev/null",
        "-",
        "",
        "a\0.csv",
    ],
)
def test_names_that_are_no_files(name, tmp_path, monkeypatch, tally):
    """Neither the network nor an archive is opened because of a name."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.geojson", b" " * 50_000_000)
    for work in (read_places, read_polygons, read_export):
        ending = ending_of(lambda work=work: work(Path(name)))
        assert ending == "refused"
        tally["names that are no files", ending] += 1


def test_columns_of_any_name_and_content_are_written_to_every_format(tmp_path, tally):
    """HTML, formulas and paths are data: they come out as they went in, and no other file appears."""
    cells = ["=1+1", "<script>alert(1)</script>", "../../x", "a\nb", '"', "\u202e", "'; drop table tiles; --"]
    for turn, title in enumerate(["=cmd()", "<img src=x>", "../up", "geom", "fid", "vector_0", "e0", "", "a\nb"]):
        path = tmp_path / "in.csv"
        pd.DataFrame({"lat": LAT[:7], "lon": LON[:7], title: cells}).to_csv(path, index=False)
        places = read_places(path)
        for suffix in (".parquet", ".csv", ".geojson", ".gpkg", ".npy"):
            out = tmp_path / f"out{turn}" / f"a{suffix}"
            out.parent.mkdir(exist_ok=True)
            ending = ending_of(
                lambda places=places, out=out: write_frame(out, places.frame, np.zeros((7, 4), np.float32), places)
            )
            tally["columns of any name", ending] += 1
            if ending == "read" and suffix == ".csv" and title:
                back = pd.read_csv(out, keep_default_na=False, dtype=str)
                column = next(name for name in back if back[name].tolist()[:2] == cells[:2])
                assert back[column].tolist() == cells
    outside = {path.name for path in tmp_path.iterdir()} - {f"out{turn}" for turn in range(9)} - {"in.csv"}
    assert not outside


@pytest.mark.timeout(900)
def test_two_hundred_damaged_vector_files(tmp_path, tally):
    table = read_tiles(write(tmp_path / "made", [0]))
    pq.write_table(table.slice(0, 300), tmp_path / "city.parquet", compression="zstd", write_page_checksum=True)
    expected = read_export(tmp_path / "city.parquet")
    good, rng = (tmp_path / "city.parquet").read_bytes(), random.Random(3)
    for _ in range(200):
        (tmp_path / "bad.parquet").write_bytes(damage(good, rng))
        found = []
        ending = ending_of(lambda found=found: found.append(read_export(tmp_path / "bad.parquet")))
        for name, values in vars(found[0]).items() if found else ():
            np.testing.assert_array_equal(values, getattr(expected, name))
        tally["damaged vector files", ending] += 1
    for name, column in (("embedding", ["a"] * 300), ("zoom", [None] * 300), ("layer_intensity", [1.0] * 300)):
        table = pq.read_table(tmp_path / "city.parquet").drop_columns([name]).append_column(name, pa.array(column))
        pq.write_table(table, tmp_path / "bad.parquet")
        ending = ending_of(lambda: read_export(tmp_path / "bad.parquet"))
        assert ending == "refused"
        tally["vector files with other columns", ending] += 1


@pytest.mark.timeout(900)
def test_two_hundred_damaged_datasets(tmp_path, tally):
    """One file of the folder is damaged: a part, the manifest, the summary, or the index."""
    whole, rng = write(tmp_path / "made", [0, 1]), random.Random(5)
    open_dataset(whole)
    (lat, lon), folder = latlon_of_tile(CORNER + 0.5, 17), tmp_path / "bad"
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    expected = open_dataset(whole)
    vectors = tile_at(whole, tuple(expected.latlon(np.array([9]))[0])).vectors
    answer = expected.query(vectors, 5)[0]
    for turn in range(200):
        shutil.copytree(whole, folder)
        path = folder / files[turn % len(files)]
        path.write_bytes(damage(path.read_bytes(), rng))

        def search(path: Path = path) -> None:
            found = open_dataset(folder)
            if path.suffix in (".l2v", ".faiss"):  # an index is made again from the parts
                np.testing.assert_array_equal(found.tile_xy, expected.tile_xy)
                np.testing.assert_array_equal(found.query(vectors, 5)[0], answer)
            tile_at(folder, (lat, lon))
            read_tiles(folder)

        def view() -> None:
            tiles = open_vectors(folder, tmp_path / "cache")
            tiles.read(np.arange(len(tiles)))

        tally["damaged datasets in a viewer", ending_of(view)] += 1
        tally[f"damaged {path.suffix.removeprefix('.')} of a dataset", ending_of(search)] += 1
        shutil.rmtree(folder)


def write(folder: Path, numbers: list[int]) -> Path:
    write_parts(folder, numbers)
    return folder


@pytest.mark.timeout(300)
def test_a_hundred_damaged_style_tables(tmp_path, tally):
    good, rng = Path("map_style.toml").read_bytes(), random.Random(4)
    for _ in range(100):
        (tmp_path / "style.toml").write_bytes(damage(good, rng))
        tally["damaged style tables", ending_of(lambda: load_style(tmp_path / "style.toml"))] += 1
