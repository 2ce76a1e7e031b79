"""The training data: a Dataset of a city's tiles, and a Dataset of training batches drawn from it.

python data_loader.py
python data_loader.py --tiles_root 12_layer_tiles/tiles --tile_size 128 --batch_size 16
"""

import dataclasses
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

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
from devices import network_input
from distributed import ProcessGroup
from layers import LAYERS
from tile_grid import TileGrid
from tile_levels import FAR_TILES, NEAR_TILES, SIZED_LAYERS, SURROUND_CHANNELS, SURROUND_LAYERS, SURROUND_PX, coarsened
from tile_store import StoreFlags, TileStore, open_configured

# --- flags -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SampleFlags:
    """Sampling of triplets."""

    batch_size: int = flag(
        16, "samples per batch: triplets, for the losses that compare three tiles", type=positive_int
    )
    pos_radius: int = flag(2, "positives lie within this many tiles of the anchor", type=positive_int)
    neg_radius: int = flag(10, "negatives lie at least this many tiles from the anchor", type=positive_int)
    max_samples: int = flag(10000, "samples per epoch", type=positive_int)
    anchor_subsampling: float = flag(
        0.0,
        "draw a tile less often as an anchor when its drawn ground (mean intensity summed over layers) is below this",
        type=count_float,
        aliases=["thin"],
    )


@dataclasses.dataclass(frozen=True)
class AugmentFlags:
    """Augmentation."""

    jitter: float = flag(
        0.0,
        "positives are windows within this many tiles of the anchor, at any pixel; 0: whole tiles",
        type=count_float,
    )
    flip_rotate: bool = flag(False, "flip and rotate each tile at random", aliases=["turn"])
    channel_dropout: float = flag(0.0, "chance that a layer of a tile is blanked", type=fraction)


# --- the Dataset of tiles ----------------------------------------------------------------------------------

# A gather on the device holds this many bytes for each byte of the windows that it cuts (two int64 indices and more).
WINDOW_GATHER_OVERHEAD = 25
WINDOW_GATHER_CHUNK = 1 << 24  # bytes of windows that are cut at a time, which bounds that memory
PLANES_COPIED = 4096  # at a time, when the device is to hold all of them


