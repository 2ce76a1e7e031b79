"""How much of a city the vectors know: blocked cross-validation on labels per tile, beside baselines.

python evaluate.py --model_path checkpoints/best_model.pth --labels labels.parquet --baselines
python evaluate.py --vs checkpoints/A.pth checkpoints/B.pth --labels labels.parquet --json
python evaluate.py --vectors vectors.parquet --labels prices.csv
python evaluate.py --model_path checkpoints/best_model.pth --labels districts.geojson
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from baselines import baselines, open_at, open_sharp
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
from inference import Embedder
from label_tables import Target, read_labels, read_vectors
from model import EncoderConfig, build_network
from probes import (
    FOLDS,
    Candidate,
    Folds,
    blocked_folds,
    knn_class_scores,
    knn_scores,
    logistic_scores,
    random_folds,
    richness,
    ridge_scores,
)
from progress_bars import progress
from quality_report import UNSEEN, Figure, Report, print_report, write_report
from tile_grid import latlon_of_tile, unwrapped
from tile_store import TileStore, open_store
from train_config import unseen_tiles
from vector_space import agreement, comparable_vectors, far_neighbours, triplet_accuracies
from vectors import rank_me

PLAIN_PX = 64  # tile size for the baselines if no checkpoint says one
UNTRAINED_PX = 64  # at 256 px the published encoder needs 16 times as long, minutes for a city on a CPU


@dataclasses.dataclass(frozen=True)
class EvaluateFlags:
    """Evaluation."""

    labels: Path | None = flag(
        None,
        "Parquet (render_tiles.py --labels) or CSV keyed by x,y or lat,lon, GeoJSON polygons, or an .osm.pbf",
        type=Path,
    )
    vectors: Path | None = flag(None, "evaluate these vectors (Parquet or CSV) instead of a checkpoint's", type=Path)
    vs: list[Path] | None = flag(None, "compare two checkpoints", type=Path, nargs=2, metavar=("A", "B"))
    baselines: bool = flag(False, "evaluate the baselines too")
    json: bool = flag(False, "print one JSON object per figure instead of the tables")
    output_dir: Path = flag(Path("reports"), "folder for quality.json and quality.png", type=Path)
    batch_size: int | None = flag(None, "tiles per forward pass; left out: what suits the device", type=positive_int)


@dataclasses.dataclass(frozen=True)
class Area:
    """The tiles that are evaluated, all with content: `tile_xy (N, 2)`, and their store if there is one.

    `unseen (N,) bool` are those of which no checkpoint saw a pixel in a training tile, if that is known; surroundings
    of training tiles may reach them. `total` counts blank tiles too.
    """

    tile_xy: np.ndarray
    zoom: int
    total: int
    store: TileStore | None = None
    unseen: np.ndarray | None = None

    @property
    def unwrapped_xy(self) -> np.ndarray:
        """`tile_xy` with columns that count on beyond 180 degrees."""
        return unwrapped(self.tile_xy, self.zoom)


def main() -> None:
    """Read vectors and labels, add baselines, measure each candidate, print and write the report."""
    parser = Parser(__doc__)
    for group in (ModelFlags, TilesFlags, EvaluateFlags, DeviceFlags):
        add_flags(parser, group)
    args = parser.parse_args()
    run, tiles, seed = read_flags(EvaluateFlags, args), read_flags(TilesFlags, args), args.seed
    if run.labels is None:
        raise UserError(
            "--labels is missing: `python render_tiles.py CITY.osm.pbf --labels labels.parquet` writes them"
        )

    # Candidates: the vectors of a file or of checkpoints, and the labels of the same tiles.
    candidates, area = load_candidates(run, tiles, args.model_path, args.device)
    targets, drawn = read_labels(run.labels, area.tile_xy, area.zoom)
    against = [candidates[1].name] if run.vs else []
    if run.baselines and area.store is not None:
        store, size = area.store, candidates[0].vectors.shape[1]
        small = store if store.tile_size <= UNTRAINED_PX else open_at(store, UNTRAINED_PX, tiles.cache_dir)
        untrained = untrained_encoder(small, area.tile_xy, size, pick_device(args.device), run.batch_size, seed)
        rows, sharp = store.grid.rows(area.tile_xy), open_sharp(store, tiles.cache_dir)
        extra = baselines(store, sharp, rows, drawn, untrained, seed)
        candidates, against = candidates + extra, against + [candidate.name for candidate in extra]

    # Folds, probes, and the shape of the space.
    blocked = blocked_folds(area.unwrapped_xy, seed, richness(targets))
    random = random_folds(len(area.tile_xy), seed)
    figures: list[Figure] = []
    for candidate in progress(candidates, desc="evaluating", unit="vectors"):
        with threadpool_limits(1, "blas"):  # the matrices are small; more threads only wait for each other
            figures += probe_figures(candidate, targets, blocked, random)
        figures += space_figures(candidate, area, targets, blocked, seed)

    # The report.
    facts = {"evaluated": len(area.tile_xy), "tiles": area.total, "labels": str(run.labels), "seed": seed}
    report = Report([candidate.name for candidate in candidates], targets, figures, facts, against)
    write_report(report, run.output_dir)
    if run.json:
        print("\n".join(json.dumps(record) for record in report.records()))
    else:
        print_report(report)
        print(f"\nwritten: {run.output_dir / 'quality.json'}, {run.output_dir / 'quality.png'}")


# --- candidates --------------------------------------------------------------------------------------------


def load_candidates(
    run: EvaluateFlags, tiles: TilesFlags, model_path: Path, device: str
) -> tuple[list[Candidate], Area]:
    """Vectors of a file, of a checkpoint or of two, on the tiles with content that they share."""
    if run.vectors is not None and run.vs is not None:
        raise UserError("--vectors evaluates a file and --vs two checkpoints; give one of them")
    if run.vectors is not None:
        tile_xy, vectors = read_vectors(run.vectors, tiles.zoom)
        store = None
        if run.baselines:
            store = open_store(tiles.tiles_root, PLAIN_PX, zoom=tiles.zoom, cache_dir=tiles.cache_dir, tms=tiles.tms)
            rows = store.grid.rows(tile_xy)
            kept = (rows >= 0) & ~store.blank[rows]
            tile_xy, vectors = tile_xy[kept], vectors[kept]
            if not len(tile_xy):
                raise UserError(
                    f"{run.vectors} and {tiles.tiles_root} have no tile with content in common; name the tiles of the "
                    "vectors with --tiles_root"
                )
        name = run.vectors.stem or str(run.vectors)
        return [Candidate(name, vectors, "cosine")], Area(tile_xy, tiles.zoom, len(vectors), store)
    paths = run.vs or [model_path]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"--vs names the same checkpoint twice: {paths[0]}; name two")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    cities = [load_city(tiles, path, device=device, batch_size=run.batch_size) for path in paths]
    tile_xy = cities[0].with_content().embeddings.tile_xy
    for city in cities[1:]:  # at another size, another tile may be blank
        tile_xy = tile_xy[city.embeddings.with_content().rows(tile_xy) >= 0]
    if not len(tile_xy):
        raise UserError(f"no tile of {tiles.tiles_root} shows something at every tile size that is compared")
    candidates, unseen = [], np.ones(len(tile_xy), dtype=bool)
    for name, city in zip(names, cities, strict=True):
        candidates.append(Candidate(name, city.embeddings.vectors[city.embeddings.rows(tile_xy)], "cosine"))
        unseen &= unseen_tiles(city.store, city.checkpoint)[city.store.grid.rows(tile_xy)]
    return candidates, Area(tile_xy, city.store.zoom, len(city.embeddings), city.store, unseen)


def untrained_encoder(
    store: TileStore, tile_xy: np.ndarray, size: int, device: torch.device, batch_size: int | None, seed: int
) -> Candidate:
    """Vectors of the published encoder with random weights."""
    torch.manual_seed(seed)
    encoder = build_network(EncoderConfig(embedding_dim=size, tile_size=store.tile_size)).to(device).eval()
    vectors = Embedder(encoder, store, device, batch_size).embed_tiles(store.grid.rows(tile_xy))
    return Candidate(f"untrained encoder, {store.tile_size} px", vectors, "cosine")


# --- figures of one candidate ------------------------------------------------------------------------------


def probe_figures(candidate: Candidate, targets: list[Target], blocked: Folds, random: Folds) -> list[Figure]:
    """Every probe of every label for one candidate; ridge on random folds beside the blocked ones."""
    figures, name = [], candidate.name
    cosine = "cosine" if candidate.metric == "cosine" else "standardised cosine"
    same_tiles: dict[bytes, list[Target]] = {}  # labels known on the same tiles are solved together
    for target in targets:
        if not target.classes:
            same_tiles.setdefault(target.known.tobytes(), []).append(target)
    for group in same_tiles.values():
        known = group[0].known
        vectors = candidate.vectors[known].astype(np.float64)
        values = np.stack([target.values[known] for target in group], axis=1)
        inside, anywhere = blocked.of(known), random.of(known)
        for probe, split, scores in (
            ("ridge R2", "blocked", ridge_scores(vectors, values, inside)),
            ("ridge R2", "random", ridge_scores(vectors, values, anywhere)),
            ("knn R2", "blocked", knn_scores(vectors, values, inside)),
            ("cosine knn R2", "blocked", knn_scores(vectors, values, inside, cosine)),
        ):
            figures += [Figure(probe, name, scores[:, i], t.name, split) for i, t in enumerate(group)]
    for target in targets:
        if target.classes:
            vectors, codes = candidate.vectors[target.known], target.values[target.known].astype(int)
            inside = blocked.of(target.known)
            for probe, scores in (
                ("logistic F1", logistic_scores(vectors, codes, inside)),
                ("cosine knn F1", knn_class_scores(vectors, codes, inside, cosine)),
            ):
                figures.append(Figure(probe, name, scores, target.name, "blocked"))
    return figures


def space_figures(candidate: Candidate, area: Area, targets: list[Target], folds: Folds, seed: int) -> list[Figure]:
    """Size, RankMe, triplet accuracy and agreement of far neighbours for one candidate."""
    vectors, name = comparable_vectors(candidate), candidate.name
    parts = [np.flatnonzero(folds.fold == i) for i in range(FOLDS)]
    figures = [
        Figure("size", name, np.array([float(vectors.shape[1])])),
        Figure("RankMe", name, np.array([rank_me(vectors)])),
        Figure("triplet accuracy", name, triplet_accuracies(vectors, area.unwrapped_xy, parts, seed), split="blocked"),
    ]
    if area.unseen is not None and area.unseen.any():
        unseen = triplet_accuracies(vectors, area.unwrapped_xy, [np.flatnonzero(area.unseen)], seed)
        figures.append(Figure("triplet accuracy", name, unseen, split=UNSEEN))
    far = far_neighbours(vectors, latlon_of_tile(area.unwrapped_xy, area.zoom))
    return figures + [
        Figure("far agreement", name, np.array([agreement(target, far, seed)]), target.name) for target in targets
    ]


if __name__ == "__main__":
    run_main(main)
