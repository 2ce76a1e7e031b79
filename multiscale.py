"""The multiscale encoder: a tile at full resolution and its surroundings at two coarser scales, as one unit vector.

Not a command. `python train.py --preset recommended` trains it; docs/recipe.md says how it was found.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from granulometry import RADII, shape_counts
from layers import LAYERS
from tile_levels import LEVEL_KINDS, PIECE_CLASSES, SIZED_LAYERS, SURROUND_CHANNELS, SURROUND_PX

if TYPE_CHECKING:
    from model import EncoderConfig  # it imports this file

BRIGHTNESSES = 256
THRESHOLDS = 16  # learned soft thresholds of brightness per layer
PLANE_WIDTHS = (16, 24, 32, 48)  # channels of the convolutions on one layer of the tile
SURROUND_WIDTHS = (24, 32, 48)  # channels of the convolutions on a window of the surroundings
SHAPE_FEATURES = 6 * len(RADII) + 2  # sizes and shapes of what is drawn in one layer of a tile
PLANE_FEATURES = 2 * (THRESHOLDS + sum(PLANE_WIDTHS)) + SHAPE_FEATURES  # numbers that describe one layer of a tile
SCALE_FEATURES = 256  # numbers per scale that the head reads
HIDDEN = 384
GPU_PLANES_AT_ONCE = 2048  # without gradients, so that 256 px need about 4 GB
GPU_HISTOGRAMS_AT_ONCE = 256  # planes; an index takes 8 bytes a pixel
GPU_LANES = 32  # neighbouring pixels that are counted apart, as many as a GPU handles together
PLANES_AT_ONCE = 16  # of the tile, for each thread of a CPU: their activations stay in the processor's cache
LARGE_MAP_PX = 32  # edge of feature maps whose rows are summed first
ZONES = 3  # of a window: the middle, the ring around it, and the rest
DEVIATION_FLOOR, DEVIATION_LIMIT = 0.02, 10.0  # of standardised features
START_RIDGE = 0.0125  # penalty of the linear start, per place
PART_PRIOR = 0.5  # amount below which parts of a sum go to 0
CONSTANT = 1.2  # constant part of a vector before it gets unit length; the rest has an average length of 1
LOG_STEEPNESS = 16  # of log(1 + steepness * mean): nearly linear for a few objects, so that they can be counted
CELL_PX = 4  # in whose multiples the zones of a window begin, and neighbouring tiles follow each other
SHARE_STEEPNESS = 64  # the same for shares of brightness


def _amounts_and_parts(amounts: Tensor) -> Tensor:
    """Logarithms of `amounts (..., n)`, and each amount's part of their sum: `(..., 2 n)`.

    Logarithms count. Parts say what kind of place it is, however much is there; where hardly anything is, they are 0.
    """
    return torch.cat([amounts.log1p(), amounts / (amounts.sum(dim=-1, keepdim=True) + PART_PRIOR)], dim=-1)


class SoftHistogram(nn.Module):
    """How much of a plane is brighter than each of a layer's learned thresholds, as logarithms of shares.

    The sum over pixels of a function of their brightness is a product with the plane's histogram. So the thresholds are
    learned at full resolution, at the cost of one count per pixel.
    """

    brightness: Tensor

    def __init__(self, layers: int):
        super().__init__()
        step = BRIGHTNESSES // THRESHOLDS
        centres = [0.5, *(i * step - 0.5 for i in range(1, THRESHOLDS))]  # 0 means that nothing is drawn
        self.centres = nn.Parameter(torch.tensor([centres] * layers))
        self.log_widths = nn.Parameter(torch.full((layers, THRESHOLDS), -0.7))
        self.register_buffer("brightness", torch.arange(BRIGHTNESSES, dtype=torch.float32), persistent=False)

    def forward(self, planes: Tensor, layer: Tensor) -> Tensor:
        """`(M, 32)` for `planes (M, S, S) uint8` of the layers `layer (M,)`."""
        above = torch.sigmoid((self.brightness - self.centres[..., None]) / self.log_widths.exp()[..., None])
        between = above - F.pad(above[:, 1:], (0, 0, 0, 1))  # (layers, 16, 256)
        with torch.autocast(planes.device.type, enabled=False):  # bfloat16 would round small shares
            between = F.embedding(layer, between.flatten(1)).unflatten(1, between.shape[1:])  # of the planes' layers
            shares = torch.einsum("mv,mkv->mk", histograms(planes) / planes[0].numel(), between)
        return _amounts_and_parts(SHARE_STEEPNESS * shares.clamp(min=0))


def histograms(planes: Tensor) -> Tensor:
    """How many pixels of each of `planes (M, S, S) uint8` have each brightness, `(M, 256) float32`."""
    pixels = planes.flatten(1)
    if planes.device.type != "cpu":  # bincount would make the host wait for the device
        return torch.cat([scattered_histograms(part) for part in pixels.split(GPU_HISTOGRAMS_AT_ONCE)])
    runs = pixels.contiguous().view(-1, 16)  # most are blank, and need not be counted
    drawn = runs.view(torch.int64).any(dim=1).nonzero()
    plane = drawn // (pixels.shape[1] // 16)  # (R, 1)
    kind = runs.index_select(0, drawn[:, 0]) + (BRIGHTNESSES * plane).int()
    counts = torch.bincount(kind.flatten(), minlength=len(planes) * BRIGHTNESSES).view(-1, BRIGHTNESSES)
    counts[:, 0] += pixels.shape[1] - counts.sum(dim=1)
    return counts.float()


def scattered_histograms(pixels: Tensor) -> Tensor:
    """The same for `pixels (M, N) uint8` on a GPU.

    Most pixels are 0. If all of them were added to the same number, they would wait for each other, so neighbouring
    pixels are counted apart.
    """
    lane = torch.arange(pixels.shape[1], device=pixels.device) % GPU_LANES
    counts = torch.zeros(len(pixels), BRIGHTNESSES * GPU_LANES, device=pixels.device)
    counts.scatter_add_(1, pixels.long() * GPU_LANES + lane, counts.new_ones(()).expand(pixels.shape))
    return counts.view(-1, BRIGHTNESSES, GPU_LANES).sum(dim=2)


class PatchConv(nn.Module):
    """A convolution whose stride equals its kernel size, on `uint8` pixels, computed as one matrix product.

    The rows of a patch are moved as integers of 16 or 32 bits, which is several times faster than moving single pixels.
    With `occupied`, a second kernel sees for each pixel whether anything is drawn there. Then most patches are blank;
    on a CPU they are not multiplied, as they give the bias.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, occupied: bool):
        super().__init__()
        self.size, self.row_type = size, {2: torch.int16, 4: torch.int32}[size]
        inputs = in_channels * size**2
        self.brightness = nn.Linear(inputs, out_channels)
        self.occupied = nn.Linear(inputs, out_channels, bias=False) if occupied else None

    def forward(self, pixels: Tensor) -> Tensor:
        """`(M, out_channels, S / size, S / size)` in `channels_last` order, for `pixels (M, C, S, S) uint8`."""
        count, channels, edge, _ = pixels.shape
        cells = edge // self.size
        rows = pixels.contiguous().view(self.row_type).view(count, channels, cells, self.size, cells)
        # First by rows of cells, then by cells: three times as fast as both at once.
        lines = rows.transpose(1, 2).reshape(count, cells, channels * self.size, cells)
        patches = lines.transpose(2, 3).contiguous().view(torch.uint8).view(count * cells * cells, -1)
        if self.occupied is None or pixels.device.type != "cpu":
            out = self.multiplied(patches)
        else:
            drawn = patches.view(torch.int64).any(dim=1).nonzero()[:, 0]
            # A bfloat16 product is compiled for each number of rows, so there are few: the first patch fills them up.
            step = 1 << max(0, len(drawn).bit_length() - 4)
            chosen = F.pad(drawn, (0, -len(drawn) % step))
            products = self.multiplied(patches.index_select(0, chosen))[: len(drawn)]
            blank = self.brightness.bias.to(products.dtype).repeat(cells)  # a row of patches: copying rows is fast
            out = blank.expand(count * cells, -1).reshape(len(patches), -1).index_copy_(0, drawn, products)
        return out.view(count, cells, cells, -1).permute(0, 3, 1, 2)

    def multiplied(self, patches: Tensor) -> Tensor:
        """The output `(N, out_channels)` for `patches (N, pixels) uint8`."""
        kind = patches.device.type
        mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if mixed else torch.float32
        values = patches.to(dtype)  # exact: bfloat16 holds all whole numbers up to 256
        out = F.linear(values, self.brightness.weight / 255, self.brightness.bias)
        return out if self.occupied is None else out + self.occupied(values.clamp(max=1))


