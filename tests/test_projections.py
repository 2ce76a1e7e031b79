"""Projections: faithful, deterministic, cached, cancellable, at ease with hardly any tiles; k-means clusters."""

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import projections
from cli import UserError
from progress_bars import progress as progress_bar
from projections import ALGORITHMS, Projection, clusters, is_cached, project
from vectors import centres, principal_components

QUICK = {"PCA": {}, "TSNE": {"iterations": 100}, "UMAP": {}}


def blobs(count: int, groups: int = 4, dimensions: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`count` unit vectors in groups far apart, and the group of each."""
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=count)
    vectors = np.eye(groups, dimensions)[group] + rng.normal(scale=0.05, size=(count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), group


def run(vectors: np.ndarray, algorithm: str, dimensions: int = 2, **options) -> Projection:
    return project(vectors, algorithm, dimensions, settings=QUICK[algorithm], progress=lambda _: None, **options)


def purity(points: np.ndarray, group: np.ndarray) -> float:
    """Share of points whose nearest point is of their group."""
    distance = ((points[:, None] - points[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    return float((group[distance.argmin(axis=1)] == group).mean())


# --- the points --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "dimensions"), list(itertools.product(ALGORITHMS, (2, 3))))
def test_groups_stay_together(algorithm, dimensions):
    vectors, group = blobs(200)
    projection = run(vectors, algorithm, dimensions)
    assert projection.points.shape == (200, dimensions) and projection.points.dtype == np.float32
    assert (projection.algorithm, projection.dimensions, projection.fitted) == (algorithm, dimensions, 200)
    assert purity(projection.points, group) > 0.97
    assert 0.7 < projection.trustworthiness <= 1
    assert projection.seconds > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equal_for_an_equal_seed(algorithm):
    vectors, _ = blobs(120)
    first = run(vectors, algorithm, seed=1).points
    assert np.array_equal(first, run(vectors.copy(), algorithm, seed=1).points)
    if algorithm != "PCA":
        assert not np.allclose(first, run(vectors, algorithm, seed=2).points)


def test_pca_is_scikit_learns_pca():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32) * np.arange(1, 11)
    projection, model = project(vectors, "PCA", 3), PCA(3).fit(vectors)
    assert np.allclose(np.abs(projection.points), np.abs(model.transform(vectors)), atol=1e-3)
    assert np.allclose(projection.explained, model.explained_variance_ratio_, atol=1e-5)


def test_pca_signs_do_not_depend_on_the_order():
    vectors, _ = blobs(60)
    points, _ = principal_components(vectors, 3)
    turned, _ = principal_components(vectors[::-1], 3)
    assert np.allclose(points, turned[::-1], atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equal_vectors_have_equal_points(algorithm):
    vectors, _ = blobs(60)
    doubled = np.concatenate([vectors, vectors[::-1]])
    points = run(doubled, algorithm).points
    assert np.array_equal(points[:60], points[60:][::-1])


# --- hardly any tiles --------------------------------------------------------------------------------------

FEW = {
    "one": np.ones((1, 8)),
    "two": np.eye(2, 8),
    "four": np.eye(4, 8),
    "six": np.random.default_rng(0).normal(size=(6, 8)),
    "identical": np.ones((50, 8)),
    "nearly identical": np.ones((30, 8)) + 1e-7 * np.random.default_rng(0).normal(size=(30, 8)),
    "two kinds": np.repeat(np.eye(2, 8), 20, axis=0),
    "a line": np.linspace(0, 1, 40)[:, None] * np.ones((1, 8)),
    "one dimension": np.random.default_rng(0).normal(size=(30, 1)),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", FEW)
def test_degenerate_input_works(name, algorithm):
    vectors = FEW[name].astype(np.float32)
    for dimensions in (2, 3):
        projection = run(vectors, algorithm, dimensions)
        assert projection.points.shape == (len(vectors), dimensions)
        assert np.isfinite(projection.points).all() and np.isfinite(projection.trustworthiness)
        same = (vectors == vectors[0]).all(axis=1)
        assert (projection.points[same] == projection.points[0]).all()


def test_settings_too_large_for_so_few_points_are_lowered_and_said():
    vectors, _ = blobs(20)
    assert project(vectors, "TSNE", settings={"perplexity": 30}, progress=print).settings["perplexity"] < 7
    assert run(blobs(10)[0], "UMAP").settings["n_neighbors"] == 9


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda v: project(v, "t-SNE"), "did you mean 'TSNE'"),
        (lambda v: project(v, "UMAPP"), "did you mean 'UMAP'"),
        (lambda v: project(v, "PCA", 5), "2 or 3"),
        (lambda v: project(v, "TSNE", settings={"perplexty": 3}), "did you mean 'perplexity'"),
        (lambda v: project(v, "TSNE", settings={"perplexity": -3}), "from 1.0 to 500.0"),
        (lambda v: project(v, "UMAP", settings={"n_neighbors": float("nan")}), "from 2 to 500"),
        (lambda v: project(v, "PCA", settings={"whiten": True}), "has no setting"),
        (lambda v: project(v[:0], "PCA"), "no vectors"),
        (lambda v: project(v * np.nan, "PCA"), "not finite"),
        (lambda v: clusters(v, 0), "at least 1"),
    ],
)
def test_wrong_use_is_named(call, said):
    with pytest.raises(UserError, match=said):
        call(blobs(20)[0])


# --- a sample and the rest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["TSNE", pytest.param("UMAP", marks=pytest.mark.slow)])
def test_above_the_limit_the_rest_is_placed_among_its_like(algorithm, monkeypatch):
    small = dataclasses.replace(ALGORITHMS[algorithm], most={2: 150, 3: 150})
    monkeypatch.setitem(ALGORITHMS, algorithm, small)
    monkeypatch.setattr(projections, "_PLACE_AT_ONCE", 100)
    vectors, group = blobs(400)
    shares: list[float] = []
    projection = project(vectors, algorithm, settings=QUICK[algorithm], progress=shares.append)
    assert projection.fitted == 150
    assert len(np.unique(projection.points, axis=0)) == 400
    assert purity(projection.points, group) > 0.95
    assert shares == sorted(shares)


# --- how faithful ------------------------------------------------------------------------------------------


def test_trustworthiness_is_scikit_learns():
    from sklearn.manifold import trustworthiness

    rng = np.random.default_rng(0)
    vectors, points = rng.normal(size=(200, 8)), rng.normal(size=(200, 2))
    assert projections.trustworthiness(vectors, points) == pytest.approx(
        trustworthiness(vectors, points, n_neighbors=10)
    )
    good = vectors[:, :2] + 1e-3 * points
    vectors = vectors * np.array([5, 5, *[0.1] * 6])
    assert projections.trustworthiness(vectors, good) > 0.99


def test_trustworthiness_of_a_sample_is_near_that_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, 8))
    points = vectors[:, :2]
    exact = projections.trustworthiness(vectors, points)
    monkeypatch.setattr(projections, "TRUST_EXACT", 1000)
    monkeypatch.setattr(projections, "TRUST_SAMPLE", 500)
    sampled = projections.trustworthiness(vectors, points)
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=0.02)


# --- progress and cancelling -------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_progress_goes_from_nothing_to_all(algorithm):
    shares: list[float] = []
    project(blobs(100)[0], algorithm, settings=QUICK[algorithm], progress=shares.append)
    assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)
    if algorithm != "PCA":
        assert len(shares) > 4


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("algorithm", ["TSNE", "UMAP"])
def test_raising_in_progress_cancels_and_caches_nothing(algorithm, tmp_path):
    def stop(share: float) -> None:
        if share > 0.12:
            raise Cancelled

    vectors, _ = blobs(300)
    with pytest.raises(Cancelled):
        project(vectors, algorithm, cache_dir=tmp_path, key="k", progress=stop)
    assert not list(tmp_path.iterdir())
    with ThreadPoolExecutor(1) as another:  # work of other threads goes on: no lock is left behind
        assert another.submit(lambda: list(progress_bar(range(3)))).result(timeout=20) == [0, 1, 2]


# --- cache -------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The algorithm of each projection that is really computed."""
    computed: list[str] = []
    compute = projections._compute

    def counting(*args):
        computed.append(args[1])
        return compute(*args)

    monkeypatch.setattr(projections, "_compute", counting)
    return computed


def test_second_call_reads_the_file(tmp_path, counted):
    vectors, _ = blobs(50)
    cache = {"cache_dir": tmp_path, "key": "city"}
    assert not is_cached(vectors, "PCA", 3, **cache)
    first = project(vectors, "PCA", 3, **cache)
    assert is_cached(vectors, "PCA", 3, **cache)
    second = project(vectors, "PCA", 3, **cache)
    assert counted == ["PCA"]
    assert np.array_equal(first.points, second.points) and np.array_equal(first.explained, second.explained)
    for name in ("algorithm", "dimensions", "settings", "trustworthiness", "seconds", "fitted"):
        assert getattr(first, name) == getattr(second, name)
    project(vectors, "PCA", 3, force=True, **cache)
    assert len(counted) == 2


def test_anything_else_is_another_projection(tmp_path, counted):
    vectors, _ = blobs(40)
    known = {"cache_dir": tmp_path, "key": "city"}
    project(vectors, "TSNE", settings={"iterations": 50}, **known)
    for other in (
        {"seed": 7, "settings": {"iterations": 50}},
        {"settings": {"iterations": 60}},
        {"settings": {"iterations": 50}, "key": "other"},
        {"settings": {"iterations": 50}, "dimensions": 3},
    ):
        assert not is_cached(vectors, "TSNE", **(known | other))
    assert is_cached(vectors, "TSNE", settings={"iterations": 50, "perplexity": 30}, **known)  # the default, spelled
    assert not is_cached(vectors[:39], "TSNE", settings={"iterations": 50}, **known)
    project(vectors, "PCA")  # neither folder nor key: nothing is kept
    assert len(list(tmp_path.iterdir())) == 1


def test_any_damaged_byte_is_noticed_and_fixed(tmp_path, counted, capsys):
    vectors, _ = blobs(30)
    expected = project(vectors, "PCA", cache_dir=tmp_path, key="city").points.copy()
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    for at in (0, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert np.array_equal(project(vectors, "PCA", cache_dir=tmp_path, key="city").points, expected)
        assert "computing it again" in capsys.readouterr().err
    path.write_bytes(whole[:10])
    assert not is_cached(vectors, "PCA", cache_dir=tmp_path, key="city")
    assert len(counted) == 5


# --- clusters ----------------------------------------------------------------------------------------------


def test_clusters_find_the_groups_largest_first(tmp_path):
    vectors, group = blobs(300)
    labels = clusters(vectors, 4, cache_dir=tmp_path, key="city")
    assert labels.dtype == np.int32
    assert all(len(set(group[labels == label])) == 1 for label in range(4))
    sizes = np.bincount(labels)
    assert (np.diff(sizes) <= 0).all()
    assert np.array_equal(labels, clusters(vectors, 4))
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert np.array_equal(labels, clusters(vectors, 4, cache_dir=tmp_path, key="city"))


def test_no_more_clusters_than_kinds_of_vectors():
    assert clusters(np.ones((20, 4)), 8).max() == 0
    assert clusters(np.repeat(np.eye(3), 5, axis=0), 8).max() == 2


def test_many_vectors_are_clustered_too(monkeypatch):
    monkeypatch.setattr("vectors.MINIBATCH_FROM", 100)
    vectors, group = blobs(400)
    labels = clusters(vectors, 4)
    assert all(len(set(group[labels == label])) == 1 for label in range(4))


def test_centres_are_members_of_their_cluster():
    vectors, _ = blobs(100)
    labels = clusters(vectors, 4)
    rows = centres(vectors, labels)
    assert list(labels[rows]) == [0, 1, 2, 3]
    assert set(clusters(vectors, 4)[rows]) == {0, 1, 2, 3}
