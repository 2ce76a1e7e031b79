"""How much of a city the vectors know: blocked cross-validation on labels that are not drawn, beside baselines.

python evaluate.py --model_path checkpoints/best_model.pth --labels labels.parquet --baselines
python evaluate.py --vs checkpoints/A.pth checkpoints/B.pth --labels labels.parquet --json
python evaluate.py --vectors vectors.parquet --labels prices.csv
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from baselines import Candidate, baselines
from checkpoint import Checkpoint
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    UserError,
    add_flags,
    flag,
    positive_int,
    read_flags,
    run_main,
)
from devices import pick_device
from embeddings import load_city
from inference import embed_tiles
from label_tables import MIN_SOME, Target, read_labels, read_vectors
from model import Encoder, EncoderConfig
from probes import (
    FOLDS,
    NEIGHBOURS,
    Folds,
    blocked_folds,
    corrected_p,
    knn_scores,
    logistic_scores,
    random_folds,
    richness,
    ridge_scores,
    standardise,
)
from progress_bars import progress
from quality_report import FAR_KM, Difference, Figure, Report, print_report, write_report
from tile_grid import TileGrid, latlon_of_tile, spatial_split
from tile_store import TileStore, open_store
from vectors import rank_me, triplet_accuracy

POS_RADIUS, NEG_RADIUS = 2, 10  # of the triplets that are counted, whatever the encoder was trained on
PLAIN_PX = 64  # tile size for the baselines where no checkpoint says one
KM_PER_DEGREE = 111.32


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
            scores[i] = triplet_accuracy(*vectors[rows[drawn.T]])
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
        Figure("RankMe", name, np.array([rank_me(vectors)])),
        Figure("triplet accuracy", name, triplet_accuracies(vectors, area.tile_xy, parts, seed), split="blocked"),
    ]
    if area.held_out is not None and area.held_out.any():
        unseen = triplet_accuracies(vectors, area.tile_xy, [np.flatnonzero(area.held_out)], seed)
        figures.append(Figure("triplet accuracy", name, unseen, split="never trained on"))
    return figures + [
        Figure("far agreement", name, np.array([agreement(target, rows, seed)]), target.name) for target in targets
    ]


def untrained_encoder(
    store: TileStore, rows: np.ndarray, size: int, device: torch.device, flags: EvaluateFlags, seed: int
) -> Candidate:
    """Vectors of an encoder that learned nothing."""
    torch.manual_seed(seed)
    encoder = Encoder(EncoderConfig(embedding_dim=size, tile_size=store.tile_size)).to(device).eval()
    return Candidate("untrained encoder", embed_tiles(encoder, store, rows, device, flags.batch_size), "cosine")


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
        trained, _ = spatial_split(store.unwrapped_xy, settings["val_share"], seed=settings["seed"])
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
