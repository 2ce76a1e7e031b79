"""Hex2Vec vectors of all tags of an extract, to compare with in `evaluate.py --vectors`.

python tests/hex2vec_vectors.py sample_data/astana.osm.pbf --tiles_root 12_layer_tiles/tiles --output hex2vec.parquet
python evaluate.py --vectors hex2vec.parquet --labels labels.parquet

After Wozniak and Szymanski 2021 (Hex2vec: Context-Aware Embedding H3 Hexagons with OpenStreetMap Tags): every value of
its 15 keys is counted in each cell, three linear layers of 150, 75 and 50 with ReLUs encode the counts, and a skip-gram
loss separates neighbouring cells from random ones. Cells here are the map tiles, so that all vectors are evaluated on
the same tiles. A way counts in every tile that one of its nodes lies in.
"""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import itertools

import numpy as np
import osmium
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import nn

from cli import Parser, TilesFlags, add_flags, count_int, read_flags, run_main
from progress_bars import progress
from tile_grid import TileGrid, tile_of_latlon
from tile_store import open_store

KEYS = [
    "aeroway",
    "amenity",
    "building",
    "healthcare",
    "historic",
    "landuse",
    "leisure",
    "military",
    "natural",
    "office",
    "shop",
    "sport",
    "tourism",
    "water",
    "waterway",
]
SIZES = (150, 75, 50)
RARE = 5  # a value on fewer objects is left out
NEAR, FAR = 1, 3  # tiles: neighbours, and what counts as elsewhere
BATCH, LEARNING_RATE = 256, 1e-3


def tag_counts(extract: Path, tile_xy: np.ndarray, zoom: int) -> np.ndarray:
    """How many objects with each value of `KEYS` every tile of `tile_xy (N, 2)` has, `(N, values) float32`."""
    grid = TileGrid(tile_xy)
    counts: Counter[tuple[int, str]] = Counter()
    objects: Counter[str] = Counter()
    kinds = osmium.osm.NODE | osmium.osm.WAY
    reader = osmium.FileProcessor(str(extract), kinds).with_locations().with_filter(osmium.filter.KeyFilter(*KEYS))
    for found in reader:
        values = [f"{key}={found.tags[key]}" for key in KEYS if key in found.tags]
        refs = [found] if found.is_node() else found.nodes
        places = [(ref.location.lat, ref.location.lon) for ref in refs if ref.location.valid()]
        tiles = np.floor(tile_of_latlon(*np.array(places).reshape(-1, 2).T, zoom)).astype(np.int64)
        rows = set(grid.rows(tiles).tolist()) - {-1}
        objects.update(values if rows else [])
        counts.update((row, value) for row in rows for value in values)
    column_of = {value: i for i, value in enumerate(sorted(value for value, n in objects.items() if n >= RARE))}
    matrix = np.zeros((len(tile_xy), len(column_of)), dtype=np.float32)
    for (row, value), count in counts.items():
        if value in column_of:
            matrix[row, column_of[value]] = count
    return matrix


def train(counts: np.ndarray, tile_xy: np.ndarray, epochs: int, seed: int) -> np.ndarray:
    """Vectors `(N, 50)` whose dot products are large for neighbours and small for tiles elsewhere."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    grid, tags = TileGrid(tile_xy), torch.from_numpy(counts)
    sizes = (counts.shape[1], *SIZES)
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    encoder = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(encoder.parameters(), LEARNING_RATE)
    for _ in progress(range(epochs), desc="Hex2Vec", unit=" epochs"):
        anchors = rng.permutation(len(tile_xy))
        for own in np.array_split(anchors, max(1, len(anchors) // BATCH)):
            near = grid.rows(tile_xy[own] + rng.integers(-NEAR, NEAR + 1, size=(len(own), 2)))
            away = rng.integers(len(tile_xy), size=len(own))
            apart = np.abs(tile_xy[own].astype(int) - tile_xy[away]).max(axis=1) >= FAR
            a, b, c = (encoder(tags[rows]) for rows in (own, np.maximum(near, 0), away))
            alike = F.logsigmoid((a * b).sum(1))[torch.from_numpy((near >= 0) & (near != own))]
            other = F.logsigmoid(-(a * c).sum(1))[torch.from_numpy(apart)]
            loss = -(torch.cat([alike, other]).mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        return encoder(tags).numpy()


def main() -> None:
    """Read the flags, count, train, write."""
    parser = Parser(__doc__)
    parser.add_argument("extract", type=Path, help=".osm.pbf that the tiles were drawn from")
    parser.add_argument("--output", type=Path, default=Path("hex2vec.parquet"), help="Parquet to write")
    parser.add_argument("--epochs", type=count_int, default=50, help="times every tile is an anchor")
    parser.add_argument("--seed", type=count_int, default=42, help="seed of everything random")
    add_flags(parser, TilesFlags)
    args = parser.parse_args()
    tiles = read_flags(TilesFlags, args)
    store = open_store(tiles.tiles_root, 32, zoom=tiles.zoom, cache_dir=tiles.cache_dir, tms=tiles.tms)
    tile_xy = store.tile_xy[~store.blank]
    counts = tag_counts(args.extract, tile_xy, tiles.zoom)
    vectors = train(counts, tile_xy, args.epochs, args.seed)
    table = {"x": tile_xy[:, 0], "y": tile_xy[:, 1]} | {f"v{i}": column for i, column in enumerate(vectors.T)}
    pq.write_table(pa.table(table), args.output)
    print(f"written: {args.output}, {len(vectors):,} tiles, {counts.shape[1]} values counted")


if __name__ == "__main__":
    run_main(main)
