"""How much of a city the vectors know: blocked cross-validation on labels that are not drawn, beside baselines.

python evaluate.py --model_path checkpoints/best_model.pth --labels labels.parquet --baselines
python evaluate.py --vs checkpoints/A.pth checkpoints/B.pth --labels labels.parquet --json
python evaluate.py --vectors vectors.parquet --labels prices.csv
"""

import dataclasses
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import torch
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    UserError,
    add_flags,
    flag,
    positive_int,
    progress,
    read_flags,
    run_main,
)
from data_loader import (
    LAYERS,
    TileGrid,
    TileStore,
    blocks_of,
    latlon_of_tile,
    near_any,
    open_store,
    spatial_split,
    tile_of_latlon,
)
from embeddings import embed_tiles, load_city
from files import atomic_path, atomic_write
from model import Checkpoint, Encoder, EncoderConfig, brightness_profile, pick_device

BLOCK = 12  # tiles; blocks go whole into a fold
BUFFER = 2  # tiles around test blocks that no probe is trained on
FOLDS = 5
FAR_KM = 2.0
NEIGHBOURS = 10
POS_RADIUS, NEG_RADIUS = 2, 10  # of the triplets that are counted, whatever the encoder was trained on
MIN_TILES = 200  # a label known on fewer tiles is left out
MIN_SOME = 50  # so is a count that is above zero on fewer, and a class with fewer
ALPHAS = np.logspace(-4, 3, 15)  # ridge penalty per training tile
LOGISTIC_C = 0.1
PCA_SIZE, PCA_PX = 256, 16
PLAIN_PX = 64  # tile size for the baselines where no checkpoint says one
KM_PER_DEGREE = 111.32
NO_TARGETS = ("z", "zoom", "row", "id", "buildings_with_levels")  # keys, and what a mean is taken over
PREFIX_DRAWN = "drawn:"  # columns of the labels file that count what the masks draw: baselines, never targets


@dataclasses.dataclass(frozen=True)
class EvaluateFlags:
    """Evaluation."""

    labels: Path | None = flag(
        None, "Parquet (render_tiles.py --labels) or CSV keyed by x,y or lat,lon, or an .osm.pbf", type=Path
    )
    vectors: Path | None = flag(None, "evaluate these vectors (Parquet or CSV) instead of a checkpoint's", type=Path)
    vs: list[Path] | None = flag(None, "compare two checkpoints", type=Path, nargs=2, metavar=("A", "B"))
    baselines: bool = flag(False, "evaluate the baselines too")
    json: bool = flag(False, "print one JSON object per figure instead of the tables")
    output_dir: Path = flag(Path("reports"), "folder for quality.json and quality.png", type=Path)
    batch_size: int | None = flag(None, "tiles per forward pass; left out: what suits the device", type=positive_int)


# --- what is evaluated -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Vectors under a name: `vectors (N, D)`; `metric` says which of them are near: cosine, or standardised."""

    name: str
    vectors: np.ndarray
    metric: str = "standardised"


@dataclasses.dataclass(frozen=True)
class Area:
    """The tiles that are evaluated, all with content: `tile_xy (N, 2)`, and their store where it is at hand.

    `held_out (N,) bool` are those that no encoder was trained on, where that is known.
    """

    tile_xy: np.ndarray
    zoom: int
    total: int
    store: TileStore | None = None
    held_out: np.ndarray | None = None

    def rows(self) -> np.ndarray:
        """Rows of the store."""
        return self.store.grid.rows(self.tile_xy)


@dataclasses.dataclass(frozen=True)
class Target:
    """One label: `values (N,)` float, NaN where unknown; of a class label, the index into `classes`."""

    name: str
    values: np.ndarray
    classes: tuple[str, ...] = ()

    @property
    def known(self) -> np.ndarray:
        """`(N,) bool`: tiles that have this label."""
        return ~np.isnan(self.values)

    @property
    def score(self) -> str:
        """What the probes of this label are scored by."""
        return "macro F1" if self.classes else "R2"


