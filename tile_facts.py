"""Facts about tiles that are read off their pixels and coordinates: dominant layer, content density, geographic zone.

Not a command.
"""

import dataclasses
import math

import numpy as np

from tile_store import TileStore

ZONES = ("Centre", "North", "Northeast", "East", "Southeast", "South", "Southwest", "West", "Northwest")

THIN_INTENSITY = 0.02  # a layer with less mean intensity than this is a hairline, however rare it is elsewhere


@dataclasses.dataclass(frozen=True)
class LayerScale:
    """What intensity is usual for each layer, `(L,)`, and at what intensity it is full, `(L,)`."""

    usual: np.ndarray
    full: np.ndarray


def layer_scale(intensity: np.ndarray) -> LayerScale:
    """The scale of tiles whose layers have the mean intensity `(N, L)`, 0 to 1.

    Usual is the mean over the tiles on which a layer is drawn, full the 95th percentile over these.
    """
    usual = intensity.sum(axis=0) / np.maximum((intensity > 0).sum(axis=0), 1)
    full = np.array([np.percentile(layer[layer > 0], 95) if layer.any() else 1.0 for layer in intensity.T])
    return LayerScale(usual, full)


def layer_prominence(store: TileStore, scale: LayerScale | None = None) -> np.ndarray:
    """How much each layer stands out on each tile, `(N, L) float32`; 0 where it is blank.

    Filled areas (landcover) have a hundred times the intensity of lines and dots (power, places), so that by intensity
    alone landcover would win on nearly every tile. Here the intensity of a layer is divided by what is usual for it, by
    default in this city. `THIN_INTENSITY` is added to that, so that a rare hairline does not outweigh a built-up
    quarter.
    """
    intensity = store.layer_intensity
    return intensity / ((scale or layer_scale(intensity)).usual + THIN_INTENSITY)


def dominant_layers(store: TileStore, scale: LayerScale | None = None) -> np.ndarray:
    """The most prominent layer of each tile, `(N,) int8` index into `LAYERS`; -1 for a blank tile."""
    prominence = layer_prominence(store, scale)
    return np.where(prominence.any(axis=1), prominence.argmax(axis=1), -1).astype(np.int8)


def content_density(store: TileStore, scale: LayerScale | None = None) -> np.ndarray:
    """How much is drawn on each tile, `(N,) float32`: 0 for a blank tile, 1 if all layers are full.

    The mean over the layers of how full each one is, by default in this city. So all layers count alike: a built-up
    crossing is denser than a forest that fills its tile.
    """
    intensity = store.layer_intensity
    return np.minimum(intensity / (scale or layer_scale(intensity)).full, 1).mean(axis=1).astype(np.float32)


def compass_zones(tile_xy: np.ndarray, corners: np.ndarray | None = None) -> np.ndarray:
    """Geographic zone of each tile, `(N,) int8` index into `ZONES`.

    The centre is a circle around the middle of the bounding box with a ninth of its area; the rest is divided into
    eight sectors of 45 degrees. `corners (2, 2)` are the first and the last tile of another box.
    """
    low, high = (tile_xy.min(axis=0), tile_xy.max(axis=0)) if corners is None else corners
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    east, south = (tile_xy - (low + high) / 2).T
    radius = math.sqrt((high - low + 1).prod() / (9 * math.pi))
    sector = np.round(np.arctan2(east, -south) / (math.pi / 4)).astype(np.int64) % 8
    return np.where(np.hypot(east, south) <= radius, 0, sector + 1).astype(np.int8)
