"""Facts about tiles: dominant layer, content density, geographic zone.

Not a command.
"""

import math

import numpy as np

from tile_store import TileStore

ZONES = ("Centre", "North", "Northeast", "East", "Southeast", "South", "Southwest", "West", "Northwest")

THIN_MASS = 0.02  # a layer that covers less than this of a tile is a hairline, however rare it is elsewhere


# --- facts about tiles -------------------------------------------------------------------------------------


def layer_prominence(store: TileStore) -> np.ndarray:
    """How much each layer catches the eye on each tile, `(N, 12) float32`, 0 where it is blank.

    Fills (landcover) carry a hundred times the mass of lines and dots (power, places), so that plain mass would call
    nearly every tile landcover. A layer counts by its mass relative to what it usually has on the tiles of this city
    where it is drawn at all; `THIN_MASS` is added to that, so that a rare hairline does not outshine a whole quarter.
    """
    mass = store.layer_mass
    drawn = (mass > 0).sum(axis=0)
    usual = mass.sum(axis=0) / np.maximum(drawn, 1)
    return mass / (usual + THIN_MASS)


def dominant_layers(store: TileStore) -> np.ndarray:
    """The most prominent layer of each tile, `(N,) int8` index into `LAYERS`; -1 for a blank tile."""
    prominence = layer_prominence(store)
    return np.where(prominence.any(axis=1), prominence.argmax(axis=1), -1).astype(np.int8)


def content_density(store: TileStore) -> np.ndarray:
    """How much the map says about each tile, `(N,) float32`: 0 is a blank tile, 1 one whose 12 layers are all full.

    The mean over the layers of how full each is, where full is the mass that one in twenty tiles with that layer
    exceeds: every layer counts alike, so a built-up crossing is denser than a forest that fills its tile.
    """
    mass = store.layer_mass
    full = np.array([np.percentile(layer[layer > 0], 95) if layer.any() else 1.0 for layer in mass.T])
    return np.minimum(mass / full, 1).mean(axis=1).astype(np.float32)


def compass_zones(tile_xy: np.ndarray) -> np.ndarray:
    """Geographic zone of each tile, `(N,) int8` index into `ZONES`.

    The centre is a disc round the middle of the area's bounding box that holds a ninth of it; the rest is eight
    sectors of 45 degrees.
    """
    low, high = tile_xy.min(axis=0).astype(np.float64), tile_xy.max(axis=0).astype(np.float64)
    east, south = (tile_xy - (low + high) / 2).T
    radius = math.sqrt((high - low + 1).prod() / (9 * math.pi))
    sector = np.round(np.arctan2(east, -south) / (math.pi / 4)).astype(np.int64) % 8
    return np.where(np.hypot(east, south) <= radius, 0, sector + 1).astype(np.int8)