@dataclasses.dataclass(frozen=True)
class Folds:
    """`fold (N,)` of each tile, and for each fold which tiles a probe may be trained on, `train (F, N) bool`."""

    fold: np.ndarray
    train: np.ndarray

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`(train, test)` masks of each fold."""
        for i, train in enumerate(self.train):
            yield train, self.fold == i

    def of(self, known: np.ndarray) -> "Folds":
        """The same folds of some of the tiles."""
        return Folds(self.fold[known], self.train[:, known])


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number of the report: `folds` holds its value on each fold (or once), `value` their mean."""

    name: str
    vectors: str
    folds: np.ndarray
    label: str = ""
    split: str = ""

    @property
    def value(self) -> float:
        """Mean over the folds that could be scored."""
        scored = self.folds[~np.isnan(self.folds)]
        return float(scored.mean()) if len(scored) else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation over the folds."""
        scored = self.folds[~np.isnan(self.folds)]
        return float(scored.std(ddof=1)) if len(scored) > 1 else float("nan")


def blocked_folds(tile_xy: np.ndarray, seed: int, richness: np.ndarray | None = None) -> Folds:
    """Five folds of whole 12 x 12 blocks, with a two-tile buffer.

    Blocks are dealt out by `richness (N,)`, the number of labels that say something on a tile: each five blocks of
    the same order go to five different folds, so that no fold is left without labels.
    """
    labels = blocks_of(tile_xy, BLOCK)
    weight = np.bincount(labels, np.ones(len(labels)) if richness is None else richness)
    blocks = np.unique(labels)
    if len(blocks) < FOLDS:
        raise UserError(
            f"{len(tile_xy):,} tiles with content in {len(blocks)} blocks of {BLOCK} x {BLOCK}; {FOLDS} are needed"
            " for blocked cross-validation; render a larger area (`python render_tiles.py CITY.osm.pbf --bbox ...`)"
        )
    rng = np.random.default_rng([seed, 0xB1])
    order = blocks[np.argsort(-weight[blocks], kind="stable")]
    fold_of_block = np.zeros(labels.max() + 1, dtype=np.int64)
    for first in range(0, len(order), FOLDS):
        few = order[first : first + FOLDS]
        fold_of_block[few] = rng.permutation(FOLDS)[: len(few)]
    fold = fold_of_block[labels]
    train = np.stack([~near_any(tile_xy, tile_xy[fold == i], BUFFER) for i in range(FOLDS)])
    return Folds(fold, train)


def richness(targets: list[Target]) -> np.ndarray:
    """How many labels say something about each tile, `(N,)`: known ones, and counts above zero."""
    return np.sum([target.known & (target.values != 0) for target in targets], axis=0).astype(np.float64)


def random_folds(count: int, seed: int) -> Folds:
    """Five random folds without a buffer: what leaks when neighbours are on both sides."""
    fold = np.random.default_rng([seed, 0xB2]).permutation(count) % FOLDS
    return Folds(fold, np.stack([fold != i for i in range(FOLDS)]))


# --- reading tables ----------------------------------------------------------------------------------------


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a Parquet file or folder, or of a CSV file, as arrays. Raises `UserError` for anything else."""
    if not path.exists():
        raise UserError(f"nothing at {path}; `python render_tiles.py CITY.osm.pbf --labels {path}` writes labels")
    try:
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            parse = pyarrow.csv.ParseOptions(delimiter="," if path.suffix.lower() == ".csv" else "\t")
            table = pyarrow.csv.read_csv(path, parse_options=parse)
        else:
            table = pyarrow.dataset.dataset(path, format="parquet").to_table()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the table's
        raise UserError(f"{path} is neither a Parquet nor a CSV table: {error}") from error
    if len(set(table.column_names)) < len(table.column_names):
        raise UserError(f"{path} names a column twice: {', '.join(table.column_names)}; rename one")
    return {name: _column(table[name]) for name in table.column_names}


def read_extract(path: Path, tile_xy: np.ndarray, zoom: int) -> dict[str, np.ndarray]:
    """The columns that `render_tiles.py --labels` would write for these tiles."""
    from map_index import TileArea, build_index, labels_table
    from osm_extract import load_style, read_features

    style = load_style()
    features = read_features(path, style)
    x0, y0 = tile_xy.min(axis=0).tolist()
    columns, rows = (tile_xy.max(axis=0) - tile_xy.min(axis=0) + 1).tolist()
    area = TileArea(zoom, x0, y0, np.ones((rows, columns), dtype=bool))
    table = labels_table(features, style, area, build_index(features, style, area))
    return {name: _column(table[name]) for name in table.column_names}


def _column(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        flat = pc.list_flatten(column).to_numpy()
        return flat.reshape(len(column), -1) if len(column) and len(flat) % len(column) == 0 else flat[:0]
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.cast(pa.string()).to_pylist(), dtype=object)
    if pa.types.is_dictionary(kind):
        return _column(column.cast(kind.value_type))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        exact = column.null_count == 0 and pa.types.is_integer(kind)
        return column.to_numpy() if exact else column.cast(pa.float64()).to_numpy()
    return np.full(len(column), None, dtype=object)  # dates, geometries: nothing to learn from


KEYS = (("x", "y"), ("tile_x", "tile_y"), ("lat", "lon"), ("latitude", "longitude"), ("lat", "lng"))


def _coordinates(column: np.ndarray, name: str, path: Path) -> np.ndarray:
    if column.ndim != 1 or column.dtype == object:
        raise UserError(f"the column {name} of {path} begins with {str(column[:1])[:40]}; expected numbers")
    return column.astype(np.float64)


def take_keys(table: dict[str, np.ndarray], path: Path, zoom: int) -> np.ndarray:
    """Remove the key columns from `table` and return the tile of each row, `(R, 2)`; -1 for a row that has none."""
    names = {name.lower(): name for name in table}
    for first, second in KEYS:
        if first in names and second in names:
            a, b = (_coordinates(table.pop(names[name]), name, path) for name in (first, second))
            for extra in NO_TARGETS:
                table.pop(names.get(extra, ""), None)
            place = np.stack([a, b], axis=1) if "x" in first else tile_of_latlon(a, b, zoom)
            known = np.isfinite(place).all(axis=1, keepdims=True)
            return np.where(known, np.clip(place, -1, 1e9), -1).astype(np.int64)
    raise UserError(f"{path} has the columns {', '.join(table)}; expected the keys x and y, or lat and lon, among them")


