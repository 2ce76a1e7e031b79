"""What makes two tiles match: how much similarity is lost when a part of one of them is left out.

Not a command. The explorer's "Why they match" shows it.
"""

import numpy as np

from inference import Embedder
from layers import LAYERS

PLACE_PARTS = ("the place", "surroundings")  # parts L and L + 1 of `Embedder.embed_without`


def layer_contributions(embedder: Embedder, row_a: int | np.ndarray, row_b: int | np.ndarray) -> np.ndarray:
    """How much each layer adds to the cosine similarity of two tiles of the store, `(12,) float32`.

    It is the similarity minus the similarity when the layer is blanked in one of the tiles and in its surroundings, as
    a mean over the two tiles. A positive layer makes them alike, a negative one tells them apart, and a layer that both
    lack is exactly 0. The layer is not blanked in both at once: with less to see, any two tiles are more alike. Arrays
    of M rows give `(M, 12)`.
    """
    return _similarity_lost(embedder, row_a, row_b, np.arange(len(LAYERS)))


def place_contributions(embedder: Embedder, row_a: int | np.ndarray, row_b: int | np.ndarray) -> np.ndarray:
    """How much each of `PLACE_PARTS` adds to the cosine similarity of two tiles of the store, `(2,) float32`.

    The encoder must see the surroundings. Arrays of M rows give `(M, 2)`.
    """
    return _similarity_lost(embedder, row_a, row_b, len(LAYERS) + np.arange(len(PLACE_PARTS)))


def _similarity_lost(
    embedder: Embedder, row_a: int | np.ndarray, row_b: int | np.ndarray, parts: np.ndarray
) -> np.ndarray:
    """Mean similarity lost without each of `parts (P,)` in one of two tiles, for M pairs of rows `(M, P)`."""
    pairs = np.stack(np.broadcast_arrays(row_a, row_b), axis=-1)
    rows, inverse = np.unique(pairs, return_inverse=True)
    a, b = np.moveaxis(inverse.reshape(pairs.shape), -1, 0)
    whole = embedder.embed_tiles(rows)  # (R, D)
    without = np.repeat(whole[:, None], len(parts), axis=1)  # (R, P, D): the same where the tile lacks the layer
    at, column = np.nonzero(shown_parts(embedder, rows)[:, parts])
    without[at, column] = embedder.embed_without(np.column_stack([rows[at], parts[column]]))
    lost_a = ((whole[a][..., None, :] - without[a]) * whole[b][..., None, :]).sum(axis=-1)
    lost_b = ((whole[b][..., None, :] - without[b]) * whole[a][..., None, :]).sum(axis=-1)
    return (lost_a + lost_b) / 2


def shown_parts(embedder: Embedder, rows: np.ndarray) -> np.ndarray:
    """`(n, P) bool`: which parts can be left out of the store's `rows`.

    These are the layers that are drawn and, for an encoder that sees the surroundings, `PLACE_PARTS`.
    """
    drawn = embedder.store.plane_of[rows] > 0
    return np.pad(drawn, ((0, 0), (0, len(place_parts(embedder)))), constant_values=True)


def place_parts(embedder: Embedder) -> tuple[str, ...]:
    """`PLACE_PARTS` for an encoder that sees the surroundings, nothing for others."""
    return PLACE_PARTS if embedder.encoder.uses_surroundings else ()
