"""The Python interface and the scikit-learn transformer, on a piece of the sample city."""

import pickle
import shutil
import subprocess
import sys

import geopandas
import h3
import numpy as np
import pandas as pd
import pytest
import shapely
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import location_encoder
import pretrained
import tile_images
from checkpoint import load_checkpoint
from cli import UserError
from conftest import REPO, save_untrained, script_env
from embeddings import LocationEmbedder, LocationEncoder
from osm_file import cut_extract
from render_tiles import SAMPLE_EXTRACT
from tile_grid import great_circle_km

BOX = (71.420, 51.124, 71.440, 51.134)
LAT, LON = [51.128, 51.1251, 51.1305], [71.43, 71.4213, 71.4381]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ground")
    cut_extract(SAMPLE_EXTRACT, (71.40, 51.11, 71.46, 51.145), folder / "city.osm.pbf")
    save_untrained(folder / "model.pth", 64, 16, architecture="multiscale")
    pretrained.save_pretrained(folder / "bundle", load_checkpoint(folder / "model.pth"))
    return folder


@pytest.fixture(scope="module")
def city(ground):
    return LocationEncoder.load(ground / "model.pth", device="cpu").read(ground / "city.osm.pbf", BOX, jobs=1)


@pytest.fixture
def embedder(ground):
    return LocationEmbedder(ground / "city.osm.pbf", model=ground / "model.pth", bbox=BOX, jobs=1, device="cpu")


# --- the encoder and its city ------------------------------------------------------------------------------


def test_the_bundled_encoder_is_one_call_away(ground, monkeypatch):
    monkeypatch.setattr(location_encoder, "PRETRAINED", ground / "bundle")
    assert LocationEncoder.pretrained().dimension == 16
    assert LocationEncoder.load(ground / "bundle").checkpoint.key() == LocationEncoder.pretrained().checkpoint.key()


def test_tiles_are_a_frame_with_vectors(city):
    tiles = city.tiles
    assert isinstance(tiles, geopandas.GeoDataFrame) and len(tiles) == 56 and tiles.crs.to_epsg() == 4326
    at = tiles.geometry.contains(shapely.Point(LON[0], LAT[0]))
    centre = tiles[at].iloc[0]
    found = city.embed(centre["latitude"], centre["longitude"])
    np.testing.assert_allclose(found[0], centre["embedding"], atol=2e-6)


def test_embed_takes_numbers_and_arrays(city):
    both = city.embed(LAT, LON)
    assert both.shape == (3, 16) and both.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(city.embed(LAT[1], LON[1]), both[1:2])
    outside = city.embed([LAT[0], 10, np.nan], [LON[0], 10, 71.43])
    assert np.isfinite(outside).all(axis=1).tolist() == [True, False, False]
    for lat, lon, message in ((10, 10, "not one of 1 rows"), (71.43, 51.128, "swapped"), (5e6, 3e5, "not degrees")):
        with pytest.raises(UserError, match=message):
            city.embed(lat, lon)


def test_frames_keep_their_kind_index_and_columns(city):
    plain = pd.DataFrame({"Lat": LAT, "Lng": LON, "e0": ["a", "b", "c"]}, index=[7, 8, 9])
    found = city.embed_frame(plain)
    assert type(found) is pd.DataFrame and list(found.index) == [7, 8, 9] and found["e0"].tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(found[["e0_", *[f"e{i}" for i in range(1, 16)]]], city.embed(LAT, LON))
    points = geopandas.GeoDataFrame({"id": [1, 2, 3]}, geometry=geopandas.points_from_xy(LON, LAT), crs="EPSG:4326")
    there = city.embed_frame(points.to_crs("EPSG:32642"))
    assert isinstance(there, geopandas.GeoDataFrame) and there.crs.to_epsg() == 32642
    np.testing.assert_allclose(there.filter(regex=r"^e\d+$"), city.embed(LAT, LON), atol=1e-3)


