"""Twelve-layer map tiles: find them, pack them once, memory-map them, draw pairs and triplets.

python data_loader.py
python data_loader.py --tiles_root 12_layer_tiles/tiles --tile_size 128 --batch_size 16
"""

import dataclasses
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cli import (
    DeviceFlags,
    Parser,
    TilesFlags,
    UserError,
    add_flags,
    count_float,
    flag,
    fraction,
    positive_int,
    read_flags,
    run_main,
)
from layers import LAYERS
from tile_grid import TileGrid
from tile_store import StoreFlags, TileStore, open_configured

# --- pairs and triplets ------------------------------------------------------------------------------------


class TripletSampler:
    """Draws (anchor, positive, negative) rows, vectorised, O(1) per sample, the same for the same seed and epoch.

    `rows` limits every role to those tiles; wholly blank tiles and tiles without a neighbour never are anchors.
    Distances are Chebyshev, in tiles: positives lie within `pos_radius` and are never the anchor itself; negatives
    lie at least `neg_radius` away. Raises `UserError` when the area cannot give such triplets.
    """

    def __init__(
        self,
        store: TileStore,
        pos_radius: int,
        neg_radius: int,
        seed: int = 0,
        rows: np.ndarray | None = None,
    ):
        if neg_radius <= pos_radius:
            raise UserError(
                f"--neg_radius {neg_radius} must be larger than --pos_radius {pos_radius}: "
                "a tile cannot be near and far at once"
            )
        rows = np.arange(len(store)) if rows is None else np.asarray(rows)
        rows = rows[~store.blank[rows]]
        if not len(rows):
            raise UserError(f"every tile of {store.tiles_root} is blank; nothing to train on")
        self.xy, self.rows, self.seed = store.unwrapped_xy.astype(np.int64), rows, seed
        self.pos_radius, self.neg_radius = pos_radius, neg_radius
        self.content = store.layer_intensity.sum(axis=1)
        self.grid = TileGrid(store.tile_xy[rows], store.zoom)  # gives positions in `rows`
        step = np.arange(-pos_radius, pos_radius + 1)
        offsets = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
        self.offsets = offsets[offsets.any(axis=1)]
        near = self._any_near(rows)
        self.anchors = rows[near & self._any_far(rows)]
        if not len(self.anchors):
            what = f"lies {neg_radius} tiles from another" if near.any() else f"has a neighbour within {pos_radius}"
            mend = "a smaller --neg_radius" if near.any() else "a larger --pos_radius"
            raise UserError(f"no tile with content of {store.tiles_root} {what}; {mend} or a larger area is needed")

    def epoch(self, epoch: int, max_samples: int, anchors: np.ndarray | None = None) -> np.ndarray:
        """The triplets of one epoch as rows `(M, 3) int64`: every anchor equally often up to `max_samples`."""
        rng = np.random.default_rng([self.seed, epoch])
        anchors = self.anchors if anchors is None else anchors
        rounds = -(-max_samples // len(anchors))
        drawn = np.concatenate([rng.permutation(anchors) for _ in range(rounds)])[:max_samples]
        return np.stack([drawn, self.positives(drawn, rng), self.negatives(drawn, rng)], axis=1)

    def positives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One row within `pos_radius` of each anchor `(B,)`, uniformly among those that exist."""
        chunk = max(1, (1 << 22) // len(self.offsets))
        return np.concatenate([self._near(anchors[i : i + chunk], rng) for i in range(0, len(anchors), chunk)])

    def _near(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        found = self.grid.rows(self.xy[anchors][:, None] + self.offsets)  # (B, K)
        chosen = np.where(found >= 0, rng.random(found.shape, dtype=np.float32), -1).argmax(axis=1)
        return self.rows[found[np.arange(len(anchors)), chosen]]

    def negatives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One row at least `neg_radius` from each anchor `(B,)`, uniformly among all such."""
        drawn = self.rows[rng.integers(len(self.rows), size=len(anchors))]
        near = self._distance(anchors, drawn) < self.neg_radius
        for _ in range(64):
            if not near.any():
                return drawn
            drawn[near] = self.rows[rng.integers(len(self.rows), size=int(near.sum()))]
            near = self._distance(anchors, drawn) < self.neg_radius
        for i in np.flatnonzero(near):  # hardly any tile lies far enough: choose among those that do
            far = self.rows[self._distance(anchors[i], self.rows) >= self.neg_radius]
            drawn[i] = rng.choice(far)
        return drawn

    def thinned(self, epoch: int, thin: float) -> np.ndarray:
        """Anchors of an epoch when those with less than `thin` of drawn ground are kept in proportion to it.

        Drawn ground is the mean brightness of a tile summed over its layers; 0 thins nothing.
        """
        share = self.content[self.anchors] / max(thin, 1e-9)
        kept = self.anchors[np.random.default_rng([self.seed, epoch, 0x7]).random(len(share)) < share]
        return kept if len(kept) else self.anchors

    def windows(self, triplets: np.ndarray, jitter: float, tile_size: int, rng: np.random.Generator) -> np.ndarray:
        """Windows for triplets (or pairs) of rows `(B, K)`: their upper left pixels `(B, K, 2) int64`.

        Every window is shifted by up to half of `jitter` tiles (at most half a tile) from its tile; the positive is
        not the neighbouring tile but lies within `jitter` tiles of the anchor's window. None leaves the area.
        """
        reach = min(jitter, 1.0) / 2 * tile_size
        origin = self.xy[triplets] * tile_size + rng.uniform(-reach, reach, (*triplets.shape, 2))
        shift = rng.uniform(-jitter * tile_size, jitter * tile_size, (len(triplets), 2))
        origin[:, 1] = origin[:, 0] + shift
        low, high = self.xy[self.rows].min(axis=0) * tile_size, self.xy[self.rows].max(axis=0) * tile_size
        return np.clip(np.rint(origin), low, high).astype(np.int64)

    def _distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.abs(self.xy[a] - self.xy[b]).max(axis=-1)

    def _any_near(self, rows: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows), dtype=bool)
        for offset in self.offsets:
            found |= self.grid.rows(self.xy[rows] + offset) >= 0
        return found

    def _any_far(self, rows: np.ndarray) -> np.ndarray:
        """Some tile lies far away exactly when one of the area's outermost tiles does."""
        low, high = self.xy[self.rows].min(axis=0), self.xy[self.rows].max(axis=0)
        return np.maximum(self.xy[rows] - low, high - self.xy[rows]).max(axis=1) >= self.neg_radius


