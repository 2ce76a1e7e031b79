"""Search: exact is exact, Annoy comes close and says how close, and no damaged index ever reaches Annoy."""

import sys
from pathlib import Path

import numpy as np
import pytest

import similarity
import tile_grid
from cli import UserError
from similarity import METRICS, Search, arithmetic, distances, measure, open_search, walk
from tile_grid import farther_than, great_circle_km


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """3,000 unit vectors round 40 centres."""
    rng = np.random.default_rng(0)
    return similarity.unit(rng.normal(size=(40, 16))[rng.integers(40, size=3000)] + 0.3 * rng.normal(size=(3000, 16)))


def opened(vectors: np.ndarray, folder: Path, **options: object) -> Search:
    return open_search(vectors, **({"key": "some content", "cache_dir": folder, "exact": False, "trees": 10} | options))


# --- exact search ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_exact_search_is_exact(metric: str) -> None:
    rng = np.random.default_rng(1)
    vectors, queries = rng.normal(size=(500, 8)), rng.normal(size=(7, 8))
    expected = {
        "angular": lambda q: np.sqrt(2 - 2 * vectors @ q / np.linalg.norm(vectors, axis=1) / np.linalg.norm(q)),
        "euclidean": lambda q: np.linalg.norm(vectors - q, axis=1),
        "manhattan": lambda q: np.abs(vectors - q).sum(axis=1),
        "dot": lambda q: 1 - vectors @ q,
    }[metric]
    rows, found = Search(vectors, metric).query(queries, 12)
    assert rows.shape == found.shape == (7, 12)
    for i, query in enumerate(queries):
        assert rows[i].tolist() == np.argsort(expected(query))[:12].tolist()
        assert np.allclose(found[i], np.sort(expected(query))[:12], atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_exact_search_tells_vectors_apart_that_nearly_point_one_way(metric: str) -> None:
    rng = np.random.default_rng(2)
    vectors = similarity.unit(10 + 0.002 * rng.normal(size=(800, 32))).astype(np.float32)
    rows, _ = Search(vectors, metric).query(vectors[:50], 5)
    truth = vectors.astype(np.float64)
    true_distances = distances(truth[:50, None], truth[None], metric)
    worst = np.sort(true_distances, axis=1)[:, 4]
    chosen = np.take_along_axis(true_distances, rows, axis=1).max(axis=1)
    spread = np.sort(true_distances, axis=1)[:, 40] - worst
    assert (chosen - worst <= 0.1 * spread).all()


@pytest.mark.parametrize("kind", ["exact", "annoy"])
def test_only_allowed_rows_are_found_and_missing_ones_are_padded(
    vectors: np.ndarray, tmp_path: Path, kind: str
) -> None:
    search = opened(vectors, tmp_path, exact=kind == "exact")
    assert search.kind == kind
    for share in (0.0005, 0.05, 0.6):
        allowed = np.random.default_rng(3).random(len(vectors)) < share
        allowed[:2] = True
        rows, found = search.query(vectors[:20], 10, allowed=allowed)
        count = min(10, int(allowed.sum()))
        assert allowed[rows[:, :count]].all() and (rows[:, :count] >= 0).all()
        assert (rows[:, count:] == -1).all() and np.isinf(found[:, count:]).all()
        assert (np.diff(found[:, :count], axis=1) >= 0).all()
    rows, _ = search.query(vectors[0], 5, allowed=np.zeros(len(vectors), dtype=bool))
    assert (rows == -1).all()


@pytest.mark.parametrize("kind", ["exact", "annoy"])
def test_asking_for_more_than_there_is(vectors: np.ndarray, tmp_path: Path, kind: str) -> None:
    rows, found = opened(vectors[:30], tmp_path, exact=kind == "exact").query(vectors[4], 40)
    assert sorted(rows[0, :30].tolist()) == list(range(30))
    assert (rows[0, 30:] == -1).all() and np.isinf(found[0, 30:]).all()
    assert rows[0, 0] == 4


def test_a_query_of_another_length_or_without_numbers_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(UserError, match="8 dimensions, the searched vectors have 16"):
        Search(vectors, "angular").query(np.ones(8))
    with pytest.raises(UserError, match="non-finite"):
        Search(vectors, "angular").query(np.full(16, np.nan))


# --- Annoy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_annoy_finds_what_exact_search_finds(vectors: np.ndarray, tmp_path: Path, metric: str) -> None:
    index, exact = opened(vectors, tmp_path, metric=metric, trees=100), Search(vectors, metric)
    assert index.kind == "annoy" and index.quality.recall > 0.9
    rows, found = index.query(vectors[:50], 10)
    true_rows, true_found = exact.query(vectors[:50], 10)
    same = rows == true_rows
    assert same.mean() > 0.9
    assert np.array_equal(found[same], true_found[same])
    assert (np.diff(found, axis=1) >= 0).all()
    assert (rows[:, 0] == np.arange(50)).all()


def test_an_index_is_built_once_per_content_metric_and_trees(vectors: np.ndarray, tmp_path: Path) -> None:
    assert opened(vectors, tmp_path).built
    again = opened(vectors, tmp_path)
    assert not again.built and again.quality is not None
    assert opened(vectors, tmp_path, trees=11).built
    assert opened(vectors, tmp_path, metric="dot").built
    assert opened(vectors, tmp_path, key="other content").built
    assert opened(vectors, tmp_path, seed=1).built
    assert opened(vectors, tmp_path, force=True).built
    assert not opened(vectors, tmp_path).built


@pytest.mark.parametrize("suffix", [".ann", ".l2v"])
@pytest.mark.parametrize("harm", ["first", "middle", "last", "cut", "empty", "gone"])
def test_a_damaged_index_never_reaches_annoy(
    vectors: np.ndarray, tmp_path: Path, suffix: str, harm: str, capsys: pytest.CaptureFixture
) -> None:
    good = opened(vectors, tmp_path).query(vectors[:5], 10)
    (path,) = tmp_path.glob(f"*{suffix}")
    content = bytearray(path.read_bytes())
    at = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}
    if harm in at:
        content[at[harm]] ^= 1
        path.write_bytes(content)
    elif harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2 if harm == "cut" else 0])
    search = opened(vectors, tmp_path)
    assert search.built
    assert all(np.array_equal(a, b) for a, b in zip(search.query(vectors[:5], 10), good, strict=True))
    assert ("building the index again" in capsys.readouterr().err) == (harm != "gone")
    assert not opened(vectors, tmp_path).built