def shape_features(planes: Tensor) -> Tensor:
    """Sizes and shapes of what is drawn on `planes (M, S, S) uint8`, `(M, 32)`.

    How much disappears with each erosion, in how many pieces, with what perimeter; and how many pieces and what
    perimeter there are to an area, which tells many small houses from one large one.
    """
    area, perimeter, pieces = shape_counts(planes).unbind(dim=2)  # each (M, 5)
    edge = planes.shape[-1]
    area, perimeter, pieces = SHARE_STEEPNESS / edge**2 * area, perimeter / (4 * edge), pieces.clamp(min=0)
    lost = area - F.pad(area[:, 1:], (0, 1))
    shape = torch.stack([pieces[:, 0], 8 * perimeter[:, 0]], dim=1) / (area[:, :1] + PART_PRIOR)
    return torch.cat([*map(_amounts_and_parts, (lost, pieces, perimeter)), shape.log1p()], dim=1)


class PlaneTrunk(nn.Module):
    """Strided convolutions on one plane; the mean of every channel of every level is read, as a logarithm.

    All layers share the detectors. Means count objects and measure edges, which max pooling cannot do.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = pairwise(PLANE_WIDTHS)
        strided = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs]
        self.levels = nn.ModuleList([PatchConv(1, PLANE_WIDTHS[0], 4, occupied=True), *strided])

    def forward(self, planes: Tensor) -> Tensor:
        """`(M, 2 * sum of widths)` for `planes (M, S, S) uint8`."""
        x, means = planes[:, None], []
        for level in self.levels:
            x = _relu(level(x))
            means.append(_amounts_and_parts(LOG_STEEPNESS * _pixel_means(x).float()))
        return torch.cat(means, dim=1)


class SurroundTrunk(nn.Module):
    """A window of the surroundings and strided convolutions on it; means are taken over three zones around the tile."""

    cell_zones: Tensor

    def __init__(self, channels: int, size: int):
        super().__init__()
        pairs = pairwise(SURROUND_WIDTHS)
        strided = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs]
        self.levels = nn.ModuleList([PatchConv(channels, SURROUND_WIDTHS[0], 2, occupied=False), *strided])
        for i in range(len(self.levels)):
            self.register_buffer(f"zones{i}", _zones(size >> (i + 1)), persistent=False)
        self.register_buffer("cell_zones", _zones(size // CELL_PX), persistent=False)

    def forward(self, window: Tensor, places: int = 1) -> Tensor:
        """`(B, F)` for `window (B, C, S, S) uint8`, whose last channel is 255 where there is data.

        Pixels without data do not count in any mean. The last three numbers are the share of each zone that has data.
        A larger window holds the windows of `places` x `places` neighbours, row after row; the result is
        `(B * places ** 2, ...)`. The first convolution, most of the work, is then computed once for all of them.
        """
        x, valid, means = window, window[:, -1:].float() / 255, self.channel_means(window, places)
        for i, level in enumerate(self.levels):
            x = _relu(level(x))
            valid = F.avg_pool2d(valid, 2)
            zones = getattr(self, f"zones{i}")  # (3, edge, edge)
            if i == 0 and places > 1:
                x, valid = (_windows(pixels, zones.shape[-1], places) for pixels in (x, valid))
            zones = zones.flatten(1)
            weight = zones * valid.flatten(1)[:, None]  # (B, 3, pixels)
            covered = weight.sum(dim=2, keepdim=True)
            with torch.autocast(x.device.type, enabled=False):  # sums of many pixels
                mean = weight @ x.permute(0, 2, 3, 1).flatten(1, 2).float() / covered.clamp(min=1e-3)
            means.append(_amounts_and_parts(LOG_STEEPNESS * mean).flatten(1))
        return torch.cat([*means, covered[..., 0] / zones.sum(dim=1)], dim=1)

    def channel_means(self, window: Tensor, places: int) -> list[Tensor]:
        """Means of the window's own channels over the zones, and the parts of pieces of each class of size."""
        # Sums of cells of 4 x 4 pixels: four pixels are one integer, of which two are added to the other two.
        fours = window.contiguous().view(torch.int32)
        low = 0x00FF00FF
        pairs = sum((row & low) + (row >> 8 & low) for row in fours.unflatten(2, (-1, CELL_PX)).unbind(dim=3))
        cells = ((pairs & 0xFFFF) + (pairs >> 16)).float()
        if places > 1:
            cells = _windows(cells, self.cell_zones.shape[-1], places)
        with torch.autocast(window.device.type, enabled=False):  # sums of integers are exact, in any order
            sums = self.cell_zones.flatten(1) @ cells.permute(0, 2, 3, 1).flatten(1, 2)  # (B, 3, C)
        amounts = SHARE_STEEPNESS * sums[..., :-1] / sums[..., -1:].clamp(min=1)  # beyond the data nothing is drawn
        pieces = amounts[..., LEVEL_KINDS * len(LAYERS) :].unflatten(2, (PIECE_CLASSES, -1))
        parts = pieces / (pieces.sum(dim=2, keepdim=True) + PART_PRIOR)
        return [amounts.log1p().flatten(1), parts.flatten(1)]


