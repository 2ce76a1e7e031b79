"""evaluate.py: the protocol is the one that is claimed, the figures are right, and a user's tables are understood."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from sklearn.linear_model import Ridge

import baselines
import evaluate
import hex2vec_vectors
import label_tables
import probes
import quality_report
from checkpoint import Checkpoint
from cli import TilesFlags, UserError
from conftest import REPO, make_tiles, save_untrained
from layers import LAYERS
from tile_grid import blocks_of, latlon_of_tile, spatial_split, tile_of_latlon
from tile_store import open_store
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
    mass, rng = store.layer_mass, np.random.default_rng(0)
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
    place = baselines.Candidate("place", baselines.coordinate_waves(xy, 256, 0))
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


def test_a_quarter_without_variance_does_not_outweigh_the_others():
    truth, predicted = np.array([[1.0], [1.0]]), np.array([[1.1], [0.9]])
    assert probes.r2(truth, predicted, np.array([4.0])) == pytest.approx(1 - 0.01 / 4)


def test_a_label_on_some_tiles_is_probed_on_those_alone():
    xy = grid(60, 60)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(xy), 4))
    values = np.where(rng.random(len(xy)) < 0.2, vectors[:, 0], np.nan)
    figures = evaluate.probe_figures(
        baselines.Candidate("v", vectors),
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
    anchor, positive, negative = xy[evaluate.draw_triplets(xy, np.random.default_rng(0)).T]
    near, far = np.abs(anchor - positive).max(axis=1), np.abs(anchor - negative).max(axis=1)
    assert near.min() >= 1
    assert near.max() == 2
    assert far.min() == 10


def test_triplet_accuracy_of_places_is_one_and_of_noise_a_half():
    xy = grid(40, 40)
    parts = [np.arange(len(xy)), np.flatnonzero(xy[:, 0] < X0 + 20)]
    assert evaluate.triplet_accuracies(xy.astype(np.float32), xy, parts, 0).min() > 0.99
    noise = np.random.default_rng(0).normal(size=(len(xy), 32)).astype(np.float32)
    np.testing.assert_allclose(evaluate.triplet_accuracies(noise, xy, parts, 0), 0.5, atol=0.04)
    assert np.isnan(evaluate.triplet_accuracies(noise, xy, [np.arange(5)], 0)).all()  # nothing lies ten tiles away


def test_what_an_encoder_never_saw_is_known_from_its_checkpoint(city):
    store = open_store(city["tiles"], 32, cache_dir=city["cache"])
    config = {"val_share": 0.2, "seed": 7}
    trained, validated = spatial_split(store.tile_xy, 0.2, seed=7)
    own = Checkpoint({}, {}, train_config=config, train_state={"tiles": store.content_key})
    unseen = evaluate.held_out(own, store)
    assert unseen[validated].all() and not unseen[trained].any()
    assert evaluate.held_out(Checkpoint({}, {}, train_config=config, train_state={"tiles": "another"}), store).all()


def test_far_neighbours_are_the_nearest_of_those_beyond_two_kilometres():
    xy = grid(30, 30)
    latlon = latlon_of_tile(xy, 17)
    vectors = np.random.default_rng(0).normal(size=(len(xy), 6)).astype(np.float32)
    found = evaluate.far_neighbours(vectors, latlon)
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
        latlon = latlon_of_tile(xy, 17)
        assert evaluate.agreement(target, evaluate.far_neighbours(alike, latlon), 0) == pytest.approx(1, abs=1e-6)
        assert evaluate.agreement(target, evaluate.far_neighbours(noise, latlon), 0) == pytest.approx(0, abs=0.03)


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
    found = {d.label: d.folds.tolist() for d in evaluate.differences(figures, "a", ["b"])}
    assert found == {"l": [0.5, 1.5], "m": [-1, -1], "": [-0.25, 0.25]}


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


def test_counts_are_taken_as_logarithms_and_classes_by_majority(tmp_path):
    xy = grid(20, 20)
    count = np.arange(len(xy)) % 7
    kind = np.where(np.arange(len(xy)) % 2, "a", "b")
    table = {"x": xy[:, 0], "y": xy[:, 1], "count": count, "kind": kind, "drawn:roads": count}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    targets, drawn = label_tables.read_labels(tmp_path / "labels.parquet", xy, 17)
    by_name = {target.name: target for target in targets}
    np.testing.assert_allclose(by_name["count"].values, np.log1p(count))
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
    with pytest.raises(UserError, match="neither a Parquet nor a CSV"):
        label_tables.read_table(tmp_path / "labels.parquet")


# --- the command -------------------------------------------------------------------------------------------


def test_the_report_of_a_checkpoint_with_baselines(city, run_script, tmp_path):
    result = run_script("evaluate.py", "--model_path", city["folder"] / "a.pth", *flags(city, "--baselines"))
    for name in (
        "coordinates",
        "channel means + deviations",
        "brightness profiles",
        "PCA of pixels",
        "counts per layer",
        "untrained encoder",
    ):
        assert f"\n{name}" in result.stdout
    assert "counts per class, PCA 16" in result.stdout  # 20 numbers, cut to the 16 of the vectors
    assert "rare" not in result.stdout  # known on too few tiles
    store = open_store(city["tiles"], 32, cache_dir=city["cache"])
    assert f"{(~store.blank).sum():,} tiles with content of {len(store):,}" in result.stdout
    saved = json.loads((tmp_path / "reports" / "quality.json").read_text())
    assert {"ridge R2", "RankMe", "triplet accuracy", "far agreement"} <= {f["name"] for f in saved["figures"]}
    assert (tmp_path / "reports" / "quality.png").read_bytes()[:4] == b"\x89PNG"


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


def test_a_checkpoint_against_itself_is_refused():
    run = evaluate.EvaluateFlags(vs=[Path("a.pth"), Path("./a.pth")])
    with pytest.raises(UserError, match="same checkpoint twice"):
        evaluate.load_candidates(run, TilesFlags(), Path("a.pth"), "cpu")


def test_a_file_of_vectors(city, run_script, tmp_path):
    store = open_store(city["tiles"], 32, cache_dir=city["cache"])
    table = {"x": store.tile_xy[:, 0], "y": store.tile_xy[:, 1], "blank": store.blank, "latitude": store.tile_xy[:, 0]}
    table |= {f"e{i}": column for i, column in enumerate(store.layer_mass.T)}
    pyarrow.csv.write_csv(pa.table(table), tmp_path / "vectors.csv")
    result = run_script("evaluate.py", "--vectors", "vectors.csv", "--labels", city["labels"], "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    value = {r["label"]: r["value"] for r in records if r["name"] == "ridge R2" and r["split"] == "blocked"}
    assert value["addresses"] > 0.3
    assert {r["tiles"] for r in records} == {int((~store.blank).sum())}
    assert [r["value"] for r in records if r["name"] == "size"] == [12]


def test_labels_are_asked_for(run_script):
    assert "--labels is missing" in run_script("evaluate.py", check=2).stderr


def test_the_same_seed_gives_the_same_figures():
    torch.manual_seed(3)
    first = baselines.principal(np.random.default_rng(0).normal(size=(50, 20)), 5, 0)
    torch.manual_seed(9)
    np.testing.assert_array_equal(first, baselines.principal(np.random.default_rng(0).normal(size=(50, 20)), 5, 0))


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
