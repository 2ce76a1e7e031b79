"""A user's own table: every usual way of writing one is read, everything else gets a sentence that helps."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from cli import UserError
from user_tables import OUTPUTS, read_places, read_polygons, rows_inside, write_frame

LAT, LON = [51.128, 51.131, 51.14], [71.43, 71.42, 71.41]
BOX = (71.3, 51.0, 71.6, 51.3)

HEADERS = [
    ("lat", "lon"), ("Lat", "Lng"), ("LATITUDE", "LONGITUDE"), ("latitude", "long"), ("Y", "X"), ("широта", "довгота"),
    ("широта", "долгота"), (" lat ", " lon "), ("geo_lat", "geo_lon"),
]  # fmt: skip


def table(names: tuple[str, str], separator: str, decimal: str = ".") -> str:
    rows = [
        f"{i}{separator}{str(a).replace('.', decimal)}{separator}{str(b).replace('.', decimal)}"
        for i, (a, b) in enumerate(zip(LAT, LON, strict=True))
    ]
    return "\n".join([separator.join(["id", *names]), *rows]) + "\n"


@pytest.mark.parametrize("names", HEADERS, ids="-".join)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
def test_csv_with_any_usual_header_and_separator(tmp_path, names, separator):
    path = tmp_path / "shops.csv"
    path.write_text(table(names, separator), encoding="utf-8")
    places = read_places(path)
    np.testing.assert_allclose(places.lat, LAT)
    np.testing.assert_allclose(places.lon, LON)
    assert places.frame["id"].tolist() == [0, 1, 2] and rows_inside(places, BOX).all()


def test_a_csv_may_begin_with_empty_lines(tmp_path):
    (tmp_path / "shops.csv").write_text("\n\r\n" + table(("lat", "lon"), ","))
    assert read_places(tmp_path / "shops.csv").lat.tolist() == LAT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251", "utf-16"])
def test_csv_in_any_usual_encoding(tmp_path, encoding):
    path = tmp_path / "магазини.csv"
    path.write_bytes("назва;широта;довгота\nХліб;51,128;71,43\n".encode(encoding))
    places = read_places(path)
    assert places.frame["назва"].tolist() == ["Хліб"]
    assert (places.lat[0], places.lon[0]) == (51.128, 71.43)


def test_quoted_line_breaks_codes_and_empty_cells_survive(tmp_path):
    path = tmp_path / "shops.csv"
    path.write_text(
        'code,name,lat,lon,note\n0042,"a ""b""\nc",51.1,71.4,\n0043,d,,,x\n0044,e,abc,71.4,y\n0045,f,91,71.4,z\n'
    )
    places = read_places(path)
    assert places.frame["code"].tolist() == ["0042", "0043", "0044", "0045"]
    assert places.frame["name"][0] == 'a "b"\nc'
    assert np.isfinite(places.lat).tolist() == [True, False, False, False]
    assert (places.missing, places.impossible, len(places)) == (2, 1, 4)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".parquet"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32642", "EPSG:3857"])
def test_files_with_geometries_in_any_system(tmp_path, suffix, crs):
    frame = geopandas.GeoDataFrame(
        {"rent": [1.5, 2.5, 3.5]}, geometry=geopandas.points_from_xy(LON, LAT), crs="EPSG:4326"
    )
    path = tmp_path / f"flats{suffix}"
    frame = frame.to_crs("EPSG:4326" if suffix == ".geojson" else crs)
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    places = read_places(path)
    np.testing.assert_allclose(places.lat, LAT, atol=1e-8)
    assert places.frame["rent"].tolist() == [1.5, 2.5, 3.5]


def test_plain_parquet_wkt_and_metres_with_crs(tmp_path):
    pd.DataFrame({"lat": LAT, "lng": LON}).to_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(read_places(tmp_path / "a.parquet").lon, LON)
    (tmp_path / "b.csv").write_text("id,wkt\n1,POINT (71.43 51.128)\n2,\n")
    assert read_places(tmp_path / "b.csv").missing == 1
    utm = geopandas.GeoSeries(geopandas.points_from_xy(LON, LAT), crs="EPSG:4326").to_crs("EPSG:32642")
    (tmp_path / "c.csv").write_text("x,y\n" + "".join(f"{p.x},{p.y}\n" for p in utm))
    with pytest.raises(UserError, match="--crs"):
        read_places(tmp_path / "c.csv")
    np.testing.assert_allclose(read_places(tmp_path / "c.csv", crs="EPSG:32642").lat, LAT, atol=1e-8)


BAD = {
    "missing.csv": (None, "no file at"),
    "empty.csv": (b"", "no rows|not a regular"),
    "header.csv": (b"lat,lon\n", "no rows"),
    "names.csv": (b"a,b\n1,2\n", "--lat COLUMN"),
    "words.csv": (b"lat,lon\nhere,there\n", "expected numbers"),
    "ragged.csv": (b"lat,lon\n1,2\n1,2,3,4\n", "not a regular CSV"),
    "binary.csv": (bytes(range(256)) * 4, "not text"),
    "page.geojson": (b"<html>404</html>", "cannot be read"),
    "half.parquet": (b"PAR1 no", "cannot be read"),
    "table.xlsx": (b"PK", "expected .csv"),
    "metres.csv": (b"y,x\n6640000,520000\n", "not degrees"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_a_sentence(tmp_path, name):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_places(tmp_path / name)


def test_swapped_and_distant_rows_are_told_apart(tmp_path):
    path = tmp_path / "swapped.csv"
    path.write_text("lat,lon\n71.43,51.128\n")
    with pytest.raises(UserError, match="swapped"):
        rows_inside(read_places(path), BOX)
    path.write_text("lat,lon\n50.45,30.52\n")
    with pytest.raises(UserError, match="not one of 1 rows"):
        rows_inside(read_places(path), BOX)
    path.write_text("lat,lon\n50.45,30.52\n51.128,71.43\n")
    assert rows_inside(read_places(path), BOX).tolist() == [False, True]


def test_a_box_across_180_degrees(tmp_path):
    (tmp_path / "a.csv").write_text("lat,lon\n-17,179.9\n-17,-179.9\n-17,0\n")
    assert rows_inside(read_places(tmp_path / "a.csv"), (179, -18, -179, -16)).tolist() == [True, True, False]


def test_polygons_are_repaired_and_lines_refused(tmp_path):
    bowtie = shapely.Polygon([(71, 51), (71.1, 51.1), (71.1, 51), (71, 51.1)])
    geopandas.GeoDataFrame({"name": ["a"]}, geometry=[bowtie], crs="EPSG:4326").to_crs("EPSG:3857").to_file(
        tmp_path / "a.gpkg"
    )
    found = read_polygons(tmp_path / "a.gpkg")
    assert found.geometry.is_valid.all() and found["name"].tolist() == ["a"]
    np.testing.assert_allclose(found.total_bounds, [71, 51, 71.1, 51.1], atol=1e-6)
    geopandas.GeoDataFrame(geometry=[shapely.LineString([(0, 0), (1, 1)])], crs="EPSG:4326").to_file(
        tmp_path / "b.geojson"
    )
    with pytest.raises(UserError, match="expected polygons"):
        read_polygons(tmp_path / "b.geojson")


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_outputs_keep_rows_columns_and_order(tmp_path, suffix):
    (tmp_path / "in.csv").write_text("code;name;lat;lon\n007;Кава;51,128;71,43\n008;b;;\n")
    places = read_places(tmp_path / "in.csv")
    vectors = np.array([[0.25, -0.5], [np.nan, np.nan]])
    path = tmp_path / f"out{suffix}"
    write_frame(path, places.frame, vectors, places)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(path), vectors.astype(np.float32))
        return
    if suffix == ".csv":
        back = pd.read_csv(path, dtype={"code": str})
    elif suffix == ".parquet":
        back = pd.read_parquet(path)
    else:
        back = geopandas.read_file(path)
    assert back["code"].tolist() == ["007", "008"] and back["name"].tolist() == ["Кава", "b"]
    first = back[["e0", "e1"]].iloc[0].tolist() if "e0" in back else list(back["embedding"][0])
    assert first == [0.25, -0.5]
    assert back["e0"].isna()[1] if "e0" in back else back["embedding"][1] is None


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".geojson", ".gpkg"])
def test_own_numbers_are_written_as_they_were_read(tmp_path, suffix):
    lines = ["id,code,price,lat,lon", "1234567890,9007199254740993,1234567.25,51.12345678,71.43", "9,,2.5,51.1,71.4"]
    (tmp_path / "in.csv").write_text("\n".join([*lines, ",5,0.5,51.1,71.4"]) + "\n")
    places = read_places(tmp_path / "in.csv")
    vectors = np.array([[0.1], [1 / 3], [np.nan]], dtype=np.float32)
    write_frame(tmp_path / f"out{suffix}", places.frame, vectors, places)
    if suffix == ".csv":
        written = (tmp_path / "out.csv").read_text().splitlines()
        assert written[1] == lines[1] + ",0.1" and written[2].startswith("9,,2.5,51.1,71.4,0.33333")
    back = read_places(tmp_path / f"out{suffix}").frame
    assert back["id"].fillna(-1).tolist() == [1234567890, 9, -1]
    assert back["price"].tolist() == [1234567.25, 2.5, 0.5] and back["lat"][0] == 51.12345678


def test_unknown_output_endings_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected one of"):
        write_frame(tmp_path / "out.xlsx", pd.DataFrame({"a": [1]}), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (["-", "5", "7.5"], ["-", "5", "7.5"]),
        (["E40", "E95", "E1"], ["E40", "E95", "E1"]),
        (["12345678901234567890", "1", "2"], ["12345678901234567890", "1", "2"]),
        (["-.5", "1e3", "+2"], [-0.5, 1000.0, 2.0]),
    ],
)
def test_only_numbers_become_numbers(tmp_path, cells, kept):
    rows = [f"{cell},{lat},{lon}" for cell, lat, lon in zip(cells, LAT, LON, strict=True)]
    (tmp_path / "in.csv").write_text("\n".join(["road,lat,lon", *rows]))
    places = read_places(tmp_path / "in.csv")
    assert places.frame["road"].tolist() == kept
    write_frame(tmp_path / "out.parquet", places.frame, np.ones((3, 2)), places)
    assert pd.read_parquet(tmp_path / "out.parquet")["road"].tolist() == kept


def test_a_separator_at_the_end_of_every_row_moves_nothing(tmp_path):
    rows = [f"{lat},{lon},{i}," for i, (lat, lon) in enumerate(zip(LAT, LON, strict=True))]
    (tmp_path / "in.csv").write_text("\n".join(["lat,lon,price", *rows]))
    places = read_places(tmp_path / "in.csv")
    assert places.lat.tolist() == LAT and places.frame["price"].tolist() == [0, 1, 2]
    (tmp_path / "in.csv").write_text("\n".join(["lat,lon,price", *(row + "x" for row in rows)]))
    with pytest.raises(UserError, match="more cells than the header has names"):
        read_places(tmp_path / "in.csv")


@pytest.mark.parametrize(("crs", "scale"), [("EPSG:4284", 1.0), ("EPSG:4807", 10 / 9)])
def test_degrees_of_another_system_are_converted(tmp_path, crs, scale):
    """Pulkovo 1942 lies some metres beside WGS 84; the French system counts in grads from Paris."""
    lat, lon = [48.86, 48.87], [1.5, 1.6]
    pd.DataFrame({"lat": np.multiply(lat, scale), "lon": np.multiply(lon, scale)}).to_csv(tmp_path / "a.csv")
    found = read_places(tmp_path / "a.csv", crs=crs)
    points = geopandas.GeoSeries(geopandas.points_from_xy(np.multiply(lon, scale), np.multiply(lat, scale)), crs=crs)
    expected = points.to_crs("EPSG:4326")
    np.testing.assert_allclose([found.lat, found.lon], [expected.y, expected.x], atol=1e-9)
    assert np.abs(found.lon - lon).min() > 1e-5


def test_a_wrong_system_of_polygons_gets_a_sentence(tmp_path):
    (tmp_path / "a.csv").write_text('name;wkt\na;"POLYGON ((71 51, 71.1 51, 71.1 51.1, 71 51))"\n')
    with pytest.raises(UserError, match="not a coordinate reference system"):
        read_polygons(tmp_path / "a.csv", crs="foo")


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_columns_that_a_format_cannot_hold_are_renamed(tmp_path, suffix):
    points = geopandas.points_from_xy(LON, LAT, crs="EPSG:4326")
    frame = geopandas.GeoDataFrame({"ID": [1, 2, 3], "id": [4, 5, 6], "E0": [7, 8, 9]}, geometry=points)
    frame = frame.rename_geometry("geom").assign(home=points)
    write_frame(tmp_path / f"out{suffix}", frame, np.full((3, 2), 0.5))
    back = geopandas.read_file(tmp_path / f"out{suffix}")
    assert back["ID"].tolist() == [1, 2, 3] and back["E0"].tolist() == [7, 8, 9]
    assert back["home"][0].startswith("POINT") and back.geometry.x.tolist() == LON
    if suffix == ".gpkg":
        assert back["id_"].tolist() == [4, 5, 6] and back["e0_"].tolist() == [0.5] * 3


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_durations_and_half_precision_are_written(tmp_path, suffix):
    table = pd.DataFrame({"wait": pd.to_timedelta(["90s", None]), "half": np.array([0.5, 2], np.float16)})
    frame = geopandas.GeoDataFrame(table, geometry=shapely.points([71.0, 71.1], [51.0, 51.1]), crs=4326)
    write_frame(tmp_path / f"out{suffix}", frame, np.ones((2, 3)))
    back = geopandas.read_file(tmp_path / f"out{suffix}")
    assert back["wait"][0] == 90 and np.isnan(back["wait"][1]) and back["half"].tolist() == [0.5, 2]