def _windows(pixels: Tensor, edge: int, places: int) -> Tensor:
    """Cut `pixels (B, C, S, S)` into `places` x `places` windows, `(B * places ** 2, C, edge, edge)`."""
    step = (pixels.shape[-1] - edge) // (places - 1)
    windows = pixels.permute(0, 2, 3, 1).unfold(1, edge, step).unfold(2, edge, step)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, edge, edge, pixels.shape[1]).permute(0, 3, 1, 2)


def _pixel_means(x: Tensor) -> Tensor:
    """Means `(M, C)` over the pixels of `x (M, C, S, S)`.

    `mean` would give the same, but write its gradient out for every pixel. On a CPU, adding the gradient of a plain sum
    takes C numbers at a time. With rows summed first it takes S * C, which is five times as fast for large maps.
    """
    edge = x.shape[-1]
    if edge < LARGE_MAP_PX:
        return x.sum(dim=(2, 3)) / edge**2
    columns = x.permute(0, 2, 3, 1).sum(dim=1)  # (M, S, C)
    return (columns.new_ones(1, edge) @ columns)[:, 0] / edge**2


def _relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=not torch.is_grad_enabled())  # in place, on a view, it would copy gradients


def _zones(size: int) -> Tensor:
    """`(3, size, size)`: pixels in the middle quarter of the edge, in the ring up to half of it, and outside."""
    offset = np.abs(np.arange(size) + 0.5 - size / 2) / (size / 2)
    distance = np.maximum(offset[:, None], offset)
    zones = [distance < 0.25, (distance >= 0.25) & (distance < 0.5), distance >= 0.5]
    return torch.from_numpy(np.array(zones, dtype=np.float32))