def test_an_index_of_other_dimensions_is_not_opened(vectors: np.ndarray, tmp_path: Path) -> None:
    opened(vectors, tmp_path)
    assert opened(np.ascontiguousarray(vectors[:, :8]), tmp_path).built


def test_without_annoy_search_is_exact(vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "annoy", None)
    monkeypatch.setattr(similarity.importlib.util, "find_spec", lambda _: None)
    assert not similarity.annoy_available()
    assert open_search(vectors, key="k", cache_dir=tmp_path).kind == "exact"
    with pytest.raises(UserError, match="pip install annoy"):
        opened(vectors, tmp_path)


def test_small_sets_are_searched_exactly(vectors: np.ndarray, tmp_path: Path) -> None:
    assert open_search(vectors[:500], key="k", cache_dir=tmp_path).kind == "exact"
    assert open_search(vectors, key="k", cache_dir=tmp_path).kind == "annoy"
    assert open_search(vectors, exact=False, trees=5).kind == "annoy"  # in memory, without a cache
    with pytest.raises(UserError, match="metric 'cosine' is unknown"):
        open_search(vectors, metric="cosine")


# --- quality -----------------------------------------------------------------------------------------------


def test_recall_is_measured(vectors: np.ndarray) -> None:
    few, many = (measure(open_search(vectors, trees=trees, exact=False), search_k=20 * trees) for trees in (1, 100))
    assert measure(Search(vectors, "angular")).recall == 1
    assert few.recall < 0.6 < many.recall <= 1
    assert 0 < many.p50_ms <= many.p99_ms
    assert str(many).startswith(f"recall@10 {many.recall:.3f}, ")


def test_equal_vectors_all_count_as_found() -> None:
    same = np.tile(similarity.unit(np.arange(1.0, 9.0)), (1500, 1)).astype(np.float32)
    assert measure(open_search(same, exact=False)).recall == 1
    assert measure(Search(same[:1], "angular")).recall == 1


# --- places, arithmetic, walks -----------------------------------------------------------------------------


def test_great_circles_have_their_known_lengths() -> None:
    london, paris, sydney = (51.5074, -0.1278), (48.8566, 2.3522), (-33.8688, 151.2093)
    assert abs(great_circle_km(london, paris) - 343.6) < 0.5
    assert abs(great_circle_km(london, sydney) - 16994) < 5
    assert abs(great_circle_km((0, 179.9), (0, -179.9)) - 22.24) < 0.01


def test_farther_than_goes_by_kilometres_on_the_ground() -> None:
    tile_xy = np.stack(np.meshgrid(np.arange(76600, 76660), np.arange(44200, 44260)), axis=-1).reshape(-1, 2)
    middle = tile_grid.latlon_of_tile(np.array([76630.0, 44230.0]))
    far = farther_than(tile_xy, 17, middle, 2.0)
    width_km = 40075.017 * np.cos(np.radians(middle[0])) / 2**17
    share = np.pi * (2.0 / width_km) ** 2 / len(tile_xy)
    assert abs((~far).mean() - share) < 0.01


def test_arithmetic_gives_a_direction() -> None:
    a, b, c = np.eye(4)[:3]
    assert np.allclose(arithmetic(a, b, c), np.array([1, 1, -1, 0]) / np.sqrt(3))
    assert np.allclose(arithmetic(a, b, b), a)
    with pytest.raises(UserError, match="cancel out"):
        arithmetic(a, -a, np.zeros(4))


def exact(vectors: np.ndarray) -> Search:
    return Search(vectors, "angular")


def test_a_walk_passes_the_tiles_between() -> None:
    angles = np.radians(np.arange(0, 91))
    arc = np.stack([np.cos(angles), np.sin(angles), np.zeros(91)], axis=1)
    aside = np.tile([0.0, 0.0, 1.0], (30, 1))
    assert walk(exact(np.concatenate([arc, aside])), 0, 90, steps=8).tolist() == list(range(0, 91, 10))


def test_a_walk_repeats_nothing_and_ends_where_it_should(vectors: np.ndarray) -> None:
    for search in (Search(vectors, "euclidean"), open_search(vectors, exact=False, trees=20)):
        rows = walk(search, 5, 77, steps=20)
        assert (rows[0], rows[-1]) == (5, 77)
        assert len(np.unique(rows)) == len(rows) == 22
    assert walk(exact(vectors), 5, 5).tolist() == [5]
    assert len(walk(exact(vectors[:4]), 0, 3, steps=10)) == 4
    assert walk(exact(np.array([[1.0, 0], [-1.0, 0], [0, 1.0]])), 0, 1, steps=1).tolist() == [0, 2, 1]
