"""The shape of a vector space: triplet accuracy of near tiles, and agreement of far neighbours on labels.

Not a command; `python evaluate.py` prints these figures.
"""

import numpy as np
import torch

from label_tables import MIN_SOME, Target
from probes import NEIGHBOURS, Candidate, standardise
from similarity import unit
from tile_grid import KM_PER_DEGREE, TileGrid
from vectors import triplet_accuracy

POS_RADIUS, NEG_RADIUS = 2, 10  # tiles; of the triplets that are counted, whatever the encoder was trained on
FAR_KM = 2.0


def comparable_vectors(candidate: Candidate) -> np.ndarray:
    """`(N, D) float32` whose Euclidean distances rank tiles by the candidate's own metric."""
    vectors = candidate.vectors.astype(np.float32)
    if candidate.metric == "cosine":
        return unit(vectors)
    return standardise(vectors, np.ones(len(vectors), dtype=bool))


def triplet_accuracies(vectors: np.ndarray, tile_xy: np.ndarray, parts: list[np.ndarray], seed: int) -> np.ndarray:
    """Share of triplets in which a tile at most 2 away is nearer than one at least 10 away, within each part's rows.

    Columns of `tile_xy (N, 2)` count on beyond 180 degrees.
    """
    scores = np.full(len(parts), np.nan)
    for i, rows in enumerate(parts):
        drawn = draw_triplets(tile_xy[rows], np.random.default_rng([seed, 0x73, i]))
        if len(drawn):
            scores[i] = triplet_accuracy(*vectors[rows[drawn.T]])
    return scores


def draw_triplets(tile_xy: np.ndarray, rng: np.random.Generator, tries: int = 20000) -> np.ndarray:
    """Rows `(M, 3)` of tiles, tiles at most 2 away and tiles at least 10 away; empty if none lie that far."""
    anchor, negative = rng.integers(len(tile_xy), size=(2, tries))
    offset = rng.integers(-POS_RADIUS, POS_RADIUS + 1, size=(tries, 2))
    positive = TileGrid(tile_xy).rows(tile_xy[anchor] + offset)
    far = np.abs(tile_xy[anchor].astype(np.int64) - tile_xy[negative]).max(axis=1) >= NEG_RADIUS
    return np.stack([anchor, positive, negative], axis=1)[(positive >= 0) & offset.any(axis=1) & far]


def far_neighbours(vectors: np.ndarray, latlon: np.ndarray, km: float = FAR_KM) -> np.ndarray:
    """The ten nearest tiles farther than `km`, `(N, 10)` rows; -1 where the area is too small for ten."""
    middle = latlon.mean(axis=0)  # a flat map is exact enough for a city, and quick for all pairs of tiles
    east_north = (latlon - middle) * KM_PER_DEGREE * np.array([1, np.cos(np.radians(middle[0]))])
    place, points = torch.from_numpy(east_north.astype(np.float32)), torch.from_numpy(vectors)
    half = points.square().sum(1) / 2
    found = []
    for rows in torch.arange(len(points)).split(1024):
        likeness = points[rows] @ points.T - half
        likeness[(place[rows, None] - place[None]).square().sum(-1) <= km * km] = -torch.inf
        best = likeness.topk(min(NEIGHBOURS, len(points)), dim=1)
        found.append(torch.where(best.values.isinf().any(1, keepdim=True), -1, best.indices))
    return torch.cat(found).numpy()


def agreement(target: Target, neighbours: np.ndarray, seed: int) -> float:
    """How much more a tile shares a label with its far neighbours than with random tiles: 0 is chance, 1 is equal.

    Numbers: 1 - mean |difference| / mean |difference| at random. Classes: share of equal ones, corrected for chance.
    NaN if fewer than 50 tiles have both.
    """
    known = target.known
    some = known & (neighbours[:, 0] >= 0)
    if some.sum() < MIN_SOME:
        return float("nan")
    random = np.random.default_rng([seed, 0xA6]).choice(np.flatnonzero(known), (some.sum(), NEIGHBOURS))
    own = target.values[some][:, None]
    distance = [
        np.nanmean(np.where(np.isnan(other), np.nan, own != other) if target.classes else np.abs(own - other))
        for other in (target.values[neighbours[some]], target.values[random])
    ]
    return float(1 - distance[0] / distance[1])
