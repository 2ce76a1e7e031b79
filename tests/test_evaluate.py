"""evaluate.py: the protocol is the one that is claimed, the figures are right, and a user's tables are understood."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats
from shapely import box
from sklearn.linear_model import Ridge

import baselines
import evaluate
import exports
import hex2vec_vectors
import label_tables
import probes
import quality_report
import vector_space
from checkpoint import Checkpoint
from cli import TilesFlags, UserError
from conftest import REPO, made_up_embeddings, make_tiles, save_untrained
from data_loader import TripletSampler
from layers import LAYERS
from similarity import unit
from tile_grid import blocks_of, latlon_of_tile, tile_of_latlon
from tile_store import open_store
from train_config import make_config, split_city, unseen_tiles
from vectors import rank_me

X0, Y0 = 76600, 44200


def grid(nx: int, ny: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(X0, X0 + nx), np.arange(Y0, Y0 + ny), indexing="ij")
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.int32)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """36 x 30 tiles, two untrained checkpoints, and labels that the tiles partly explain."""
    folder = tmp_path_factory.mktemp("city")
    tiles = make_tiles(folder / "tiles", nx=36, ny=30, px=32)
    for name, seed in (("a", 0), ("b", 1)):
        save_untrained(folder / f"{name}.pth", seed=seed)
    store = open_store(tiles, 32, cache_dir=folder / "cache", num_workers=0)
    mass, rng = store.layer_intensity, np.random.default_rng(0)
    built = mass[:, LAYERS.index("buildings")]
    columns = {"x": store.tile_xy[:, 0], "y": store.tile_xy[:, 1]}
    columns["addresses"] = rng.poisson(200 * built)
    columns["levels"] = pa.array(
        np.where(built > 0, 2 + 40 * built + rng.normal(size=len(built)), np.nan), from_pandas=True
    )
    columns["rare"] = (np.arange(len(built)) < 20).astype(int)
    columns["landuse"] = np.where(mass[:, LAYERS.index("landcover")] > 0.1, "park", "none")
    columns |= {f"drawn:{layer}": (100 * mass[:, i]).astype(int) for i, layer in enumerate(LAYERS)}
    columns |= {f"drawn:buildings:house{i}": rng.poisson(50 * built) for i in range(20)}
    pq.write_table(pa.table(columns), folder / "labels.parquet")
    return {"folder": folder, "tiles": tiles, "labels": folder / "labels.parquet", "cache": folder / "cache"}


def flags(city: dict[str, Path], *more: object) -> list[object]:
    return ["--tiles_root", city["tiles"], "--cache_dir", city["cache"], "--labels", city["labels"], *more]


# --- the protocol ------------------------------------------------------------------------------------------


def test_blocks_stay_whole_and_training_keeps_two_tiles_away():
    xy = grid(60, 50)
    folds = probes.blocked_folds(xy, 42)
    for block in np.unique(blocks_of(xy, 12)):
        assert len(np.unique(folds.fold[blocks_of(xy, 12) == block])) == 1
    for train, test in folds.parts():
        assert test.sum() > 0.1 * len(xy)
        assert np.abs(xy[train][:, None] - xy[test][None]).max(axis=-1).min() == 3


def test_every_fold_gets_labels_where_they_are_few():
    xy = grid(96, 96)
    rich = np.where((xy - (X0, Y0) < 36).all(axis=1), 1.0, 0.0)  # nine blocks in one corner know something
    for seed in range(3):
        folds = probes.blocked_folds(xy, seed, rich)
        assert (np.bincount(folds.fold[rich > 0], minlength=5) > 0).all()


def test_an_area_of_few_blocks_is_refused():
    with pytest.raises(UserError, match="5 are needed"):
        probes.blocked_folds(grid(20, 20), 42)


def test_standardising_never_sees_the_test_part():
    rng = np.random.default_rng(0)
    vectors, train = rng.normal(size=(100, 5)), np.arange(100) < 60
    other = np.where(train[:, None], vectors, 1000.0)
    np.testing.assert_array_equal(probes.standardise(vectors, train)[train], probes.standardise(other, train)[train])


def test_random_folds_leak_what_blocked_folds_do_not():
    xy = grid(60, 60)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 6)).repeat(10, 0).repeat(10, 1).reshape(-1)  # a label that only place explains
    target = label_tables.Target("noise", noise)
    place = probes.Candidate("place", baselines.coordinate_waves(xy, 256, 0))
    figures = evaluate.probe_figures(place, [target], probes.blocked_folds(xy, 1), probes.random_folds(len(xy), 1))
    value = {(f.name, f.split): f.value for f in figures}
    assert value["ridge R2", "random"] > 0.4
    assert value["ridge R2", "blocked"] < 0.1


# --- probes ------------------------------------------------------------------------------------------------


def test_ridge_is_sklearns_for_every_penalty():
    rng = np.random.default_rng(0)
    x, y, x_test = rng.normal(size=(80, 12)), rng.normal(size=(80, 3)), rng.normal(size=(20, 12))
    x -= x.mean(axis=0)
    found = probes.ridge_all(x, y, x_test)
    for alpha, predicted in zip(probes.ALPHAS, found, strict=True):
        np.testing.assert_allclose(predicted, Ridge(alpha=alpha * len(x)).fit(x, y).predict(x_test), atol=1e-6)


def test_probes_find_what_is_there_and_nothing_else():
    xy = grid(60, 60)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(xy), 16))
    folds = probes.blocked_folds(xy, 0)
    values = np.stack([vectors[:, 0] + 0.5 * rng.normal(size=len(xy)), rng.normal(size=len(xy))], axis=1)
    ridge = probes.ridge_scores(vectors, values, folds).mean(axis=0)
    assert ridge[0] == pytest.approx(0.8, abs=0.03)  # 1 / (1 + 0.25)
    assert abs(ridge[1]) < 0.03
    assert probes.knn_scores(vectors[:, :2], values, folds).mean(axis=0)[0] > 0.6
    codes = vectors[:, :3].argmax(axis=1)
    assert probes.logistic_scores(vectors, codes, folds).min() > 0.9


def test_cosine_neighbours_compare_directions_alone():
    """However long each vector is, its neighbours by cosine are the same."""
    xy = grid(60, 60)
    rng = np.random.default_rng(0)
    vectors, longer = unit(rng.normal(size=(len(xy), 4))), 10 ** rng.uniform(-2, 2, (len(xy), 1))
    values, codes, folds = vectors[:, :1], (vectors[:, 0] > 0).astype(int), probes.blocked_folds(xy, 0)
    for scores, labels in ((probes.knn_scores, values), (probes.knn_class_scores, codes)):
        found = scores(vectors, labels, folds, "cosine")
        assert found.min() > 0.9
        np.testing.assert_allclose(scores(vectors * longer, labels, folds, "cosine"), found, atol=1e-3)
    assert probes.knn_scores(vectors * longer, values, folds, "standardised").mean() < 0.98


def test_a_quarter_without_variance_does_not_outweigh_the_others():
    truth, predicted = np.array([[1.0], [1.0]]), np.array([[1.1], [0.9]])
    assert probes.r2(truth, predicted, np.array([4.0])) == pytest.approx(1 - 0.01 / 4)


def test_a_label_on_some_tiles_is_probed_on_those_alone():
    xy = grid(60, 60)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(xy), 4))
    values = np.where(rng.random(len(xy)) < 0.2, vectors[:, 0], np.nan)
    figures = evaluate.probe_figures(
        probes.Candidate("v", vectors),
        [label_tables.Target("some", values)],
        probes.blocked_folds(xy, 0),
        probes.random_folds(len(xy), 0),
    )
    assert min(f.value for f in figures if f.name == "ridge R2") > 0.99


# --- the space ---------------------------------------------------------------------------------------------


def test_rankme_counts_equal_axes():
    vectors = np.zeros((600, 32), dtype=np.float32)
    vectors[np.arange(600), np.arange(600) % 6] = 1
    assert rank_me(vectors) == pytest.approx(6, abs=0.01)


def test_triplets_are_near_and_far():
    xy = grid(40, 30)
    anchor, positive, negative = xy[vector_space.draw_triplets(xy, np.random.default_rng(0)).T]
    near, far = np.abs(anchor - positive).max(axis=1), np.abs(anchor - negative).max(axis=1)
    assert near.min() >= 1
    assert near.max() == 2
    assert far.min() == 10


def test_triplet_accuracy_of_places_is_one_and_of_noise_a_half():
    xy = grid(40, 40)
    parts = [np.arange(len(xy)), np.flatnonzero(xy[:, 0] < X0 + 20)]
    assert vector_space.triplet_accuracies(xy.astype(np.float32), xy, parts, 0).min() > 0.99
    noise = np.random.default_rng(0).normal(size=(len(xy), 32)).astype(np.float32)
    np.testing.assert_allclose(vector_space.triplet_accuracies(noise, xy, parts, 0), 0.5, atol=0.04)
    assert np.isnan(vector_space.triplet_accuracies(noise, xy, [np.arange(5)], 0)).all()  # nothing lies ten tiles away


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_what_an_encoder_never_saw_is_known_from_its_checkpoint(city, jitter):
    """A tile counts as never trained on only if no training window, however jittered, shows a pixel of it."""
    store = open_store(city["tiles"], 32, cache_dir=city["cache"])
    config = make_config(jitter=jitter, val_share=0.2, seed=7, loss_type="ntxent" if jitter else "softpn")
    own = Checkpoint({}, {}, train_config=config.flat(), train_state={"tiles": store.content_key})
    trained, validated = split_city(store, config)
    unseen = unseen_tiles(store, own)
    assert unseen[validated].all() and not unseen[trained].any()
    sampler = TripletSampler(store, 2, 10, rows=trained)
    shown = store.tile_xy[sampler.epoch(0, 4000)].astype(float)  # (B, 3, 2)
    if jitter:
        shown = sampler.windows(sampler.epoch(0, 4000), jitter, 32, np.random.default_rng(0)) / 32
    distance = np.abs(store.tile_xy[unseen][:, None] - shown.reshape(1, -1, 2)).max(axis=2)
    assert distance.min() >= 1  # no window [xy, xy + 1) overlaps an unseen tile
    other = Checkpoint({}, {}, train_config=config.flat(), train_state={"tiles": "another"})
    assert unseen_tiles(store, other).all()


def test_far_neighbours_are_the_nearest_of_those_beyond_two_kilometres():
    xy = grid(30, 30)
    latlon = latlon_of_tile(xy, 17)
    vectors = np.random.default_rng(0).normal(size=(len(xy), 6)).astype(np.float32)
    found = vector_space.far_neighbours(vectors, latlon)
    place = np.radians(latlon)
    for row in (0, 250, 899):
        a = np.sin((place[:, 0] - place[row, 0]) / 2) ** 2
        b = np.cos(place[:, 0]) * np.cos(place[row, 0]) * np.sin((place[:, 1] - place[row, 1]) / 2) ** 2
        km = 2 * 6371 * np.arcsin(np.sqrt(a + b))
        assert km[found[row]].min() > 1.98
        away = np.where(km > 2.02, np.square(vectors - vectors[row]).sum(axis=1), np.inf)
        assert len(set(np.argsort(away)[:10]) & set(found[row])) >= 9


def test_agreement_is_zero_by_chance_and_one_for_equals():
    xy = grid(40, 40)
    labels = np.random.default_rng(0).integers(0, 3, len(xy)).astype(float)
    alike = np.eye(3, dtype=np.float32)[labels.astype(int)]
    noise = np.random.default_rng(1).normal(size=(len(xy), 8)).astype(np.float32)
    for classes in ((), ("a", "b", "c")):
        target = label_tables.Target("label", labels, classes)
        for vectors, expected, tolerance in ((alike, 1, 1e-6), (noise, 0, 0.03)):
            far = vector_space.far_neighbours(vectors, latlon_of_tile(xy, 17))
            assert vector_space.agreement(target, far, 0) == pytest.approx(expected, abs=tolerance)


# --- baselines ---------------------------------------------------------------------------------------------


def test_means_over_neighbours_leave_out_what_lies_beyond_the_data(city):
    store = open_store(city["tiles"], 32, cache_dir=city["cache"])
    values = np.random.default_rng(0).normal(size=(len(store), 2))
    found = baselines.with_neighbours(store, values)
    assert found.shape == (len(store), 6)
    for place in ((X0, Y0), (X0 + 35, Y0 + 10), (X0 + 17, Y0 + 11)):
        (row,) = store.grid.rows(np.array([place]))
        away = np.abs(store.tile_xy - place).max(axis=1)
        expected = [values[row], values[away <= 1].mean(axis=0), values[away <= 3].mean(axis=0)]
        np.testing.assert_allclose(found[row], np.concatenate(expected))


def test_shapes_are_measured_layer_by_layer(tmp_path):
    """Two squares of 4 x 4 and 8 x 8 pixels on one layer of a 32 px tile; the other eleven are blank."""
    plane = np.zeros((32, 32), np.uint8)
    plane[2:6, 2:6], plane[10:18, 10:18] = 255, 51
    blank = np.zeros_like(plane)
    for layer in LAYERS:
        folder = tmp_path / "tiles" / layer / "17" / str(X0)
        folder.mkdir(parents=True)
        Image.fromarray(plane if layer == "buildings" else blank).save(folder / f"{Y0}.png")
    store = baselines.open_sharp(open_store(tmp_path / "tiles", 16, cache_dir=tmp_path), tmp_path)
    assert store.tile_size == 32  # the size of the files
    (numbers,) = baselines.shape_statistics(store).reshape(1, 12, 5)
    buildings = [80 / 1024, 48 / 32, np.log(3), (16 + 64 / 5) / 1024, 64 / 1024]
    np.testing.assert_allclose(numbers[LAYERS.index("buildings")], buildings, rtol=1e-5)
    assert not np.delete(numbers, LAYERS.index("buildings"), axis=0).any()


def test_sharp_tiles_are_found_whatever_their_files_are_called(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", nx=3, ny=3, px=64)
    (tiles / "natural-features").rename(tiles / "natural_features")
    for path in tiles.rglob("*.png"):
        image = Image.open(path)
        image.save(path.with_name(f"{2**17 - 1 - int(path.stem)}@2x.webp"), lossless=True)
        path.unlink()
    store = open_store(tiles, 32, cache_dir=tmp_path / "cache", num_workers=0, tms=True)
    sharp = baselines.open_sharp(store, tmp_path / "cache")
    assert sharp.tile_size == 64 and sharp.tile_xy.tolist() == store.tile_xy.tolist()


def test_principal_components_are_cut_and_not_rotated():
    vectors = np.random.default_rng(0).normal(size=(50, 20)) * np.arange(20, 0, -1)
    whole = probes.Candidate("PCA of pixels", baselines.principal(vectors, 10))
    np.testing.assert_array_equal(baselines.cut_to(whole, 4).vectors, whole.vectors[:, :4])


# --- differences -------------------------------------------------------------------------------------------


def test_the_paired_test_is_the_corrected_one():
    values = np.array([0.1, 0.12, 0.05, 0.2, 0.09])
    t = values.mean() / np.sqrt((1 / 5 + 1 / 4) * values.var(ddof=1))
    assert probes.corrected_p(values) == pytest.approx(2 * stats.t.sf(t, 4))
    assert probes.corrected_p(values) > stats.ttest_1samp(values, 0).pvalue  # folds share training tiles


def test_differences_are_taken_fold_by_fold():
    figures = [
        quality_report.Figure("ridge R2", name, np.array(folds), label, "blocked")
        for name, label, folds in [
            ("a", "l", [1.0, 3.0]),
            ("b", "l", [0.5, 1.5]),
            ("a", "m", [0, 0]),
            ("b", "m", [1, 1]),
        ]
    ]
    targets = [label_tables.Target("l", np.zeros(1)), label_tables.Target("m", np.zeros(1))]
    targets.append(label_tables.Target("n", np.zeros(1), drawn=True))  # the other group: not in this mean
    figures += [quality_report.Figure("ridge R2", name, np.array([9.0, 9.0]), "n", "blocked") for name in "ab"]
    report = quality_report.Report(["a", "b"], targets, figures, {"evaluated": 1}, ["b"])
    found = {d.label: d.folds.tolist() for d in report.differences("ridge R2", drawn=False)}
    assert found == {"l": [0.5, 1.5], "m": [-1, -1], "mean": [-0.25, 0.25]}
    assert {d.label for d in report.differences("ridge R2", drawn=True)} == {"n", "mean"}


# --- tables of the user's ----------------------------------------------------------------------------------


def test_points_by_latitude_and_longitude_are_averaged_in_their_tile(tmp_path):
    xy = grid(20, 20)
    middle = latlon_of_tile(xy + 0.5, 17).repeat(2, axis=0)
    value = np.arange(len(xy)).repeat(2) + np.tile([0.25, 0.75], len(xy))
    table = pa.table({"lat": middle[:, 0], "lon": middle[:, 1], "price": value})
    pyarrow.csv.write_csv(table, tmp_path / "prices.csv")
    (target,), drawn = label_tables.read_labels(tmp_path / "prices.csv", xy, 17)
    np.testing.assert_allclose(target.values, np.arange(len(xy)) + 0.5)
    assert not drawn


@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
def test_polygons_label_every_tile_whose_centre_they_cover(tmp_path, suffix):
    xy = grid(20, 20)
    north, west = latlon_of_tile(np.array([X0, Y0]), 17)
    south, east = latlon_of_tile(np.array([X0 + 20, Y0 + 20]), 17)
    middle = latlon_of_tile(np.array([X0 + 10, Y0]), 17)[1]
    shapes = [box(west, south, middle, north), box(middle, south, east, north)]
    lat, lon = latlon_of_tile(np.array([X0 + 0.2, Y0 + 0.2]), 17)
    shapes.append(box(lon, lat - 1e-5, lon + 1e-5, lat))  # covers no centre: counts for the tile that it lies in
    columns = {"price": [1.5, 2.5, 9.5], "kind": ["old", "new", "new"], "id": [1, 2, 3]}
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
    frame.to_file(tmp_path / f"districts.{suffix}")
    targets, _ = label_tables.read_labels(tmp_path / f"districts.{suffix}", xy, 17)
    by_name = {target.name: target for target in targets}
    assert set(by_name) == {"price", "kind"}
    expected = np.where(xy[:, 0] < X0 + 10, 1.5, 2.5)
    expected[0] = (1.5 + 9.5) / 2
    np.testing.assert_allclose(by_name["price"].values, expected)
    assert by_name["kind"].classes == ("new", "old")
    assert not by_name["price"].drawn


def test_a_csv_with_semicolons_and_decimal_commas_is_read(tmp_path):
    xy = grid(20, 20)
    lines = ["x;y;price", *(f"{x};{y};{i},5" for i, (x, y) in enumerate(xy))]
    (tmp_path / "prices.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    (target,), _ = label_tables.read_labels(tmp_path / "prices.csv", xy, 17)
    np.testing.assert_allclose(target.values, np.arange(len(xy)) + 0.5)


def test_only_the_renderers_own_labels_count_as_drawn(tmp_path):
    """A user's column may be called `landuse`, too; only beside `drawn:` columns is it known to be on the tiles."""
    xy = grid(20, 20)
    table = {"x": xy[:, 0], "y": xy[:, 1], "levels": np.arange(400) / 7, "poi_food": np.arange(400) % 5}
    table["landuse"] = np.where(np.arange(400) % 2, "a", "b")
    pyarrow.csv.write_csv(pa.table(table), tmp_path / "own.csv")
    targets, _ = label_tables.read_labels(tmp_path / "own.csv", xy, 17)
    assert len(targets) == 3 and not any(target.drawn for target in targets)
    pq.write_table(pa.table(table | {"drawn:roads": np.arange(400)}), tmp_path / "labels.parquet")
    targets, _ = label_tables.read_labels(tmp_path / "labels.parquet", xy, 17)
    assert {target.name for target in targets if target.drawn} == {"poi_food", "landuse"}


