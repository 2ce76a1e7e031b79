"""Which layers make two tiles match: how much similarity is lost when a layer is blanked.

Not a command. The explorer's "Why they match" shows it.
"""

import numpy as np

from inference import Embedder
from layers import LAYERS


def layer_contributions(embedder: Embedder, row_a: int | np.ndarray, row_b: int | np.ndarray) -> np.ndarray:
    """How much each layer adds to the cosine similarity of two tiles of the store, `(12,) float32`.

    It is the similarity minus the similarity when that layer is blanked in both tiles. A positive layer makes them
    alike, a negative one tells them apart, and a layer that both lack is exactly 0. Arrays of M rows give `(M, 12)`.
    """
    pairs = np.stack(np.broadcast_arrays(row_a, row_b), axis=-1)
    rows, inverse = np.unique(pairs, return_inverse=True)
    a, b = np.moveaxis(inverse.reshape(pairs.shape), -1, 0)
    whole = embedder.embed_tiles(rows)  # (R, D)
    without = np.repeat(whole[:, None], len(LAYERS), axis=1)  # (R, 12, D): the same where the layer is blank anyway
    at, layer = np.nonzero(embedder.store.plane_of[rows])
    without[at, layer] = embedder.embed_without(np.column_stack([rows[at], layer]))
    similarity = (whole[a] * whole[b]).sum(axis=-1)
    return similarity[..., None] - (without[a] * without[b]).sum(axis=-1)