class TileDataset(Dataset):
    """Every tile once: item i is `(tile (12, S, S) float32 in 0..1, (x, y) int64)`, for `torch` DataLoaders."""

    def __init__(self, store: TileStore):
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return to_float(torch.from_numpy(self.store.tiles(np.array([row]))))[0], torch.tensor(
            self.store.tile_xy[row]
        ).long()


class TripletDataset(Dataset):
    """One epoch of triplets: item i is (anchor, positive, negative), each `(12, S, S) float32` in 0..1."""

    def __init__(self, store: TileStore, sampler: TripletSampler, max_samples: int):
        self.store, self.sampler, self.max_samples = store, sampler, max_samples
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the triplets of another epoch."""
        self.triplets = self.sampler.epoch(epoch, self.max_samples)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
        return tuple(to_float(torch.from_numpy(self.store.tiles(self.triplets[i]))))


# --- on the device -----------------------------------------------------------------------------------------


def to_float(tiles: torch.Tensor) -> torch.Tensor:
    """`uint8` tiles as float32 in 0..1."""
    return tiles.float().div_(255)


def network_input(tiles: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`uint8` tiles `(B, 12, S, S)` as a network takes them: 0 to 1 in `dtype`, in `channels_last` order."""
    return tiles.contiguous(memory_format=torch.channels_last).to(dtype).div_(255)