def test_counts_are_taken_as_logarithms_and_classes_by_majority(tmp_path):
    xy = grid(20, 20)
    count = np.arange(len(xy)) % 7
    kind = np.where(np.arange(len(xy)) % 2, "a", "b")
    gap = pa.array([None, *count[1:].tolist()])
    table = {"x": xy[:, 0], "y": xy[:, 1], "count": count, "gap": gap, "kind": kind, "drawn:roads": count}
    table |= {"height": count + 0.5, "few": pa.array([*kind[:199].tolist(), *[None] * 201])}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    targets, drawn = label_tables.read_labels(tmp_path / "labels.parquet", xy, 17)
    by_name = {target.name: target for target in targets}
    assert set(by_name) == {"count", "gap", "kind", "height"}, "`few` is known on fewer than 200 tiles"
    np.testing.assert_allclose(by_name["count"].values, np.log1p(count))
    np.testing.assert_allclose(by_name["gap"].values, [np.nan, *np.log1p(count[1:])])
    np.testing.assert_allclose(by_name["height"].values, count + 0.5)
    assert by_name["kind"].classes == ("a", "b")
    assert list(drawn) == ["drawn:roads"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": ["a"], "value": [1.0]}, "expected the keys x and y, or lat and lon"),
        ({"x": [5], "y": [5], "value": [1.0]}, "no row of"),
        ({"x": [X0], "y": [Y0], "value": [1.0]}, "no column that can be predicted"),
    ],
)
def test_a_table_that_cannot_be_used_is_explained(tmp_path, table, said):
    pyarrow.csv.write_csv(pa.table(table), tmp_path / "t.csv")
    with pytest.raises(UserError, match=said):
        label_tables.read_labels(tmp_path / "t.csv", grid(20, 20), 17)