def read_labels(path: Path, tile_xy: np.ndarray, zoom: int) -> tuple[list[Target], dict[str, np.ndarray]]:
    """Targets and the counts of drawn objects, aligned with `tile_xy (N, 2)`, of a table or an `.osm.pbf` extract.

    Several rows of one tile are averaged, of a class label the most frequent counts. Whole, non-negative numbers are
    counts and enter as log(1 + n). Labels on too few tiles are left out; `drawn:` columns are no targets.
    """
    table = read_extract(path, tile_xy, zoom) if path.suffix.lower() == ".pbf" else read_table(path)
    rows = TileGrid(tile_xy).rows(take_keys(table, path, zoom))
    inside = rows >= 0
    if not inside.any():
        raise UserError(
            f"no row of {path} lies on a tile of this city; expected x,y at zoom {zoom} or lat,lon in degrees"
        )
    drawn = {name: _mean_by_tile(table.pop(name), rows, len(tile_xy)) for name in list(table) if PREFIX_DRAWN in name}
    targets = []
    for name, column in table.items():
        target = _class_target if column.dtype == object else _number_target
        targets += target(name, column[inside], rows[inside], len(tile_xy))
    if not targets:
        raise UserError(
            f"{path} has no column that can be predicted; expected numbers or classes on {MIN_TILES}+ tiles"
        )
    return targets, drawn