class Standardise(nn.Module):
    """Features in deviations from their mean, both fitted once, before training.

    Batch norm does not fit: a rare feature has another deviation in every batch, so it could not be counted.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, features: Tensor) -> None:
        """Take mean and deviation from `features (N, size)`."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_((features.var(dim=0, correction=0) + DEVIATION_FLOOR**2).sqrt())

    def forward(self, features: Tensor) -> Tensor:
        """Standardised `features (B, size)`; none counts for more than `DEVIATION_LIMIT` deviations."""
        return ((features - self.mean) / self.scale).clamp(-DEVIATION_LIMIT, DEVIATION_LIMIT)


class MultiscaleEncoder(nn.Module):
    """A tile and its surroundings to unit vectors `(B, embedding_dim)`.

    The scales are the tile at full resolution, `near` (4 x 4 tiles around it) and `far` (16 x 16 tiles). Each is
    summarised by its own trunk; a head joins the summaries. The last step is a fixed linear map, which `fit_map` sets:
    after it, the cosine of two vectors says how alike the statistics of two places are.
    """

    uses_surroundings = True
    mean: Tensor
    map: Tensor
    offset: Tensor

    def __init__(self, config: "EncoderConfig"):
        super().__init__()
        self.config = config
        layers = config.in_channels
        pieces = PIECE_CLASSES * len(SIZED_LAYERS)
        surround_features = ZONES * (SURROUND_CHANNELS + pieces + 2 * sum(SURROUND_WIDTHS))
        features = (layers * PLANE_FEATURES, surround_features, surround_features)
        self.histogram, self.plane_trunk = SoftHistogram(layers), PlaneTrunk()
        self.surround_trunks = nn.ModuleList(SurroundTrunk(SURROUND_CHANNELS, SURROUND_PX) for _ in range(2))
        self.norms = nn.ModuleList(Standardise(size) for size in features)
        self.scales = nn.ModuleList(nn.Linear(size, SCALE_FEATURES) for size in features)
        self.missing = nn.Parameter(torch.zeros(len(features), SCALE_FEATURES))
        joined = len(features) * SCALE_FEATURES
        self.skip = nn.Linear(joined, config.embedding_dim)
        first, last = nn.Linear(joined, HIDDEN), nn.Linear(HIDDEN, config.embedding_dim)
        self.head = nn.Sequential(nn.GELU(), first, nn.GELU(), last)
        for linear in (self.skip, last):  # a start near zero, as the targets have different sizes
            if not linear.weight.is_meta:  # on meta it would import dynamo
                nn.init.normal_(linear.weight, std=0.1 * linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
        self.register_buffer("mean", torch.zeros(config.embedding_dim))
        self.register_buffer("map", torch.from_numpy(np.eye(config.embedding_dim, dtype=np.float32)))
        self.register_buffer("offset", torch.zeros(config.embedding_dim))

    def forward(self, tile: Tensor, near: Tensor, far: Tensor, keep: Tensor | None = None) -> Tensor:
        """Unit vectors `(B, D)` of `tile (B, L, S, S)`, `near` and `far (B, 3 L + 5, 64, 64)`, all `uint8`.

        The channels of `near` and `far` are those of `TileDataset.surroundings`. For training, `keep (V, B, 3) bool`
        asks for V vectors of every place, of some scales each, before the fixed map: `(B, V, D)`.
        """
        summaries = self.summaries(self.features(tile, near, far))
        if keep is None:
            return self.final(self.join(summaries))
        return torch.stack([self.join(summaries, scales) for scales in keep], dim=1)

    def features(self, tile: Tensor, near: Tensor, far: Tensor) -> list[Tensor]:
        """What the trunks measure at each scale, for the arguments of `forward`."""
        return [self.tile_features(tile), *self.surround_features(near, far)]

    def surround_features(self, near: Tensor, far: Tensor, places: int = 1) -> list[Tensor]:
        """The part of `features` that does not depend on the tile itself; for `places` see `SurroundTrunk`."""
        return [trunk(window, places) for trunk, window in zip(self.surround_trunks, (near, far), strict=True)]

    def summaries(self, features: list[Tensor]) -> list[Tensor]:
        """The summaries `(B, 256)` of the features of the three scales."""
        parts = zip(self.scales, self.norms, features, strict=True)
        return [scale(norm(x.float())) for scale, norm, x in parts]

    def tile_features(self, tile: Tensor) -> Tensor:
        """Features `(B, L * 304)` of `tile (B, L, S, S) uint8`. Blank layers give zeros; on a CPU they are free."""
        planes = tile.flatten(0, 1)
        drawn = planes.flatten(1).any(dim=1)  # torch.compile gives a wrong maximum of uint8 on some processors
        layer = torch.arange(len(planes), device=tile.device) % tile.shape[1]
        if tile.device.type == "cpu":
            features, chosen = torch.zeros(len(planes), PLANE_FEATURES), drawn.nonzero()[:, 0]
            if len(chosen):
                some = planes.index_select(0, chosen)  # faster than planes[chosen]
                features[chosen] = self.plane_features(some, layer[chosen])
        else:  # selecting planes would make the host wait for the device
            features = self.plane_features(planes, layer) * drawn[:, None]
        return features.view(len(tile), -1)

    def shared_tile_features(self, planes: Tensor, layer: Tensor, number: Tensor) -> Tensor:
        """The same for tiles whose layers are some of `planes (M, S, S) uint8`; see `TileDataset.planes_of`."""
        features = self.plane_features(planes, layer) if len(planes) else planes.new_zeros(0, PLANE_FEATURES).float()
        return F.pad(features, (0, 0, 0, 1))[number].flatten(1)

    def plane_features(self, planes: Tensor, layer: Tensor) -> Tensor:
        """Features `(M, 304)` of `planes (M, S, S) uint8` of the layers `layer (M,)`."""
        on_cpu = planes.device.type == "cpu"
        if not (on_cpu or torch.is_grad_enabled()) and len(planes) > GPU_PLANES_AT_ONCE:
            chunks = zip(planes.split(GPU_PLANES_AT_ONCE), layer.split(GPU_PLANES_AT_ONCE), strict=True)
            return torch.cat([self.plane_features(*part) for part in chunks])
        parts = planes.split(PLANES_AT_ONCE * torch.get_num_threads()) if on_cpu else [planes]
        trunk = [torch.cat([shape_features(part), self.plane_trunk(part)], dim=1) for part in parts]
        return torch.cat([self.histogram(planes, layer), torch.cat(trunk)], dim=1)

    def join(self, summaries: list[Tensor], keep: Tensor | None = None) -> Tensor:
        """The vectors `(B, embedding_dim)`, before the fixed map, of the summaries of the scales.

        `keep (B, 3) bool` says which scales are used; the others are replaced by a learned "missing".
        """
        if keep is not None:
            summaries = [torch.where(keep[:, i, None], x, self.missing[i]) for i, x in enumerate(summaries)]
        joined = torch.cat(summaries, dim=1)
        return self.skip(joined) + self.head(joined)

    def final(self, vectors: Tensor) -> Tensor:
        """Unit vectors after the fixed map of what `join` gives."""
        return F.normalize((vectors.float() - self.mean) @ self.map + self.offset, dim=1)

    @torch.no_grad()
    def start(self, features: list[Tensor], targets: Tensor | None = None) -> None:
        """Standardise the features and, with `targets`, start from ridge regression, before training.

        `features` are what the untrained trunks measure of a sample of places, `targets (N, D)` the numbers that a
        vector should tell first. The first D numbers of each scale's summary, and `skip`, are set so that the vector is
        the best linear reading of the features. Training improves on it.
        """
        for norm, part in zip(self.norms, features, strict=True):
            assert isinstance(norm, Standardise)
            norm.fit(part)
        if targets is None:
            return
        sizes, count = [part.shape[1] for part in features], len(targets)
        products = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64)
        told, total = torch.zeros(sum(sizes), targets.shape[1], dtype=torch.float64), products.new_zeros(sum(sizes))
        for rows in torch.arange(count).split(1024):  # all of them at once would take gigabytes
            parts = [norm(part[rows]) for norm, part in zip(self.norms, features, strict=True)]
            x = torch.cat(parts, dim=1).cpu().double()
            products += x.T @ x
            told += x.T @ targets[rows].cpu().double()
            total += x.sum(dim=0)
        variances = (products.diagonal() / count - (total / count).square()).split(sizes)
        solution = ridge_solution(products, told, START_RIDGE * count)  # (all features, D)
        size = min(targets.shape[1], SCALE_FEATURES)
        self.skip.weight.zero_()
        for i, (scale, variance, weight) in enumerate(zip(self.scales, variances, solution.split(sizes), strict=True)):
            assert isinstance(scale, nn.Linear)
            scale.weight.mul_((variance > 1e-3).to(scale.weight.device))  # what never occurs here has no weight
            scale.weight[:size] = weight.T[:size].to(scale.weight)
            scale.bias.zero_()
            columns = slice(i * SCALE_FEATURES, i * SCALE_FEATURES + size)
            self.skip.weight[:, columns] = torch.eye(len(self.skip.weight), size).to(scale.weight)

    @torch.no_grad()
    def fit_map(self, vectors: Tensor, decoder: Tensor) -> None:
        """Set the fixed map from `vectors (N, D)` before it and the weights of a linear decoder `(targets, D)`.

        The distance of two mapped vectors is the distance of the targets that the decoder reads from them: their
        principal components are kept, all but the smallest. A constant replaces that one: without it, vectors of unit
        length would forget how much there is at a place and keep only what kind it is. An orthogonal matrix then
        spreads the components evenly over all numbers. It changes no cosine, but whoever standardises the numbers
        afterwards, as for a linear probe, does not give noise as much weight as signal.
        """
        vectors, decoder, size = vectors.cpu().double(), decoder.cpu().double(), len(self.mean)
        mean = vectors.mean(dim=0)
        told = (vectors - mean) @ decoder.T
        variances, axes = torch.linalg.eigh(told.T @ told / len(told))  # ascending
        variances, axes = variances.clamp(min=0).flip(0)[: size - 1], axes.flip(1)[:, : size - 1]
        spread = _spreading_matrix(size)
        length = variances.sum().sqrt().clamp(min=1e-9)
        self.mean.copy_(mean)
        self.map.copy_(decoder.T @ axes @ spread[1 : 1 + axes.shape[1]] / length)
        self.offset.copy_(CONSTANT * spread[0])


def ridge_solution(products: Tensor, told: Tensor, penalty: float) -> Tensor:
    """The weights `(F, T)` that read `y (N, T)` best from `x (N, F)`, without an intercept.

    `products` is `x.T @ x`, `told` is `x.T @ y`.
    """
    penalised = products.clone()
    penalised.diagonal().add_(penalty)
    return torch.linalg.solve(penalised, told)


def _spreading_matrix(size: int) -> Tensor:
    """An orthogonal matrix `(size, size) float64` whose first row is constant and whose entries have similar sizes.

    A Hadamard matrix, all of whose entries have the same size, if `size` is a power of two.
    """
    if size & (size - 1) == 0:
        matrix = torch.ones(1, 1, dtype=torch.float64)
        while len(matrix) < size:
            matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
        return matrix / size**0.5
    columns = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns[:, 0] = 1
    basis = torch.linalg.qr(columns)[0].T
    return basis * basis[0, 0].sign()