def test_a_table_that_is_no_table_is_explained(tmp_path):
    (tmp_path / "labels.parquet").write_bytes(b"not a table")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        label_tables.read_table(tmp_path / "labels.parquet")


# --- the command -------------------------------------------------------------------------------------------


def test_the_report_of_a_checkpoint_with_baselines(city, run_script, tmp_path):
    result = run_script("evaluate.py", "--model_path", city["folder"] / "a.pth", *flags(city, "--baselines"))
    for name in (
        "coordinates",
        "channel means + deviations",
        "brightness profiles",
        "PCA of pixels",
        "brightness profiles + neighbours",
        "shapes at full resolution",
        "counts per layer",
        "counts per layer + neighbours",
        "untrained encoder, 32 px",
    ):
        assert f"\n{name}" in result.stdout
    assert "counts per class, PCA 16" in result.stdout  # 20 numbers, cut to the 16 of the vectors
    assert "rare" not in result.stdout  # known on too few tiles
    assert "Labels not drawn on the tiles: addresses" in result.stdout
    assert "Labels drawn on the tiles: landuse" in result.stdout
    store = open_store(city["tiles"], 32, cache_dir=city["cache"])
    assert f"{(~store.blank).sum():,} tiles with content of {len(store):,}" in result.stdout
    saved = json.loads((tmp_path / "reports" / "quality.json").read_text())
    assert {"ridge R2", "RankMe", "triplet accuracy", "far agreement"} <= {f["name"] for f in saved["figures"]}
    assert (tmp_path / "reports" / "quality.png").read_bytes()[:4] == b"\x89PNG"
    # The same as Markdown, under a name of one's own.
    printed = run_script("docs/make_quality.py", f"own vectors={tmp_path / 'reports'}").stdout
    assert printed.startswith(f"{(~store.blank).sum():,} tiles\n")
    hidden, drawn, space = printed.strip().split("\n\n")[2::2]
    rows = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in hidden.splitlines()}
    ridge = {
        f["label"]: f["value"]
        for f in saved["figures"]
        if (f["name"], f["split"]) == ("ridge R2", "blocked") and f["vectors"] == "a"
    }
    assert rows["| own vectors"][1:3] == ["16", f"{ridge['levels']:.2f}"] and "| untrained encoder, 32 px" in rows
    assert "| own vectors | – |" in drawn and "| coordinates | 2" not in drawn  # this city has no places of interest
    assert len(space.splitlines()) == len(hidden.splitlines()) == len(drawn.splitlines())
    said = run_script("docs/make_quality.py", f"own={tmp_path / 'nothing'}", check=2).stderr
    assert "evaluate.py --output_dir" in said and "Traceback" not in said


