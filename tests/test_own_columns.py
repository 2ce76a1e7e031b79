"""Columns of a user's table joined with tiles: by tile, by place, by shape."""

import json
from pathlib import Path

import numpy as np
import pytest

from cli import UserError
from colourings import COLOURINGS
from own_columns import MOST_CATEGORIES, NONE, column_colourings
from tile_grid import latlon_of_tile

ZOOM = 17
TILES = np.stack(np.meshgrid(np.arange(76600, 76604), np.arange(44200, 44203)), axis=-1).reshape(-1, 2)


def columns(*paths: Path) -> dict:
    return {one.key: one.values(None) for one in column_colourings(paths, TILES, ZOOM)}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_joined_by_tile_and_several_on_one_tile_count_together(tmp_path):
    path = written(
        tmp_path / "a.csv",
        "x,y,price,kind\n76601,44200,3,b\n76601,44200,5,a\n76601,44200,5,a\n76600,44201,1,b\n9,9,7,c\n",
    )
    found = columns(path)
    price, kind = found["price"], found["kind"]
    assert price.values[1] == pytest.approx(13 / 3) and price.values[4] == 1 and np.isnan(price.values[0])
    assert list(kind.names) == ["a", "b"] and kind.none == NONE  # c lies on no tile
    assert kind.values.tolist() == [-1, 0, -1, -1, 1] + [-1] * 7


def test_rows_are_joined_by_place_and_by_shape(tmp_path):
    lat, lon = latlon_of_tile(TILES[6] + 0.5, ZOOM)
    assert columns(written(tmp_path / "b.csv", f"lat,lon,n\n{lat},{lon},4\n"))["n"].values[6] == 4
    north, west = latlon_of_tile(np.array([76600.1, 44200.1]), ZOOM)
    south, east = latlon_of_tile(np.array([76601.9, 44200.9]), ZOOM)
    ring = [[west, north], [east, north], [east, south], [west, south], [west, north]]
    feature = {
        "type": "Feature",
        "properties": {"name": "old town"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    path = written(tmp_path / "c.geojson", json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert columns(path)["name"].values.tolist() == [0, 0] + [-1] * 10


def test_the_first_position_that_lies_on_a_tile_counts(tmp_path):
    """A table may have positions of other systems, too, such as metres in x and y."""
    lat, lon = latlon_of_tile(TILES[6] + 0.5, ZOOM)
    found = columns(written(tmp_path / "a.csv", f"id,x,y,lat,lon,n\n1,3393216.5,6528744.25,{lat},{lon},4\n"))
    assert list(found) == ["n"] and found["n"].values[6] == 4
    found = columns(written(tmp_path / "b.csv", f"x,y,geometry,n\n3393216.5,6528744,POINT ({lon} {lat}),4\n"))
    assert list(found) == ["n"] and found["n"].values[6] == 4
    feature = {
        "type": "Feature",
        "properties": {"x": 3393216.5, "y": 6528744.25, "n": 4},
        "geometry": {"type": "Point", "coordinates": [lon, lat]},
    }
    path = written(tmp_path / "c.geojson", json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert columns(path)["n"].values[6] == 4


def test_many_different_texts_are_no_categories(tmp_path):
    rows = "\n".join(f"76602,44202,note {number:03}" for number in range(MOST_CATEGORIES + 1))
    note = columns(written(tmp_path / "d.csv", f"x,y,note\n{rows}\n"))["note"]
    assert note.kind == "text" and note.values[10] == "note 000; note 001; note 002" and note.values[0] == ""


def test_names_that_are_taken_get_the_name_of_the_file(tmp_path):
    one = written(tmp_path / "one.csv", "x,y,zone,price\n76600,44200,1,2\n")
    two = written(tmp_path / "two.csv", "x,y,price\n76600,44200,5\n")
    found = columns(one, two)
    assert list(found) == ["zone (one)", "price", "price (two)"] and found["price (two)"].values[0] == 5
    assert not {colouring.key for colouring in COLOURINGS} & set(found)
    columns_of_exports = "x,y,lat,dominant_layer\n76600,44200,2,3\n"
    found = columns(written(tmp_path / "three.csv", columns_of_exports))
    assert list(found) == ["lat (three)", "dominant_layer (three)"]


@pytest.mark.parametrize(
    ("cells", "digits"),
    [(("3", "41"), 0), (("3.5", "41.25"), 2), (("0.5", "0.25"), 3), (("0.00042", "0.00018"), 6), (("0.0", "-0.0"), 2)],
)
def test_small_numbers_are_shown_with_three_figures(tmp_path, cells, digits):
    rows = "".join(f"{76600 + i},44200,{cell}\n" for i, cell in enumerate(cells))
    assert columns(written(tmp_path / "a.csv", f"x,y,n\n{rows}"))["n"].digits == digits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y,price\n1,2,3\n", "no row of .* lies on a tile"),
        ("x,y\n76600,44200\n", "no column of numbers or text"),
        ("street,price\nA,3\n", "expected the keys x and y, or lat and lon"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        columns(written(tmp_path / "e.csv", text))