class DeviceTiles:
    """The store as tensors where the network runs: kept on the device when it fits, else copied batch by batch.

    `tiles` and `windows` answer as `TileStore`'s do, with `(B, 12, S, S) uint8` tensors on `device`.
    """

    def __init__(self, store: TileStore, device: torch.device):
        self.store, self.device = store, device
        self.resident = device.type == "cuda" and store.planes.nbytes < 0.5 * torch.cuda.mem_get_info(device)[0]
        if self.resident:
            self.planes = torch.from_numpy(np.array(store.planes)).to(device)
            self.plane_of = (
                torch.from_numpy(np.concatenate([store.plane_of, np.zeros((1, len(LAYERS)), np.int32)])).to(device).long()
            )
            self.table = torch.from_numpy(store.grid.table.copy()).to(device).long()
            self.origin = torch.from_numpy(store.grid.origin).to(device)

    def tiles(self, rows: np.ndarray) -> torch.Tensor:
        """The tiles of `rows (B,)`; -1 gives a blank tile."""
        if not self.resident:
            return self._copy(self.store.tiles(rows))
        return self.planes[self.plane_of[torch.as_tensor(rows).to(self.device, non_blocking=True)]]

    def windows(self, origin_px: np.ndarray) -> torch.Tensor:
        """Windows whose upper left pixel is `origin_px (B, 2)`; see `TileStore.windows`."""
        if not self.resident:
            return self._copy(self.store.windows(origin_px))
        return window_gather(
            self.planes,
            self.plane_of,
            self.table,
            self.origin,
            torch.as_tensor(origin_px).to(self.device, non_blocking=True),
            self.store.grid.columns_around,
        )

    def _copy(self, tiles: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(tiles)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def window_gather(
    planes: torch.Tensor,
    plane_of: torch.Tensor,
    table: torch.Tensor,
    origin: torch.Tensor,
    origin_px: torch.Tensor,
    columns_around: int = 0,
) -> torch.Tensor:
    """Cut windows on the device in one gather: `origin_px (B, 2)` to `(B, 12, S, S) uint8`.

    `planes (P, S, S)`, `plane_of (N + 1, 12)` whose last row is blank, `table` and `origin` of the `TileGrid`.
    With `columns_around` the windows may cross 180 degrees.
    """
    size = planes.shape[-1]
    pixel = origin_px[:, :, None] + torch.arange(size, device=planes.device)  # (B, 2, S)
    tile, local = pixel // size - origin[:, None], pixel % size
    if columns_around:
        tile[:, 0] %= columns_around
    limit = torch.tensor(table.shape, device=planes.device)[:, None]
    inside = (tile >= 0) & (tile < limit)
    tile = torch.where(inside, tile, 0)
    rows = table[tile[:, 0, None, :], tile[:, 1, :, None]]  # (B, S rows, S columns)
    rows = torch.where(inside[:, 0, None, :] & inside[:, 1, :, None], rows, -1)
    plane = plane_of[rows].permute(0, 3, 1, 2)  # (B, 12, S, S)
    flat = (plane * size + local[:, 1, None, :, None]) * size + local[:, 0, None, None, :]
    return planes.reshape(-1)[flat]


def augment(
    tiles: torch.Tensor,
    generator: torch.Generator,
    *,
    turn: bool = True,
    channel_dropout: float = 0.0,
    part: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """Turn and mirror each tile at random (the 8 symmetries of the square) and blank each layer by chance.

    `tiles (B, 12, S, S)` of any dtype, on any device; `generator` lives on the CPU, so that every device draws alike.
    `part` says that the tiles are this part of so many of a larger batch, for which chance is drawn as a whole.
    Blanking layers is Sentiance's cure for the trivial solution that only matches what two windows share.
    """
    part_index, parts = part
    own = slice(part_index * len(tiles), (part_index + 1) * len(tiles))
    if turn:
        symmetry = torch.randint(8, (parts * len(tiles),), generator=generator)[own]
        turned = torch.empty_like(tiles)
        for kind in range(8):
            index = (symmetry == kind).nonzero().flatten().to(tiles.device)
            image = tiles[index].rot90(kind % 4, dims=(2, 3))
            turned[index] = image.flip(3) if kind >= 4 else image
        tiles = turned
    if channel_dropout > 0:
        chance = torch.rand((parts * len(tiles), tiles.shape[1], 1, 1), generator=generator)[own]
        keep = chance >= channel_dropout
        tiles = tiles * keep.to(tiles.device, tiles.dtype, non_blocking=True)
    return tiles


# --- the command -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SampleFlags:
    """Sampling of triplets."""

    batch_size: int = flag(16, "triplets per batch", type=positive_int)
    pos_radius: int = flag(2, "positives lie within this many tiles of the anchor", type=positive_int)
    neg_radius: int = flag(10, "negatives lie at least this many tiles from the anchor", type=positive_int)
    max_samples: int = flag(10000, "triplets per epoch", type=positive_int)
    thin: float = flag(0.0, "draw anchors with less drawn ground than this (0.02, say) less often", type=count_float)


@dataclasses.dataclass(frozen=True)
class AugmentFlags:
    """Augmentation."""

    jitter: float = flag(
        0.0,
        "positives are windows within this many tiles of the anchor, at any pixel; 0: whole tiles",
        type=count_float,
    )
    turn: bool = flag(False, "turn and mirror each tile at random")
    channel_dropout: float = flag(0.0, "chance that a layer of a tile is blanked", type=fraction)


def main() -> None:
    """Print what the tiles folder holds and what a batch looks like."""
    parser = Parser(__doc__)
    for group in (TilesFlags, StoreFlags):
        add_flags(parser, group)
    add_flags(parser, SampleFlags, only=["batch_size", "pos_radius", "neg_radius"])
    add_flags(parser, DeviceFlags, only=["seed"])
    args = parser.parse_args()
    tiles, packing = read_flags(TilesFlags, args), read_flags(StoreFlags, args)
    started = time.perf_counter()
    store = open_configured(tiles, packing)
    print_store(store, time.perf_counter() - started)
    sampler = TripletSampler(store, args.pos_radius, args.neg_radius, args.seed)
    loader = DataLoader(TripletDataset(store, sampler, args.batch_size), batch_size=args.batch_size)
    for name, batch in zip(("anchor", "positive", "negative"), next(iter(loader)), strict=True):
        print(f"sample batch, {name}: {tuple(batch.shape)} {batch.dtype}, {batch.min():.2f} to {batch.max():.2f}")


def print_store(store: TileStore, seconds: float) -> None:
    """Print layers, tiles per layer, common coordinates, blank share and packing time."""
    counts, blank = store.meta["layer_counts"], (store.plane_of == 0).mean(axis=0)
    print(f"layers found: {len(counts)} of {len(LAYERS)}")
    for layer, share in zip(LAYERS, blank, strict=True):
        print(f"  {layer:<17} {counts[layer]:>8,} tiles, {share:6.1%} blank")
    low, high = store.tile_xy.min(axis=0), store.tile_xy.max(axis=0)
    print(f"common coordinates: {len(store):,} (x {low[0]}-{high[0]}, y {low[1]}-{high[1]}, zoom {store.zoom})")
    for note in store.meta["notes"]:
        print(f"note: {note}")
    print(f"unreadable files: {len(store.meta['unreadable'])}")
    print(f"wholly blank tiles: {store.blank.mean():.1%}")
    size = store.planes.nbytes / 1e6
    print(
        f"packed: {len(store.planes):,} distinct planes of {store.tile_size} px, {size:,.0f} MB, in "
        f"{store.meta['pack_seconds']:.1f} s; opened in {seconds:.2f} s"
    )


if __name__ == "__main__":
    run_main(main)