@pytest.mark.slow
def test_the_untrained_encoder_sees_small_tiles_whatever_the_checkpoint_sees(city, run_script, tmp_path):
    """At the size of a large checkpoint it would need many times as long as all else."""
    tiles = make_tiles(tmp_path / "tiles", nx=36, ny=30, px=96)
    save_untrained(tmp_path / "large.pth", tile_size=96)
    own = ["--tiles_root", tiles, "--labels", city["labels"], "--baselines", "--json"]
    result = run_script("evaluate.py", "--model_path", tmp_path / "large.pth", *own)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert "untrained encoder, 64 px" in {record["vectors"] for record in records}
    sizes = {r["vectors"]: r["value"] for r in records if r["name"] == "size"}
    assert sizes["untrained encoder, 64 px"] == sizes["large"] == 16


def test_two_checkpoints_and_json(city, run_script):
    pair = [city["folder"] / "a.pth", city["folder"] / "b.pth"]
    result = run_script("evaluate.py", "--vs", *pair, *flags(city, "--json"))
    records = [json.loads(line) for line in result.stdout.splitlines()]
    differences = {r["label"]: r for r in records if r["name"] == "difference of ridge R2"}
    assert set(differences) == {"levels", "addresses", "mean"}
    score = {
        (r["vectors"], r["label"]): r["value"] for r in records if r["name"] == "ridge R2" and r["split"] == "blocked"
    }
    assert differences["levels"]["value"] == pytest.approx(score["a", "levels"] - score["b", "levels"], abs=1e-4)
    assert all(len(r["folds"]) == 5 for r in differences.values())
    group = {
        r["label"]: r["group"] for r in records if r["name"] in ("ridge R2", "logistic F1") and r["label"] != "mean"
    }
    assert group == dict.fromkeys(("levels", "addresses"), "not drawn on the tiles") | {"landuse": "drawn on the tiles"}
    means = {
        r["group"]: r["value"]
        for r in records
        if (r["name"], r["vectors"], r["label"]) == ("far agreement", "a", "mean")
    }
    assert set(means) == {"not drawn on the tiles", "drawn on the tiles"}  # never one mean over both
    assert {"cosine knn R2", "cosine knn F1", "difference of cosine knn R2"} <= {r["name"] for r in records}