class TileDataset(Dataset):
    """A city's tiles as tensors on `device`; training, validation, embedding and the viewers all read this one.

    `dataset[row]` is `(tile (12, S, S) float32 in 0..1, (x, y) int64)`. The methods give many tiles at once, as
    `uint8`. If `resident`, the device holds the whole store; otherwise batches are copied to it. By default, a GPU
    holds the store if that fits into half of its free memory.
    """

    def __init__(self, store: TileStore, device: torch.device | str = "cpu", resident: bool | None = None):
        self.store, self.device = store, torch.device(device)
        if resident is None:
            resident = self.device.type == "cuda" and store.planes.nbytes < 0.5 * torch.cuda.mem_get_info(device)[0]
        self.resident = resident
        if self.resident:
            self.planes = torch.empty(store.planes.shape, dtype=torch.uint8, device=device)
            for first in range(0, len(self.planes), PLANES_COPIED):  # the host never holds all of them
                part = slice(first, first + PLANES_COPIED)
                self.planes[part] = torch.from_numpy(np.array(store.planes[part]))
            self.plane_of = self._plane_of
            self.table = torch.from_numpy(store.grid.table.copy()).to(device).long()
            self.origin = torch.from_numpy(store.grid.origin).to(device)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        tile = network_input(self.tiles(np.array([row])))[0]
        return tile, torch.from_numpy(self.store.tile_xy[row].astype(np.int64))

    def tiles(self, rows: np.ndarray) -> Tensor:
        """The tiles of `rows (B,)` as `(B, 12, S, S) uint8`; row -1 gives a blank tile."""
        if not self.resident:
            return copy_to(self.store.tiles(rows), self.device)
        return self.planes[self.plane_of[copy_to(np.asarray(rows), self.device)]]

    def planes_of(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The planes of `rows (B,)` that show something: `planes (M, S, S) uint8`, `layer (M,)`, `number (B, L)`.

        A plane that several tiles have in the same layer is there once. `number` says which of the planes each tile has
        in each layer, M where nothing is drawn. Most layers of most tiles are blank.
        """
        plane_of = self.store.plane_of[rows]
        kind = plane_of.astype(np.int64) * len(LAYERS) + np.arange(len(LAYERS))
        kinds, number = np.unique(kind[plane_of > 0], return_inverse=True)
        numbers = np.full(plane_of.shape, len(kinds))
        numbers[plane_of > 0] = number
        plane, layer = np.divmod(kinds, len(LAYERS))
        if self.resident:
            planes = self.planes[copy_to(plane, self.device)]
        else:
            planes = copy_to(self.store.planes[plane], self.device)
        return planes, copy_to(layer, self.device), copy_to(numbers, self.device)

    def windows(self, origin_px: np.ndarray) -> Tensor:
        """Windows whose upper left pixel is `origin_px (B, 2)` as `(B, 12, S, S) uint8`; see `TileStore.windows`."""
        size = self.store.tile_size
        tile, shift = np.divmod(np.asarray(origin_px), size)
        if not shift.any():
            return self.tiles(self.store.grid.rows(tile))
        if not self.resident:
            return copy_to(self.store.windows(origin_px), self.device)
        origin = copy_to(np.asarray(origin_px), self.device)
        index = (self.planes, self.plane_of, self.table, self.origin)
        chunks = origin.split(max(1, WINDOW_GATHER_CHUNK // (len(LAYERS) * size**2)))
        return torch.cat([window_gather(*index, chunk, self.store.grid.columns_around) for chunk in chunks])

    def inputs(self, centre: np.ndarray, surroundings: bool) -> tuple[Tensor, ...]:
        """What an encoder takes for the windows around `centre (B, 2)`, in tiles: see `surroundings`.

        The window of one tile's size `(B, L, S, S)` and, with `surroundings`, the two windows around it.
        """
        tile = self.windows(np.rint((np.asarray(centre) - 0.5) * self.store.tile_size).astype(np.int64))
        if not surroundings:
            return (tile,)
        return tile, self.surroundings(centre, NEAR_TILES), self.surroundings(centre, FAR_TILES)

    def surroundings(self, centre: np.ndarray, tiles: int, places: int = 1) -> Tensor:
        """Windows of `tiles` x `tiles` tiles around `centre (B, 2)`, as `(B, 3 L + 5, 64, 64) uint8`.

        `centre` is in tiles (x + 0.5, y + 0.5 is the centre of a tile). The channels are the mean of each of the L
        layers, the maximum of each, the outlines of each, the buildings of each class of size, and 255 where there is a
        tile. With `places` a window is larger: it holds the windows of `places` x `places` neighbouring tiles, and
        `centre` is the middle of those.
        """
        px = SURROUND_PX // tiles
        edge = SURROUND_PX + (places - 1) * px
        first, shift = np.divmod(np.rint(np.asarray(centre) * px).astype(np.int64) - edge // 2, px)
        step = np.arange(tiles + places)
        rows = copy_to(self.store.grid.rows(first[:, None, None] + np.stack(np.meshgrid(step, step), -1)), self.device)
        parts = []
        for level, shown_by in self._levels[px]:
            shown = shown_by[rows]  # (B, rows, columns, layers)
            blocks = level.index_select(0, shown.flatten()).view(*shown.shape, *level.shape[1:])
            blocks = blocks.permute(0, 4, 3, 1, 5, 2, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
            parts.append(blocks.view(torch.uint8))
        exists = (rows >= 0).to(torch.uint8).mul(255).repeat_interleave(px, 1).repeat_interleave(px, 2)
        parts.append(exists[:, None])
        windows = exists.new_empty(len(rows), SURROUND_CHANNELS, edge, edge)
        shifts = np.unique(shift, axis=0).tolist()
        for x, y in shifts:  # one shift for all windows around centres of tiles
            these = (shift == (x, y)).all(axis=1)
            chosen = copy_to(np.flatnonzero(these), self.device) if len(shifts) > 1 else slice(None)
            down, across = slice(y, y + edge), slice(x, x + edge)
            channel = 0
            for part in parts:
                windows[chosen, channel : channel + part.shape[1]] = part[chosen, :, down, across]
                channel += part.shape[1]
        return windows

    @cached_property
    def _levels(self) -> dict[int, list[tuple[Tensor, Tensor]]]:
        """The coarser levels of planes and the sizes of pieces, and which of them each row shows: `(N + 1, layers)`.

        The pixels of a row are moved together: sixteen as one number of 16 bytes, `(P, 3, px, px / 16)` and `(Q, 4, px,
        px / 16)`, where the device has such numbers, or four as one of 4 bytes.
        """
        size_row = torch.from_numpy(np.array(self.store.size_row)).to(self.device)
        shown_by = self._plane_of, size_row[self._plane_of[:, list(SIZED_LAYERS)]]
        found = {}
        for px, level in self.store.levels.items():
            arrays = (torch.from_numpy(np.array(array)) for array in (level, coarsened(self.store.sizes, px)))
            wide = torch.int32 if px % 16 or self.device.type == "mps" else torch.complex128
            found[px] = [(array.to(self.device).view(wide), rows) for array, rows in zip(arrays, shown_by, strict=True)]
        return found

    @cached_property
    def _plane_of(self) -> Tensor:
        """Planes `(N + 1, L) int64` of each row; the last row, which -1 reads, is blank."""
        blank_last = np.concatenate([self.store.plane_of, np.zeros((1, len(LAYERS)), np.int32)])
        return torch.from_numpy(blank_last).to(self.device).long()


def copy_to(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy an array to `device`; CUDA copies it from pinned memory while the host goes on.

    On MPS the host waits: PyTorch before 2.13 frees the array before it is copied
    (https://github.com/pytorch/pytorch/issues/139550).
    """
    tensor = torch.as_tensor(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def window_gather(
    planes: Tensor, plane_of: Tensor, table: Tensor, origin: Tensor, origin_px: Tensor, columns_around: int = 0
) -> Tensor:
    """Cut windows on the device in one gather: `origin_px (B, 2)` to `(B, 12, S, S) uint8`.

    `planes (P, S, S)`, `plane_of (N + 1, 12)` whose last row is blank, `table` and `origin` of the `TileGrid`.
    With `columns_around` the windows may cross 180 degrees.
    """
    size = planes.shape[-1]
    pixel = origin_px[:, :, None] + torch.arange(size, device=planes.device)  # (B, 2, S)
    tile, local = pixel // size - origin[:, None], pixel % size
    if columns_around:
        tile[:, 0] %= columns_around
    inside = torch.stack([(tile[:, axis] >= 0) & (tile[:, axis] < table.shape[axis]) for axis in (0, 1)], dim=1)
    tile = torch.where(inside, tile, 0)
    rows = table[tile[:, 0, None, :], tile[:, 1, :, None]]  # (B, S rows, S columns)
    rows = torch.where(inside[:, 0, None, :] & inside[:, 1, :, None], rows, -1)
    plane = plane_of[rows].permute(0, 3, 1, 2)  # (B, 12, S, S)
    flat = (plane * size + local[:, 1, None, :, None]) * size + local[:, 0, None, None, :]
    return planes.reshape(-1)[flat]


# --- pairs and triplets ------------------------------------------------------------------------------------


class TripletSampler:
    """Draws (anchor, positive, negative) rows: vectorised, O(1) per sample, equal for an equal seed and epoch.

    `rows` limits every role to those tiles. Blank tiles are never drawn, and tiles without a neighbour are never
    anchors. Distances are Chebyshev, in tiles: positives lie within `pos_radius` and are never the anchor itself;
    negatives lie at least `neg_radius` away. Raises `UserError` when the area cannot give such triplets.
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
        if not len(rows):
            raise UserError(
                f"no training tile of {store.tiles_root} is left beside the validation blocks; "
                "use a larger area or --val_share 0"
            )
        rows = rows[~store.blank[rows]]
        if not len(rows):
            raise UserError(f"every tile of {store.tiles_root} is blank; nothing to train on")
        self.xy, self.rows, self.seed = store.unwrapped_xy.astype(np.int64), rows, seed
        self.pos_radius, self.neg_radius = pos_radius, neg_radius
        self.drawn_ground = store.layer_intensity.sum(axis=1)  # (N,) mean intensity, summed over the layers
        self.grid = TileGrid(store.tile_xy[rows], store.zoom)  # gives positions in `rows`
        step = np.arange(-pos_radius, pos_radius + 1)
        offsets = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
        self.offsets = offsets[offsets.any(axis=1)]
        self.low, self.high = self.xy[rows].min(axis=0), self.xy[rows].max(axis=0)

        has_near = np.zeros(len(rows), dtype=bool)
        for offset in self.offsets:
            has_near |= self.grid.rows(self.xy[rows] + offset) >= 0
        # Some tile lies far away exactly when one of the area's outermost tiles does.
        has_far = np.maximum(self.xy[rows] - self.low, self.high - self.xy[rows]).max(axis=1) >= neg_radius
        self.anchors = rows[has_near & has_far]
        if not len(self.anchors):
            what, fix = f"has a neighbour within {pos_radius}", "a larger --pos_radius"
            if has_near.any():
                what, fix = f"lies {neg_radius} tiles from another", "a smaller --neg_radius"
            raise UserError(f"no tile with content of {store.tiles_root} {what}; use {fix} or a larger area")

    def epoch(self, epoch: int, max_samples: int, anchors: np.ndarray | None = None) -> np.ndarray:
        """The triplets of one epoch as rows `(M, 3) int64`: every anchor equally often up to `max_samples`."""
        rng = np.random.default_rng([self.seed, epoch])
        anchors = self.anchors if anchors is None else anchors
        rounds = -(-max_samples // len(anchors))
        drawn = np.concatenate([rng.permutation(anchors) for _ in range(rounds)])[:max_samples]
        return np.stack([drawn, self.positives(drawn, rng), self.negatives(drawn, rng)], axis=1)

    def positives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One row within `pos_radius` of each anchor `(B,)`, uniformly among those that exist."""
        parts, chunk = [], max(1, (1 << 22) // len(self.offsets))
        for first in range(0, len(anchors), chunk):
            found = self.grid.rows(self.xy[anchors[first : first + chunk]][:, None] + self.offsets)  # (B, K)
            chosen = np.where(found >= 0, rng.random(found.shape, dtype=np.float32), -1).argmax(axis=1)
            parts.append(self.rows[found[np.arange(len(found)), chosen]])
        return np.concatenate(parts)

    def negatives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One row at least `neg_radius` from each anchor `(B,)`, uniformly among all such rows."""
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

    def subsampled_anchors(self, epoch: int, threshold: float) -> np.ndarray:
        """Anchors of an epoch: one with less drawn ground than `threshold` is kept with a chance in proportion to it.

        Drawn ground is a tile's mean intensity summed over its layers.
        """
        share = self.drawn_ground[self.anchors] / max(threshold, 1e-9)
        kept = self.anchors[np.random.default_rng([self.seed, epoch, 0x7]).random(len(share)) < share]
        return kept if len(kept) else self.anchors

    def windows(self, triplets: np.ndarray, jitter: float, tile_size: int, rng: np.random.Generator) -> np.ndarray:
        """Windows for triplets, pairs or single tiles of rows `(B, K)`: their upper left pixels `(B, K, 2) int64`.

        Every window is shifted by up to half of `jitter` tiles (at most half a tile) from its tile. The positive is
        not the neighbouring tile but a window within `jitter` tiles of the anchor's. No window leaves the area.
        """
        reach = min(jitter, 1.0) / 2 * tile_size
        origin = self.xy[triplets] * tile_size + rng.uniform(-reach, reach, (*triplets.shape, 2))
        if triplets.shape[1] > 1:
            shift = rng.uniform(-jitter * tile_size, jitter * tile_size, (len(triplets), 2))
            origin[:, 1] = origin[:, 0] + shift
        return np.clip(np.rint(origin), self.low * tile_size, self.high * tile_size).astype(np.int64)

    def _distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.abs(self.xy[a] - self.xy[b]).max(axis=-1)


# --- the Dataset of training batches -----------------------------------------------------------------------


@dataclasses.dataclass
class Batch:
    """One training step's data: the encoder's inputs of this process, and where all tiles of the batch are.

    B samples of K tiles (anchor, positive and, for K = 3, negative) in all processes, b of them in this one.
    """

    epoch: int
    step: int
    inputs: tuple[Tensor, ...]  # (b * K, ...) uint8 each, sample after sample; see `TileDataset.inputs`
    tile_xy: Tensor  # (B, K, 2) float32, in tiles; cities lie side by side, at least `neg_radius` apart
    city: np.ndarray  # (B,) which dataset each sample is from
    rows: np.ndarray  # (B, K) rows of that dataset's store
    index: Tensor  # (B, K) the same, counted through all datasets; on the device
    ready: torch.cuda.Event | None = None  # on a GPU: recorded when the tensors are there
    waited: float = 0.0  # seconds that training waited for this batch


class TripletDataset(Dataset):
    """The training batches of an epoch: `len` is its steps, `dataset[step]` a `Batch`.

    A batch depends on seed, epoch and step alone, whatever the number of threads and processes. `views` is the number
    of tiles per sample: 3, or 2 for a loss that takes its negatives from the batch, or 1. With several cities, every
    batch has equally many samples of each. `rows` are the training rows of each city.
    """

    def __init__(
        self,
        datasets: Sequence[TileDataset],
        sample: SampleFlags,
        augmentation: AugmentFlags = AugmentFlags(),
        *,
        rows: Sequence[np.ndarray | None] = (None,),
        seed: int = 0,
        views: int = 3,
        surroundings: bool = False,
        group: ProcessGroup | None = None,
    ):
        self.datasets, self.sample, self.augmentation = datasets, sample, augmentation
        if augmentation.jitter >= sample.neg_radius:
            raise UserError(
                f"--jitter {augmentation.jitter:g} must be smaller than --neg_radius {sample.neg_radius}: "
                "a window cannot be near and far at once"
            )
        self.seed, self.views, self.surroundings = seed, views, surroundings
        self.device = datasets[0].device
        self.group = group or ProcessGroup(self.device)
        self.samplers = [
            TripletSampler(dataset.store, sample.pos_radius, sample.neg_radius, seed, own)
            for dataset, own in zip(datasets, rows, strict=True)
        ]
        size, cities = sample.batch_size, len(datasets)
        if size < cities:
            raise UserError(f"--batch_size {size} is less than one sample for each of {cities} cities")
        self.city = np.sort(np.arange(size) % cities)  # (B,), the same in every batch
        apart = [max(dataset.store.grid.shape) + sample.neg_radius + 1 for dataset in datasets]
        self.corner = np.cumsum([0, *apart])[:-1]  # of each city in `Batch.tile_xy`
        self.first_row = np.cumsum([0, *map(len, datasets)])[:-1]  # of each city, counted through all of them
        # A GPU assembles batches on a stream of its own, beside the training step.
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the triplets of another epoch."""
        threshold, parts = self.sample.anchor_subsampling, []
        for city, sampler in enumerate(self.samplers):
            share = int((self.city == city).sum())
            anchors = sampler.subsampled_anchors(epoch, threshold) if threshold else None
            triplets = sampler.epoch(epoch, len(self) * share, anchors)
            parts.append(triplets[:, : self.views].reshape(len(self), share, -1))
        self.epoch, self.triplets = epoch, np.concatenate(parts, axis=1)  # (steps, B, K)

    def __len__(self) -> int:
        return max(1, self.sample.max_samples // self.sample.batch_size)

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        if self.stream is None:
            return self._load(step)
        with torch.cuda.stream(self.stream):
            return dataclasses.replace(self._load(step), ready=self.stream.record_event())

    def _load(self, step: int) -> Batch:
        rows, jitter = self.triplets[step], self.augmentation.jitter
        share = self.sample.batch_size // self.group.size
        own = np.arange(self.sample.batch_size) // share == self.group.rank
        rng = np.random.default_rng([self.seed, self.epoch, step])
        tile_xy = np.empty((*rows.shape, 2), dtype=np.float32)
        parts = []
        for city, (dataset, sampler) in enumerate(zip(self.datasets, self.samplers, strict=True)):
            chosen, store = self.city == city, dataset.store
            if jitter:
                centre = sampler.windows(rows[chosen], jitter, store.tile_size, rng) / store.tile_size + 0.5
            else:
                centre = store.unwrapped_xy[rows[chosen]] + 0.5
            tile_xy[chosen] = centre - 0.5 - store.grid.origin + self.corner[city]
            mine = centre[own[chosen]]
            if len(mine):
                parts.append(dataset.inputs(mine.reshape(-1, 2), self.surroundings))
        inputs = tuple(torch.cat(column) if len(column) > 1 else column[0] for column in zip(*parts, strict=True))
        index = copy_to(rows + self.first_row[self.city, None], self.device)
        return Batch(self.epoch, step, inputs, copy_to(tile_xy, self.device), self.city, rows, index)

    def augmented(self, batch: Batch) -> tuple[Tensor, ...]:
        """The batch's inputs, augmented: every window of a place in the same way. It may change `batch` itself."""
        chosen = self.augmentation
        if not (chosen.flip_rotate or chosen.channel_dropout):
            return batch.inputs
        return augment(
            batch.inputs,
            self.generator(batch),
            flip_rotate=chosen.flip_rotate,
            channel_dropout=chosen.channel_dropout,
            part=(self.group.rank, self.group.size),
        )

    def generator(self, batch: Batch, stream: int = 0) -> torch.Generator:
        """Random numbers for a batch, equal in every process; `stream` tells several uses apart."""
        entropy = [self.seed, batch.epoch, batch.step, *([stream] if stream else [])]
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> 1))


def prefetch(dataset: TripletDataset, first_step: int = 0, num_threads: int = 0) -> Generator[Batch]:
    """The batches of an epoch from `first_step` on, in order.

    `num_threads` threads load as many batches ahead; with 0, each batch is loaded when it is asked for.
    """
    if not num_threads:
        for step in range(first_step, len(dataset)):
            started = time.perf_counter()
            batch = dataset[step]
            batch.waited = time.perf_counter() - started
            await_batch(batch)
            yield batch
        return
    steps = iter(range(first_step, len(dataset)))
    pending: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            for _ in range(first_step, len(dataset)):
                for step in islice(steps, num_threads + 1 - len(pending)):
                    pending.append(threads.submit(dataset.__getitem__, step))
                started = time.perf_counter()
                batch = pending.popleft().result()
                batch.waited = time.perf_counter() - started
                await_batch(batch)
                yield batch
        finally:
            for future in pending:
                future.cancel()


def await_batch(batch: Batch) -> None:
    """Let what follows on a GPU wait until a batch from `TripletDataset` is there; the host does not wait."""
    if batch.ready is not None:
        stream = torch.cuda.current_stream(batch.tile_xy.device)
        stream.wait_event(batch.ready)
        for tensor in (*batch.inputs, batch.tile_xy, batch.index):
            tensor.record_stream(stream)


def augment(
    inputs: tuple[Tensor, ...],
    generator: torch.Generator,
    *,
    flip_rotate: bool = True,
    channel_dropout: float = 0.0,
    part: tuple[int, int] = (0, 1),
) -> tuple[Tensor, ...]:
    """Flip and rotate the windows of each place at random (the 8 symmetries of the square), and blank layers by chance.

    `inputs` are `(B, C, S, S)` each, of any dtype, on any device: the tile and perhaps its surroundings, whose channels
    show `SURROUND_LAYERS` and a mask. They may be changed in place. `generator` is on the CPU, so that every device
    draws alike. With `part=(i, n)` they are part i of n of a larger batch, for which the random numbers are drawn as a
    whole. Blanking layers keeps the network from matching two windows by what they share in one layer (Sentiance,
    loc2vec).

    torchvision.transforms.v2 does not fit: it draws one transform per call, from the global generator.
    """
    count, layers, device = len(inputs[0]), inputs[0].shape[1], inputs[0].device
    part_index, parts = part
    own = slice(part_index * count, (part_index + 1) * count)
    if flip_rotate:
        symmetry = torch.randint(8, (parts * count,), generator=generator)[own]
        inputs = tuple(tensor.contiguous() for tensor in inputs)
        for tensor in inputs:
            move_(tensor, symmetry)
    if channel_dropout > 0:
        chance = torch.rand((parts * count, layers, 1, 1), generator=generator)[own]
        kept = copy_to((chance >= channel_dropout).to(inputs[0].dtype), device)
        around = torch.cat([*(kept[:, layer, None] for layer in SURROUND_LAYERS), kept.new_ones(count, 1, 1, 1)], dim=1)
        masks = [kept, *[around] * (len(inputs) - 1)]
        inputs = tuple(tensor * mask for tensor, mask in zip(inputs, masks, strict=True))
    return inputs


SYMMETRIES = [  # of the square: which axes are flipped, and whether they are swapped afterwards
    ([], False), ([-1], True), ([-2, -1], False), ([-2], True),  # rotations
    ([-1], False), ([-2, -1], True), ([-2], False), ([], True),  # and these, flipped
]  # fmt: skip


def move_(images: Tensor, symmetry: Tensor) -> None:
    """Move `images (B, C, S, S)` in place by the `SYMMETRIES` of the numbers `symmetry (B,)`, which are on the CPU."""
    planes, kind = images.flatten(0, 1), symmetry.repeat_interleave(images.shape[1])
    on_cpu = images.device.type == "cpu"
    if on_cpu:  # most planes are blank, and stay so
        kind = kind.where(planes.flatten(1).amax(dim=1) > 0, 0)
    for number, (flipped, swapped) in enumerate(SYMMETRIES[1:], start=1):  # the first one leaves everything as it is
        index = copy_to((kind == number).nonzero()[:, 0], images.device)
        image = planes.index_select(0, index).flip(flipped)
        image = image.transpose(-2, -1).contiguous() if swapped else image
        if on_cpu:  # whole planes are copied, which is faster than what PyTorch does
            planes.numpy()[index.numpy()] = image.numpy()
        else:
            planes[index] = image


# --- the command -------------------------------------------------------------------------------------------


def main() -> None:
    """Print what the tiles folder holds and what a batch looks like."""
    parser = Parser(__doc__)
    for group in (TilesFlags, StoreFlags):
        add_flags(parser, group)
    add_flags(parser, SampleFlags, only=["batch_size", "pos_radius", "neg_radius"])
    add_flags(parser, DeviceFlags, only=["seed"])
    args = parser.parse_args()
    started = time.perf_counter()
    store = open_configured(read_flags(TilesFlags, args), read_flags(StoreFlags, args))
    print_store(store, time.perf_counter() - started)
    sample = read_flags(SampleFlags, args, max_samples=args.batch_size)
    batches = TripletDataset([TileDataset(store)], sample, seed=args.seed)
    tiles = network_input(batches[0].inputs[0])
    triplets = tiles.view(args.batch_size, 3, *tiles.shape[1:])
    for name, tiles in zip(("anchor", "positive", "negative"), triplets.unbind(1), strict=True):
        print(f"sample batch, {name}: {tuple(tiles.shape)} {tiles.dtype}, {tiles.min():.2f} to {tiles.max():.2f}")


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