def _mean_by_tile(column: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    column = column.astype(np.float64)
    kept = (rows >= 0) & ~np.isnan(column)
    total = np.bincount(rows[kept], column[kept], minlength=count)
    number = np.bincount(rows[kept], minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _number_target(name: str, column: np.ndarray, rows: np.ndarray, count: int) -> list[Target]:
    if column.ndim != 1:
        return []
    values = _mean_by_tile(column, rows, count)
    known = column[~np.isnan(column.astype(np.float64))]
    is_count = np.issubdtype(column.dtype, np.integer) and len(known) and known.min() >= 0
    too_few = (~np.isnan(values)).sum() < MIN_TILES or (is_count and (values > 0).sum() < MIN_SOME)
    if too_few or np.nanstd(values) == 0:
        return []
    return [Target(name, np.log1p(values) if is_count else values)]


def _class_target(name: str, column: np.ndarray, rows: np.ndarray, count: int) -> list[Target]:
    known = np.array([value is not None and value != "" for value in column], dtype=bool)
    if not known.any():
        return []
    names, codes = np.unique(column[known].astype(str), return_inverse=True)
    if len(names) > 64:  # names and addresses, not classes
        return []
    votes = np.zeros((count, len(names)))
    np.add.at(votes, (rows[known], codes), 1)
    values = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
    frequent = [code for code in range(len(names)) if (values == code).sum() >= MIN_SOME]
    if len(frequent) < 2:
        return []
    new = np.full(len(names) + 1, np.nan)
    new[frequent] = np.arange(len(frequent))
    return [Target(name, new[values], tuple(names[frequent]))]


def read_vectors(path: Path, zoom: int) -> tuple[np.ndarray, np.ndarray]:
    """`tile_xy (N, 2)` and `vectors (N, D)` of a table whose vectors are one list column, or columns such as e0, e1.

    Rows that a column `blank` marks, as `precompute_embeddings.py --export` writes it, are left out.
    """
    table = read_table(path)
    blank = table.pop("blank", None)
    tile_xy = take_keys(table, path, zoom)
    lists = [column for column in table.values() if column.ndim == 2]
    numbered = [table[name] for name in table if re.fullmatch(r"\D*\d+", name) and table[name].dtype != object]
    if not lists and len(numbered) < 2:
        raise UserError(f"{path} holds no vectors; expected one column of lists, or columns such as e0, e1, e2")
    vectors = lists[0] if lists else np.stack(numbered, axis=1)
    if len(vectors) != len(tile_xy):
        raise UserError(f"the vectors in {path} differ in length; expected the same length for every tile")
    kept = np.ones(len(tile_xy), dtype=bool) if blank is None else blank != "true"
    _, first = np.unique(tile_xy[kept], axis=0, return_index=True)
    return tile_xy[kept][first].astype(np.int32), np.nan_to_num(vectors[kept][first].astype(np.float32))


# --- probes ------------------------------------------------------------------------------------------------


def standardise(vectors: np.ndarray, train: np.ndarray) -> np.ndarray:
    """All vectors, centred and scaled by the training part alone."""
    part = vectors[train]
    scale = part.std(axis=0)
    return (vectors - part.mean(axis=0)) / np.where(scale > 1e-8, scale, 1)


def ridge_all(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Ridge predictions for every penalty: `x (n, D)`, `y (n, T)`, `x_test (m, D)` to `(A, m, T)`."""
    center = y.mean(axis=0)
    values, basis = np.linalg.eigh(x.T @ x)
    weights, test = basis.T @ (x.T @ (y - center)), x_test @ basis
    shrunk = 1 / (np.maximum(values, 0)[None] + ALPHAS[:, None] * len(x))  # (A, D)
    return np.stack([test @ (s[:, None] * weights) for s in shrunk]) + center


def r2(truth: np.ndarray, predicted: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Share of each column's variance that is explained; `truth (m, T)`, `predicted (..., m, T)`.

    The yardstick is the variance `(T,)` over all evaluated tiles, not over one fold: a quarter in which a label hardly
    varies would otherwise outweigh all others. The mean over folds is the R2 of all held-out predictions together.
    """
    error = ((truth - predicted) ** 2).mean(axis=-2)
    return 1 - error / np.where(variance > 0, variance, np.nan)


def ridge_scores(vectors: np.ndarray, values: np.ndarray, folds: Folds) -> np.ndarray:
    """R2 of ridge regression on each fold, `(F, T)`: the penalty is chosen on the other folds for each label."""
    scores, variance = np.full((FOLDS, values.shape[1]), np.nan), values.var(axis=0)
    for i, (train, test) in enumerate(folds.parts()):
        if test.sum() < 10 or train.sum() < 2 * FOLDS:
            continue
        x = standardise(vectors, train)
        inner = []
        for j, (inner_train, inner_test) in enumerate(folds.parts()):
            fit, check = train & inner_train, train & inner_test
            if j != i and check.sum() >= 10 and fit.sum() >= 10:
                inner.append(r2(values[check], ridge_all(x[fit], values[fit], x[check]), variance))
        best = (
            np.nan_to_num(np.mean(inner, axis=0)).argmax(axis=0)
            if inner
            else np.full(values.shape[1], len(ALPHAS) // 2)
        )
        outer = r2(values[test], ridge_all(x[train], values[train], x[test]), variance)
        scores[i] = outer[best, np.arange(len(best))]
    return scores


def nearest(queries: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Positions of the `k` nearest `others (M, D)` to each of `queries (Q, D)`, Euclidean."""
    others = torch.from_numpy(np.ascontiguousarray(others, dtype=np.float32))
    half = others.square().sum(1) / 2
    chunks = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)).split(1024)
    return torch.cat([(q @ others.T - half).topk(min(k, len(others)), dim=1).indices for q in chunks]).numpy()


def knn_scores(vectors: np.ndarray, values: np.ndarray, folds: Folds) -> np.ndarray:
    """R2 of the mean of the ten nearest training tiles, on each fold, `(F, T)`."""
    scores = np.full((FOLDS, values.shape[1]), np.nan)
    for i, (train, test) in enumerate(folds.parts()):
        if test.sum() >= 10 and train.sum() >= NEIGHBOURS:
            x = standardise(vectors, train)
            found = nearest(x[test], x[train], NEIGHBOURS)
            scores[i] = r2(values[test], values[train][found].mean(axis=1), values.var(axis=0))
    return scores


def logistic_scores(vectors: np.ndarray, codes: np.ndarray, folds: Folds) -> np.ndarray:
    """Macro F1 of multinomial logistic regression on each fold, `(F,)`."""
    scores = np.full(FOLDS, np.nan)
    for i, (train, test) in enumerate(folds.parts()):
        if test.sum() >= 10 and len(np.unique(codes[train])) > 1:
            x = standardise(vectors, train).astype(np.float32)
            probe = LogisticRegression(C=LOGISTIC_C, tol=1e-3, max_iter=200)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                probe.fit(x[train], codes[train])
            scores[i] = f1_score(codes[test], probe.predict(x[test]), average="macro", zero_division=0)
    return scores


def probe_figures(candidate: Candidate, targets: list[Target], blocked: Folds, random: Folds) -> list[Figure]:
    """Every probe of every label for one candidate; ridge on random folds beside the blocked ones."""
    figures, name = [], candidate.name
    for group in _same_tiles([target for target in targets if not target.classes]):
        known = group[0].known
        vectors = candidate.vectors[known].astype(np.float64)
        values = np.stack([target.values[known] for target in group], axis=1)
        for probe, scores, split, folds in (
            ("ridge R2", ridge_scores, "blocked", blocked),
            ("ridge R2", ridge_scores, "random", random),
            ("knn R2", knn_scores, "blocked", blocked),
        ):
            found = scores(vectors, values, folds.of(known))
            figures += [Figure(probe, name, found[:, i], t.name, split) for i, t in enumerate(group)]
    for target in targets:
        if target.classes:
            vectors, codes = candidate.vectors[target.known], target.values[target.known].astype(int)
            scores = logistic_scores(vectors, codes, blocked.of(target.known))
            figures.append(Figure("logistic F1", name, scores, target.name, "blocked"))
    return figures


def _same_tiles(targets: list[Target]) -> list[list[Target]]:
    """Targets known on the same tiles are solved together."""
    groups: dict[bytes, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.known.tobytes(), []).append(target)
    return list(groups.values())


# --- the shape of the space --------------------------------------------------------------------------------


def rankme(vectors: np.ndarray) -> float:
    """Effective rank: exp of the entropy of the singular values (Garrido et al. 2023, RankMe)."""
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(vectors.T.astype(np.float64) @ vectors), 0))
    share = values / values.sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def near_vectors(candidate: Candidate) -> np.ndarray:
    """Vectors whose Euclidean order is the candidate's own nearness: unit vectors, or standardised features."""
    vectors = candidate.vectors.astype(np.float32)
    if candidate.metric == "cosine":
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return standardise(vectors, np.ones(len(vectors), dtype=bool))


def triplet_accuracies(vectors: np.ndarray, tile_xy: np.ndarray, parts: list[np.ndarray], seed: int) -> np.ndarray:
    """Share of triplets in which a tile at most 2 away is nearer than one at least 10 away, within each part's rows."""
    scores = np.full(len(parts), np.nan)
    for i, rows in enumerate(parts):
        drawn = draw_triplets(tile_xy[rows], np.random.default_rng([seed, 0x73, i]))
        if len(drawn):
            anchor, positive, negative = vectors[rows[drawn.T]]
            near, far = (np.square(anchor - other).sum(axis=1) for other in (positive, negative))
            scores[i] = ((near < far) + 0.5 * (near == far)).mean()
    return scores


def draw_triplets(tile_xy: np.ndarray, rng: np.random.Generator, tries: int = 20000) -> np.ndarray:
    """Rows `(M, 3)` of tiles, tiles at most 2 away and tiles at least 10 away; empty where none lie that far."""
    anchor, negative = rng.integers(len(tile_xy), size=(2, tries))
    offset = rng.integers(-POS_RADIUS, POS_RADIUS + 1, size=(tries, 2))
    positive = TileGrid(tile_xy).rows(tile_xy[anchor] + offset)
    far = np.abs(tile_xy[anchor].astype(np.int64) - tile_xy[negative]).max(axis=1) >= NEG_RADIUS
    return np.stack([anchor, positive, negative], axis=1)[(positive >= 0) & offset.any(axis=1) & far]


def far_neighbours(vectors: np.ndarray, latlon: np.ndarray, km: float = FAR_KM) -> np.ndarray:
    """The ten nearest tiles farther than `km`, `(N, 10)` rows; -1 where the area is too small for ten."""
    place = _kilometres(latlon)
    vectors = torch.from_numpy(vectors)
    half = vectors.square().sum(1) / 2
    found = []
    for rows in torch.arange(len(vectors)).split(1024):
        likeness = vectors[rows] @ vectors.T - half
        likeness[(place[rows, None] - place[None]).square().sum(-1) <= km * km] = -torch.inf
        best = likeness.topk(min(NEIGHBOURS, len(vectors)), dim=1)
        found.append(torch.where(best.values.isinf().any(1, keepdim=True), -1, best.indices))
    return torch.cat(found).numpy()


def _kilometres(latlon: np.ndarray) -> torch.Tensor:
    middle = latlon.mean(axis=0)
    offset = (latlon - middle) * KM_PER_DEGREE * np.array([1, np.cos(np.radians(middle[0]))])
    return torch.from_numpy(offset.astype(np.float32))


def agreement(target: Target, neighbours: np.ndarray, seed: int) -> float:
    """How much more a tile shares a label with its far neighbours than with tiles at random: 0 is chance, 1 is equal.

    Numbers: 1 - mean |difference| / mean |difference| at random. Classes: share of equal ones, corrected for chance.
    """
    known = target.known
    some = known & (neighbours[:, 0] >= 0)
    pool = np.flatnonzero(known)
    if some.sum() < MIN_SOME:
        return float("nan")
    drawn = np.random.default_rng([seed, 0xA6]).choice(pool, (some.sum(), NEIGHBOURS))
    apart = _apart(target, target.values[some][:, None], target.values[neighbours[some]])
    return 1 - apart / _apart(target, target.values[some][:, None], target.values[drawn])


def _apart(target: Target, own: np.ndarray, others: np.ndarray) -> float:
    return float(
        np.nanmean(np.where(np.isnan(others), np.nan, own != others) if target.classes else np.abs(own - others))
    )


def space_figures(candidate: Candidate, area: Area, targets: list[Target], folds: Folds, seed: int) -> list[Figure]:
    """RankMe, triplet accuracy and agreement of far neighbours for one candidate."""
    vectors, name = near_vectors(candidate), candidate.name
    rows = far_neighbours(vectors, latlon_of_tile(area.tile_xy, area.zoom))
    parts = [np.flatnonzero(folds.fold == i) for i in range(FOLDS)]
    figures = [
        Figure("size", name, np.array([float(vectors.shape[1])])),
        Figure("RankMe", name, np.array([rankme(vectors)])),
        Figure("triplet accuracy", name, triplet_accuracies(vectors, area.tile_xy, parts, seed), split="blocked"),
    ]
    if area.held_out is not None and area.held_out.any():
        unseen = triplet_accuracies(vectors, area.tile_xy, [np.flatnonzero(area.held_out)], seed)
        figures.append(Figure("triplet accuracy", name, unseen, split="never trained on"))
    return figures + [
        Figure("far agreement", name, np.array([agreement(target, rows, seed)]), target.name) for target in targets
    ]


# --- baselines ---------------------------------------------------------------------------------------------


def baselines(
    store: TileStore, rows: np.ndarray, drawn: dict[str, np.ndarray], untrained: Candidate, seed: int
) -> list[Candidate]:
    """What needs no training, each at its own size and, where that is larger, cut to the encoder's size by PCA."""
    size = untrained.vectors.shape[1]
    found = [
        Candidate("coordinates", store.tile_xy[rows].astype(np.float64)),
        Candidate("coordinates, as waves", coordinate_waves(store.tile_xy[rows], size, seed)),
        Candidate("channel means + deviations", channel_statistics(store)[rows]),
        Candidate("brightness profiles", brightness_profiles(store, rows)),
        Candidate("PCA of pixels", pixel_pca(store, rows, seed)),
    ]
    by_layer = {name: column for name, column in drawn.items() if name.removeprefix(PREFIX_DRAWN) in LAYERS}
    by_class = {name: column for name, column in drawn.items() if name not in by_layer}
    for name, columns in (("counts per layer", by_layer), ("counts per class", by_class)):
        if columns:
            counts = np.log1p(np.nan_to_num(np.stack(list(columns.values()), axis=1)))
            found.append(Candidate(name, counts[:, counts.std(axis=0) > 0]))
    found += [cut_to(candidate, size) for candidate in found if candidate.vectors.shape[1] > size]
    return [*found, untrained]


def coordinate_waves(tile_xy: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Random Fourier features of the position, `(N, size)`: coordinates as rich as the vectors are."""
    place = (tile_xy - tile_xy.mean(axis=0)) / BLOCK
    waves = np.random.default_rng([seed, 0xC0]).normal(size=(2, size // 2))
    return np.concatenate([np.sin(place @ waves), np.cos(place @ waves)], axis=1)


def channel_statistics(store: TileStore) -> np.ndarray:
    """Mean and deviation of each layer's pixels, `(N, 24)`."""
    chunks = [store.planes[i : i + 256].reshape(-1, store.tile_size**2) for i in range(0, len(store.planes), 256)]
    deviation = np.concatenate([chunk.std(axis=1) for chunk in chunks]) / 255
    return np.concatenate([store.layer_mass, deviation[store.plane_of]], axis=1)


def brightness_profiles(store: TileStore, rows: np.ndarray) -> np.ndarray:
    """How much of each brightness every layer shows, `(N, 192)` at most: what `train.py --profile_dims` sums up."""
    parts = np.array_split(rows, -(-len(rows) // 128))
    profiles = torch.cat([brightness_profile(torch.from_numpy(store.tiles(part))) for part in parts]).numpy()
    return profiles[:, profiles.std(axis=0) > 0]


def pixel_pca(store: TileStore, rows: np.ndarray, seed: int) -> np.ndarray:
    """The first principal components of the tiles' pixels, shrunk to 16 px, `(N, 256)`."""
    step = store.tile_size // PCA_PX
    small = [
        store.tiles(part)
        .reshape(len(part), len(LAYERS), PCA_PX, step, PCA_PX, step)
        .mean(axis=(3, 5), dtype=np.float32)
        for part in np.array_split(rows, -(-len(rows) // 256))
    ]
    return principal(np.concatenate(small).reshape(len(rows), -1), PCA_SIZE, seed)


def principal(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Coordinates on the first `size` principal axes, `(N, size)`."""
    centred = torch.from_numpy(np.ascontiguousarray(vectors - vectors.mean(axis=0), dtype=np.float32))
    torch.manual_seed(seed)
    size = min(size, *centred.shape)
    _, _, axes = torch.svd_lowrank(centred, q=min(size + 10, *centred.shape), niter=3)
    return (centred @ axes[:, :size]).numpy()


def cut_to(candidate: Candidate, size: int) -> Candidate:
    """The same candidate at another size, by PCA of its standardised vectors."""
    whole = standardise(candidate.vectors, np.ones(len(candidate.vectors), dtype=bool))
    return Candidate(f"{candidate.name}, PCA {size}", principal(whole, size, 0))


def untrained_encoder(
    store: TileStore, rows: np.ndarray, size: int, device: torch.device, flags: EvaluateFlags, seed: int
) -> Candidate:
    """Vectors of an encoder that learned nothing."""
    torch.manual_seed(seed)
    encoder = Encoder(EncoderConfig(embedding_dim=size, tile_size=store.tile_size)).to(device).eval()
    return Candidate("untrained encoder", embed_tiles(encoder, store, rows, device, flags.batch_size), "cosine")


# --- differences -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Difference:
    """`first` minus `second` on the same folds: of one label, or of the mean over labels (`label` empty)."""

    first: str
    second: str
    label: str
    folds: np.ndarray
    p: float

    @property
    def value(self) -> float:
        """Mean over the folds."""
        return float(np.nanmean(self.folds)) if not np.isnan(self.folds).all() else float("nan")


def corrected_p(differences: np.ndarray) -> float:
    """Two-sided p of a paired t-test over folds, corrected for their common training tiles (Nadeau & Bengio 2003)."""
    known = differences[~np.isnan(differences)]
    if len(known) < 2 or known.std() == 0:
        return float("nan")
    error = np.sqrt((1 / len(known) + 1 / (FOLDS - 1)) * known.var(ddof=1))
    return float(2 * stats.t.sf(abs(known.mean()) / error, df=len(known) - 1))


def differences(figures: list[Figure], first: str, others: list[str]) -> list[Difference]:
    """Fold by fold: ridge R2 of `first` against every other candidate, by label and in the mean over labels."""
    folds = {(f.vectors, f.label): f.folds for f in figures if f.name == "ridge R2" and f.split == "blocked"}
    labels = [label for name, label in folds if name == first]
    found = []
    for other in others:
        by_label = {label: folds[first, label] - folds[other, label] for label in labels}
        by_label[""] = np.mean(list(by_label.values()), axis=0)
        found += [Difference(first, other, label, values, corrected_p(values)) for label, values in by_label.items()]
    return found


# --- the report --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that was measured, and on what."""

    candidates: list[str]
    targets: list[Target]
    figures: list[Figure]
    differences: list[Difference]
    facts: dict[str, float | str]

    def get(self, name: str, vectors: str, label: str = "", split: str = "blocked") -> Figure | None:
        """One figure, None where it was not measured."""
        wanted = (name, vectors, label, split)
        return next((f for f in self.figures if (f.name, f.vectors, f.label, f.split or split) == wanted), None)

    def mean(self, name: str, vectors: str, split: str = "blocked") -> Figure:
        """The mean over labels of a probe's scores, fold by fold."""
        folds = [f.folds for f in self.figures if (f.name, f.vectors, f.split or split) == (name, vectors, split)]
        return Figure(name, vectors, np.mean(folds, axis=0) if folds else np.array([np.nan]), "", split)

    def records(self) -> list[dict]:
        """One plain object per figure, as `--json` prints them."""
        common = {"tiles": self.facts["evaluated"]}
        rows = [
            {"name": f.name, "vectors": f.vectors, "label": f.label, "split": f.split, "value": _plain(f.value)}
            | {"deviation": _plain(f.deviation), "folds": [_plain(v) for v in f.folds], "unit": ""}
            for f in self.figures
        ]
        rows += [
            {"name": "difference of ridge R2", "vectors": d.first, "than": d.second, "label": d.label or "mean"}
            | {"split": "blocked", "value": _plain(d.value), "p": _plain(d.p), "folds": [_plain(v) for v in d.folds]}
            for d in self.differences
        ]
        return [row | common for row in rows]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def _score(figure: Figure | None, deviation: bool = False) -> str:
    if figure is None or np.isnan(figure.value):
        return "-"
    return f"{figure.value:.2f}" + (f" ±{figure.deviation:.2f}" if deviation else "")


def print_report(report: Report) -> None:
    """Facts, then one table for each question."""
    facts = report.facts
    print(f"{facts['evaluated']:,} tiles with content of {facts['tiles']:,}; {FOLDS} folds of {BLOCK} x {BLOCK} blocks")
    print(f"labels: {', '.join(f'{t.name} ({t.known.sum():,} tiles)' for t in report.targets)}")
    numbers = [t.name for t in report.targets if not t.classes]
    classes = [t.name for t in report.targets if t.classes]
    if numbers:
        print_table("Ridge R2, blocked folds (counts as log(1 + n))", *_label_table(report, "ridge R2", numbers))
        print_table("Ten nearest neighbours R2, blocked folds", *_label_table(report, "knn R2", numbers))
        print_table("Ridge R2, random folds: what leaks", *_label_table(report, "ridge R2", numbers, "random"))
    if classes:
        print_table("Logistic macro F1, blocked folds", *_label_table(report, "logistic F1", classes))
    print_table("The space", *_space_table(report))
    if report.differences:
        print_table("Fold by fold: difference of ridge R2 (p, corrected paired t-test)", *_difference_table(report))


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """A table in aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in [header, *rows]:
        first, rest = row[0].ljust(widths[0]), zip(row[1:], widths[1:], strict=True)
        print("  ".join([first, *(cell.rjust(width) for cell, width in rest)]).rstrip())


def _label_table(
    report: Report, probe: str, labels: list[str], split: str = "blocked"
) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in report.candidates:
        cells = [_score(report.get(probe, name, label, split), True) for label in labels]
        rows.append([name, _score(report.mean(probe, name, split), True), *cells])
    return ["vectors", "mean", *labels], rows


def _space_table(report: Report) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in report.candidates:
        size = report.get("size", name)
        single = [_score(report.get("RankMe", name)), _score(report.get("triplet accuracy", name), True)]
        unseen = _score(report.get("triplet accuracy", name, split="never trained on"))
        rows.append([name, f"{size.value:.0f}", *single, unseen, _score(report.mean("far agreement", name))])
    far = f"agreement of neighbours beyond {FAR_KM:g} km"
    return ["vectors", "size", "RankMe", "triplet accuracy", "never trained on", far], rows


def _difference_table(report: Report) -> tuple[list[str], list[list[str]]]:
    first = report.differences[0].first
    rows = []
    for other in dict.fromkeys(d.second for d in report.differences):
        own = [d for d in report.differences if d.second == other]
        won = sum(d.value > 0 for d in own if d.label)
        mean = next(d for d in own if not d.label)
        cells = [f"{mean.value:+.3f} ({mean.p:.3f})", f"{won} of {len(own) - 1}"]
        rows.append([f"{first} - {other}", *cells, *(f"{d.value:+.2f} ({d.p:.2f})" for d in own if d.label)])
    return ["difference", "mean (p)", "labels won", *(d.label for d in own if d.label)], rows


def plot_report(report: Report, path: Path) -> None:
    """One page of plots: scores by label, blocked against random folds, and the space."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [t.name for t in report.targets if not t.classes]
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(2, 2, figsize=(14, 10), layout="constrained", width_ratios=[2, 1])
        figure.suptitle(f"{report.candidates[0]} on {report.facts['evaluated']:,} tiles, blocked cross-validation")
        _plot_bars(axes[0, 0], report, "ridge R2", labels, "Ridge R2 by label, mean and deviation over 5 blocked folds")
        _plot_leak(axes[0, 1], report, labels)
        agreement_labels = [t.name for t in report.targets]
        _plot_bars(axes[1, 0], report, "far agreement", agreement_labels, f"Neighbours beyond {FAR_KM:g} km: agreement")
        _plot_space(axes[1, 1], report)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)
        pyplot.close(figure)


def _plot_bars(axes: "matplotlib.axes.Axes", report: Report, name: str, labels: list[str], title: str) -> None:  # noqa: F821
    width = 0.85 / max(1, len(report.candidates))
    for i, vectors in enumerate(report.candidates):
        found = [report.get(name, vectors, label) for label in labels]
        height = [max(-0.2, f.value) if f else np.nan for f in found]
        error = [f.deviation if f and len(f.folds) > 1 else 0 for f in found]
        place = np.arange(len(labels)) + i * width
        axes.bar(place, height, width, yerr=error, label=vectors, color=_colour(i), error_kw={"lw": 0.6})
    axes.set_xticks(np.arange(len(labels)) + 0.4, labels, rotation=20, ha="right")
    axes.set_title(title, loc="left")
    axes.axhline(0, color="black", lw=0.6)
    if name == "ridge R2":
        axes.legend(fontsize=7, ncols=2, frameon=False)


def _plot_leak(axes: "matplotlib.axes.Axes", report: Report, labels: list[str]) -> None:  # noqa: F821
    for i, vectors in enumerate(report.candidates):
        pairs = [
            [report.get("ridge R2", vectors, label, split).value for label in labels] for split in ("blocked", "random")
        ]
        axes.scatter(*np.maximum(pairs, -0.2), s=18, color=_colour(i))
    axes.plot([-0.2, 1], [-0.2, 1], color="gray", lw=0.8)
    axes.set(xlabel="blocked folds", ylabel="random folds")
    axes.set_title("What a random split leaks: ridge R2 above the line", loc="left")


def _plot_space(axes: "matplotlib.axes.Axes", report: Report) -> None:  # noqa: F821
    for i, vectors in enumerate(report.candidates):
        accuracy, far = report.get("triplet accuracy", vectors), report.mean("far agreement", vectors)
        axes.scatter(accuracy.value, far.value, color=_colour(i), s=28)
        axes.annotate(vectors, (accuracy.value, far.value), fontsize=7, xytext=(4, 3), textcoords="offset points")
    axes.set(xlabel="triplet accuracy", ylabel=f"agreement beyond {FAR_KM:g} km")
    axes.set_title("Nearness on the ground against sense", loc="left")


def _colour(i: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["tab20"](i % 20)


def write_report(report: Report, folder: Path) -> None:
    """Write quality.json and quality.png."""
    with atomic_write(folder / "quality.json", "w") as file:
        json.dump({"facts": report.facts, "figures": report.records()}, file, indent=1)
    plot_report(report, folder / "quality.png")


# --- the command -------------------------------------------------------------------------------------------


def evaluate(
    candidates: list[Candidate], targets: list[Target], area: Area, seed: int, facts: dict, against: list[str]
) -> Report:
    """Measure every candidate on every label; the first one is compared with `against`, fold by fold."""
    folds = blocked_folds(area.tile_xy, seed, richness(targets))
    random = random_folds(len(area.tile_xy), seed)
    figures: list[Figure] = []
    for candidate in progress(candidates, desc="evaluating", unit="vectors"):
        with threadpool_limits(1, "blas"):  # many small matrices: more threads only wait for each other
            figures += probe_figures(candidate, targets, folds, random)
        figures += space_figures(candidate, area, targets, folds, seed)
    found = differences(figures, candidates[0].name, against)
    return Report([c.name for c in candidates], targets, figures, found, facts)


def held_out(checkpoint: Checkpoint, store: TileStore) -> np.ndarray:
    """Which tiles of the store `(N,) bool` the checkpoint's encoder was not trained on: all those of another city."""
    unseen = np.ones(len(store), dtype=bool)
    settings = checkpoint.train_config
    if checkpoint.train_state.get("tiles") == store.content_key:
        trained, _ = spatial_split(store.tile_xy, settings["val_share"], seed=settings["seed"])
        unseen[trained] = False
    return unseen


def load_candidates(
    run: EvaluateFlags, tiles: TilesFlags, model_path: Path, device: str
) -> tuple[list[Candidate], Area]:
    """Vectors of a file, of a checkpoint or of two, on the tiles with content that they share."""
    if run.vectors is not None:
        tile_xy, vectors = read_vectors(run.vectors, tiles.zoom)
        store = None
        if run.baselines:
            store = open_store(tiles.tiles_root, PLAIN_PX, zoom=tiles.zoom, cache_dir=tiles.cache_dir)
            rows = store.grid.rows(tile_xy)
            kept = (rows >= 0) & ~store.blank[rows]
            tile_xy, vectors = tile_xy[kept], vectors[kept]
        name = run.vectors.stem or str(run.vectors)
        return [Candidate(name, vectors, "cosine")], Area(tile_xy, tiles.zoom, len(vectors), store)
    paths = run.vs or [model_path]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"--vs names the same checkpoint twice: {paths[0]}; name two")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    candidates, unseen = [], True
    for name, path in zip(names, paths, strict=True):
        city = load_city(tiles, path, device=device, batch_size=run.batch_size)
        content = ~city.embeddings.blank
        candidates.append(Candidate(name, city.embeddings.vectors[content], "cosine"))
        unseen = unseen & held_out(city.checkpoint, city.store)[content]
    area = Area(city.embeddings.tile_xy[content], city.store.zoom, len(city.embeddings), city.store, unseen)
    return candidates, area


def main() -> None:
    """Read the labels, gather the candidates, measure, print and write."""
    parser = Parser(__doc__)
    for group in (ModelFlags, TilesFlags, EvaluateFlags, DeviceFlags):
        add_flags(parser, group)
    args = parser.parse_args()
    run, tiles = read_flags(EvaluateFlags, args), read_flags(TilesFlags, args)
    if run.labels is None:
        raise UserError(
            "--labels is missing: `python render_tiles.py CITY.osm.pbf --labels labels.parquet` writes them"
        )
    candidates, area = load_candidates(run, tiles, args.model_path, args.device)
    targets, drawn = read_labels(run.labels, area.tile_xy, area.zoom)
    against = [candidates[1].name] if run.vs else []
    if run.baselines:
        size = candidates[0].vectors.shape[1]
        untrained = untrained_encoder(area.store, area.rows(), size, pick_device(args.device), run, args.seed)
        extra = baselines(area.store, area.rows(), drawn, untrained, args.seed)
        candidates, against = candidates + extra, against + [candidate.name for candidate in extra]
    facts = {"evaluated": len(area.tile_xy), "tiles": area.total, "labels": str(run.labels), "seed": args.seed}
    report = evaluate(candidates, targets, area, args.seed, facts, against)
    write_report(report, run.output_dir)
    if run.json:
        print("\n".join(json.dumps(record) for record in report.records()))
    else:
        print_report(report)
        print(f"\nwritten: {run.output_dir / 'quality.json'}, {run.output_dir / 'quality.png'}")


if __name__ == "__main__":
    run_main(main)