def test_encoders_of_two_tile_sizes_are_compared_where_both_see_something(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", nx=14, ny=14, px=128)
    store = open_store(tiles, 64, cache_dir=tmp_path / "cache", num_workers=0)
    x, y = store.tile_xy[store.blank][0].tolist()
    pixels = np.zeros((128, 128), np.uint8)
    pixels[5, 5] = 5  # something at 64 px, nothing at 32 px
    Image.fromarray(pixels).save(tiles / "roads" / "17" / str(x) / f"{y}.png")
    for size in (32, 64):
        save_untrained(tmp_path / f"{size}.pth", tile_size=size)
    run = evaluate.EvaluateFlags(vs=[tmp_path / "64.pth", tmp_path / "32.pth"])
    place = TilesFlags(tiles_root=tiles, cache_dir=tmp_path / "cache")
    (first, second), area = evaluate.load_candidates(run, place, tmp_path / "64.pth", "cpu")
    assert len(first.vectors) == len(second.vectors) == len(area.tile_xy) == len(area.unseen) == (~store.blank).sum()
    with pytest.raises(UserError, match="give one of them"):
        evaluate.load_candidates(dataclasses.replace(run, vectors=Path("a.csv")), place, tmp_path / "64.pth", "cpu")


def test_a_checkpoint_against_itself_is_refused():
    run = evaluate.EvaluateFlags(vs=[Path("a.pth"), Path("./a.pth")])
    with pytest.raises(UserError, match="same checkpoint twice"):
        evaluate.load_candidates(run, TilesFlags(), Path("a.pth"), "cpu")


def test_a_file_of_vectors(city, run_script, tmp_path):
    store = open_store(city["tiles"], 32, cache_dir=city["cache"])
    table = {"x": store.tile_xy[:, 0], "y": store.tile_xy[:, 1], "blank": store.blank, "latitude": store.tile_xy[:, 0]}
    table |= {f"e{i}": column for i, column in enumerate(store.layer_intensity.T)}
    pyarrow.csv.write_csv(pa.table(table), tmp_path / "vectors.csv")
    result = run_script("evaluate.py", "--vectors", "vectors.csv", "--labels", city["labels"], "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    value = {r["label"]: r["value"] for r in records if r["name"] == "ridge R2" and r["split"] == "blocked"}
    assert value["addresses"] > 0.3
    assert {r["tiles"] for r in records} == {int((~store.blank).sum())}
    assert [r["value"] for r in records if r["name"] == "size"] == [12]


def test_vectors_of_a_written_csv_leave_blank_tiles_out(tmp_path):
    embeddings = made_up_embeddings(grid(20, 20), 16)
    exports.write_csv(SimpleNamespace(embeddings=embeddings), tmp_path / "vectors.csv")
    tile_xy, vectors = label_tables.read_vectors(tmp_path / "vectors.csv", 17)
    assert embeddings.blank.any()
    np.testing.assert_array_equal(tile_xy, embeddings.tile_xy[~embeddings.blank])
    np.testing.assert_allclose(vectors, embeddings.vectors[~embeddings.blank], atol=1e-6)


def test_only_rows_with_a_vector_and_a_place_are_evaluated(tmp_path):
    """As `embed.py --points` writes them, with numbered columns of the user's own."""
    lines = ["name,lat,lon,price2023,price2024,e0,e1,e2", "a,51.1,71.4,5,6,1,0,0", "b,10,10,5,6,,,", "c,,,5,6,0,1,0"]
    (tmp_path / "v.csv").write_text("\n".join(lines))
    tile_xy, vectors = label_tables.read_vectors(tmp_path / "v.csv", 17)
    assert len(tile_xy) == 1 and vectors.tolist() == [[1, 0, 0]]
    pd.DataFrame({"x": [5, 6], "y": [7, 8], "embedding": [[1.0, 2.0], None]}).to_parquet(tmp_path / "v.parquet")
    tile_xy, vectors = label_tables.read_vectors(tmp_path / "v.parquet", 17)
    assert tile_xy.tolist() == [[5, 7]] and vectors.tolist() == [[1, 2]]
    (tmp_path / "v.csv").write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(UserError, match="no row with a vector"):
        label_tables.read_vectors(tmp_path / "v.csv", 17)


def test_vectors_of_another_city_get_a_sentence(city, run_script, tmp_path):
    pd.DataFrame({"x": [5, 6], "y": [7, 8], "e0": [1, 2], "e1": [0, 1]}).to_csv(tmp_path / "v.csv")
    place = ("--tiles_root", city["tiles"], "--labels", city["labels"])
    said = run_script("evaluate.py", "--vectors", "v.csv", *place, "--baselines", check=2).stderr
    assert "no tile with content in common" in said and "Traceback" not in said


def test_columns_that_hold_no_labels_are_left_out(tmp_path):
    tile_xy = grid(20, 20)
    frame = pd.DataFrame({"x": tile_xy[:, 0], "y": tile_xy[:, 1], "value": np.arange(400.0) ** 0.5})
    frame["tags"], frame["sources"] = [["a"]] * 400, [[{"dataset": "x"}]] * 400
    frame["open"] = pd.array([None, True] * 200, dtype="boolean")
    frame["kind"] = pd.array([None, "shop", "bar", "shop"] * 100, dtype="string")
    frame.to_parquet(tmp_path / "a.parquet")
    targets, _ = label_tables.read_labels(tmp_path / "a.parquet", tile_xy, 17)
    assert [target.name for target in targets] == ["value", "kind"]


def test_coordinates_are_no_labels_whichever_of_them_place_the_rows(tmp_path):
    tile_xy = grid(20, 20)
    lat, lon = latlon_of_tile(tile_xy + 0.5, 17).T
    places = {"x": tile_xy[:, 0], "y": tile_xy[:, 1], "latitude": lat, "longitude": lon}
    frame = pd.DataFrame(places | {"price": np.arange(400.0) ** 0.5, "withdrawn: total": np.arange(400) % 7 + 0.5})
    frame.to_csv(tmp_path / "a.csv", index=False)
    targets, drawn = label_tables.read_labels(tmp_path / "a.csv", tile_xy, 17)
    assert [target.name for target in targets] == ["price", "withdrawn: total"] and not drawn


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_shapes_are_found_whatever_their_column_is_called(tmp_path, name):
    tile_xy = grid(20, 20)
    lat, lon = latlon_of_tile(tile_xy + 0.5, 17).T
    points = geopandas.points_from_xy(lon, lat, crs="EPSG:4326")
    frame = geopandas.GeoDataFrame({"value": np.arange(400.0) ** 0.5}, geometry=points)
    if name.endswith("parquet"):
        frame.rename_geometry("geom").to_parquet(tmp_path / name)
    else:
        pd.DataFrame({"value": frame["value"], "wkt": frame.geometry.to_wkt()}).to_csv(tmp_path / name, index=False)
    columns, rows = label_tables.load_columns(tmp_path / name, tile_xy, 17)
    assert list(columns) == ["value"] and sorted(rows.tolist()) == list(range(400))


def test_labels_are_asked_for(run_script):
    assert "--labels is missing" in run_script("evaluate.py", check=2).stderr


@pytest.mark.slow
def test_labels_come_straight_from_an_extract():
    x, y = np.meshgrid(np.arange(91540, 91570), np.arange(43770, 43800), indexing="ij")
    xy = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.int32)
    targets, drawn = label_tables.read_labels(REPO / "sample_data" / "astana.osm.pbf", xy, 17)
    assert {"levels", "addresses", "landuse", "highway"} <= {target.name for target in targets}
    assert {f"drawn:{layer}" for layer in LAYERS} <= set(drawn)


# --- a rival -------------------------------------------------------------------------------------------------


def test_hex2vec_counts_every_tag_where_it_lies_and_learns_what_lies_near():
    tile_xy = grid(12, 12) - (X0, Y0) + np.floor(tile_of_latlon(51.1283, 71.4305)).astype(np.int32)
    counts = hex2vec_vectors.tag_counts(REPO / "sample_data" / "astana.osm.pbf", tile_xy, 17)
    assert counts.shape[0] == 144 and counts.shape[1] > 10 and (counts.sum(axis=1) > 0).mean() > 0.8
    west = (tile_xy[:, 0] < tile_xy[0, 0] + 6).astype(np.float32)  # two halves that differ
    vectors = hex2vec_vectors.train(np.stack([5 * west, 5 * (1 - west)], axis=1), tile_xy, epochs=200, seed=0)
    assert vectors.shape == (144, 50)
    same, other = vectors[west == 1] @ vectors[west == 1][0], vectors[west == 0] @ vectors[west == 1][0]
    assert same.mean() > other.mean() + 1
