"""Facts about tiles that are read off their pixels and coordinates: dominant layer, content density, geographic zone.

Not a command.
"""

import math

import numpy as np

from tile_store import TileStore

ZONES = ("Centre", "North", "Northeast", "East", "Southeast", "South", "Southwest", "West", "Northwest")

THIN_INTENSITY = 0.02  # a layer with less mean intensity than this is a hairline, however rare it is elsewhere


def layer_prominence(store: TileStore) -> np.ndarray:
    """How much each layer stands out on each tile, `(N, L) float32`; 0 where it is blank.

    Filled areas (landcover) have a hundred times the intensity of lines and dots (power, places), so that by intensity
    alone landcover would win on nearly every tile. Here the intensity of a layer is divided by its mean over the tiles
    of this city on which it is drawn. `THIN_INTENSITY` is added to that mean, so that a rare hairline does not outweigh
    a built-up quarter.
    """
    intensity = store.layer_intensity
    drawn = (intensity > 0).sum(axis=0)
    usual = intensity.sum(axis=0) / np.maximum(drawn, 1)
    return intensity / (usual + THIN_INTENSITY)


def dominant_layers(store: TileStore) -> np.ndarray:
    """The most prominent layer of each tile, `(N,) int8` index into `LAYERS`; -1 for a blank tile."""
    prominence = layer_prominence(store)
    return np.where(prominence.any(axis=1), prominence.argmax(axis=1), -1).astype(np.int8)


def content_density(store: TileStore) -> np.ndarray:
    """How much is drawn on each tile, `(N,) float32`: 0 for a blank tile, 1 if all layers are full.

    The mean over the layers of how full each one is. A layer is full from the 95th percentile of its intensity on, over
    the tiles on which it is drawn. So all layers count alike: a built-up crossing is denser than a forest that fills
    its tile.
    """
    intensity = store.layer_intensity
    full = np.array([np.percentile(layer[layer > 0], 95) if layer.any() else 1.0 for layer in intensity.T])
    return np.minimum(intensity / full, 1).mean(axis=1).astype(np.float32)


def compass_zones(tile_xy: np.ndarray) -> np.ndarray:
    """Geographic zone of each tile, `(N,) int8` index into `ZONES`.

    The centre is a circle around the middle of the bounding box with a ninth of its area; the rest is divided into
    eight sectors of 45 degrees.
    """
    low, high = tile_xy.min(axis=0).astype(np.float64), tile_xy.max(axis=0).astype(np.float64)
    east, south = (tile_xy - (low + high) / 2).T
    radius = math.sqrt((high - low + 1).prod() / (9 * math.pi))
    sector = np.round(np.arctan2(east, -south) / (math.pi / 4)).astype(np.int64) % 8
    return np.where(np.hypot(east, south) <= radius, 0, sector + 1).astype(np.int8)