def test_rows_whose_index_repeats_stay_as_many(city):
    """`pd.concat` of two tables gives such an index."""
    plain = pd.DataFrame({"lat": LAT, "lon": LON}, index=[0, 1, 0])
    points = geopandas.GeoDataFrame(index=[0, 1, 0], geometry=geopandas.points_from_xy(LON, LAT), crs="EPSG:4326")
    for frame in (plain, points):
        found = city.embed_frame(frame)
        assert type(found) is type(frame) and list(found.index) == [0, 1, 0]
        np.testing.assert_array_equal(found.filter(regex=r"^e\d+$"), city.embed(LAT, LON))
    areas = city.embed_areas(points.set_geometry(shapely.buffer(points.geometry.to_numpy(), 0.001), crs=4326))
    assert isinstance(areas, geopandas.GeoDataFrame) and list(areas.index) == [0, 1, 0] and areas.crs == points.crs


def test_h3_cells_are_areas(city):
    cells = city.embed_h3(9)
    assert list(cells.index) == list(range(len(cells))) and (cells["tiles"] > 0).all() and len(cells) > 10
    again = city.embed_areas(cells[["h3", "geometry"]])
    pd.testing.assert_frame_equal(pd.DataFrame(cells), pd.DataFrame(again))
    for cell, outline in zip(cells["h3"], cells.geometry, strict=True):
        middle = shapely.Point(h3.cell_to_latlng(cell)[::-1])
        assert h3.get_resolution(cell) == 9 and outline.contains(middle)


def test_the_picture_shows_the_tiles_in_their_places(city):
    picture = np.asarray(city.picture(32))
    tiles = city.tiles
    assert picture.shape == (np.ptp(tiles["y"]) * 32 + 32, np.ptp(tiles["x"]) * 32 + 32, 3)
    row = 17
    left, top = (int(tiles[axis][row] - tiles[axis].min()) * 32 for axis in ("x", "y"))
    own = tile_images.pictures(city.city.pictures, np.array([row]), 32)[0]
    assert np.ptp(own) > 20
    np.testing.assert_array_equal(picture[top : top + 32, left : left + 32], own)


def test_areas_in_python(city):
    tile = city.tiles.iloc[[10]][["geometry"]].assign(name="a")
    found = city.embed_areas(tile)
    np.testing.assert_allclose(found.filter(regex=r"^e\d+$").to_numpy()[0], city.tiles["embedding"].iloc[10], atol=1e-4)
    assert found["share_covered"].iloc[0] == pytest.approx(1, abs=1e-6) and found["name"].tolist() == ["a"]


def test_similar_places_come_with_distances_and_reasons(city):
    found = city.similar(LAT[0], LON[0], k=5, min_km=0.5)
    assert len(found) == 5 and found["km"].min() >= 0.5 and found["distance"].is_monotonic_increasing
    vectors = np.stack(city.tiles["embedding"])
    rows = city.city.embeddings.rows(found[["x", "y"]].to_numpy())
    np.testing.assert_allclose(found["distance"], 1 - vectors[rows] @ city.embed(LAT[0], LON[0])[0], atol=1e-5)
    np.testing.assert_allclose(
        found["km"], great_circle_km(found[["lat", "lon"]].to_numpy(), np.array([LAT[0], LON[0]])), rtol=1e-6
    )
    assert found["link"].str.startswith("https://www.openstreetmap.org/").all()
    assert found["reasons"].str.contains(r"\+0\.").any()


@pytest.mark.slow
def test_a_script_needs_no_guard_for_its_processes(ground, tmp_path):
    (tmp_path / "script.py").write_text(
        "from embeddings import LocationEncoder\nprint('started')\n"
        f"city = LocationEncoder.load({str(ground / 'model.pth')!r}, device='cpu')"
        f".read({str(ground / 'city.osm.pbf')!r}, {BOX}, jobs=2)\nprint(city.embed(51.128, 71.43).shape)\n"
    )
    result = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=script_env({"PYTHONPATH": str(REPO)}), text=True,
        capture_output=True, timeout=280, check=True,
    )  # fmt: skip
    assert result.stdout.split("\n")[:2] == ["started", "(1, 16)"]


# --- scikit-learn ------------------------------------------------------------------------------------------


def test_the_transformer_in_a_pipeline_and_a_search(embedder, city):
    rng = np.random.default_rng(0)
    places = pd.DataFrame({"lat": rng.uniform(51.1245, 51.1335, 40), "lon": rng.uniform(71.4205, 71.4395, 40)})
    price = places["lat"] * 100 + rng.normal(size=40)
    model = make_pipeline(embedder, Ridge()).fit(places, price)
    np.testing.assert_array_equal(model[0].transform(places), city.embed(places["lat"], places["lon"]))
    assert model[0].get_feature_names_out().tolist() == [f"e{i}" for i in range(16)]
    search = GridSearchCV(make_pipeline(embedder, Ridge()), {"ridge__alpha": [0.1, 1, 10]}, cv=3).fit(places, price)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    frame = clone(embedder).set_output(transform="pandas").fit(places).transform(places)
    assert frame.shape == (40, 16) and frame.columns[0] == "e0"


def test_clones_and_pickles_give_the_same_vectors(embedder):
    places = np.column_stack([LAT, LON])
    expected = embedder.fit(places).transform(places)
    copied = clone(embedder)
    assert copied.get_params() == embedder.get_params() and not hasattr(copied, "dimension_")
    stored = pickle.loads(pickle.dumps(embedder))
    assert len(pickle.dumps(embedder)) < 10_000, "the city is not pickled with it"
    np.testing.assert_array_equal(stored.transform(places), expected)
    np.testing.assert_array_equal(copied.fit(places).transform(places), expected)


def test_a_model_that_was_trained_again_gives_its_own_vectors(ground, tmp_path):
    model, places = tmp_path / "model.pth", np.column_stack([LAT, LON])
    shutil.copy(ground / "model.pth", model)
    settings = {"model": model, "bbox": BOX, "jobs": 1, "device": "cpu"}
    before = LocationEmbedder(ground / "city.osm.pbf", **settings).fit_transform(places)
    save_untrained(model, 64, 16, architecture="multiscale", seed=5)
    after = LocationEmbedder(ground / "city.osm.pbf", **settings).fit_transform(places)
    assert np.abs(before - after).max() > 1e-3


def test_places_off_the_map_are_an_error_or_nan(embedder):
    places = pd.DataFrame({"lat": [LAT[0], 10.0], "lon": [LON[0], 10.0]})
    with pytest.raises(ValueError, match="1 of 2 places"):
        embedder.fit_transform(places)
    found = clone(embedder).set_params(outside="nan").fit_transform(places)
    assert np.isnan(found).all(axis=1).tolist() == [False, True]
    for alone in ([[10.0, 10.0]], [[np.nan, np.nan]]):
        with pytest.raises(ValueError, match="not one of 1 rows is on the map"):
            embedder.transform(alone)
        found = clone(embedder).set_params(outside="nan").fit_transform(alone)
        assert found.shape == (1, 16) and np.isnan(found).all()
    with pytest.raises(ValueError, match="expected 'error' or 'nan'"):
        clone(embedder).set_params(outside="drop").fit(places)
    with pytest.raises(ValueError, match="expected"):
        embedder.fit(np.zeros((3, 5)))
    with pytest.raises(UserError, match="no extract"):
        LocationEmbedder("absent.osm.pbf").fit(places)


CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_parameters_default_constructible",
    "check_valid_tag_types",
    "check_estimator_tags_renamed",
)


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_own_checks(embedder, name):
    """Those that do not fit: places are not random numbers."""
    getattr(estimator_checks, name)("LocationEmbedder", embedder)
