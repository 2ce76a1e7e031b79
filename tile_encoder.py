"""The tile encoder: a network and everything else that a tile's vector needs.

Not a command. `train.py` trains the network in it; `checkpoint.py` saves and loads it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import ENCODERS, EncoderConfig
from profiles import ProfileSummary


class TileEncoder(nn.Module):
    """Tiles `(B, 12, S, S)` in 0..1 to their final vectors `(B, embedding_dim)`, of unit length.

    Without `profile_dims` a vector is the network's. With it, a vector has two parts of equal weight ("wide and deep",
    Cheng et al. 2016): the network's vector, centred, and a `ProfileSummary`. Max pooling in the network loses small
    symbols; the summary keeps them. Centring subtracts `centre`, the network's mean vector of the training tiles: its
    vectors point into a cone, and seen from the axis they are further apart. Training sets `centre` and the summary.
    """

    centre: Tensor

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.network = ENCODERS[config.architecture](config)
        self.summary: ProfileSummary | None = None
        if config.profile_dims:
            self.summary = ProfileSummary(config.in_channels, config.profile_dims)
            self.register_buffer("centre", torch.zeros(config.learned_dims))

    def forward(self, tiles: Tensor) -> Tensor:
        """The vectors of `tiles (B, 12, S, S)`."""
        return self.complete(self.network(tiles), tiles)

    def complete(self, learned: Tensor, tiles: Tensor) -> Tensor:
        """The vectors of `tiles (B, 12, S, S)`, given the network's `learned (B, learned_dims)` for them."""
        if self.summary is None:
            return learned
        learned = F.normalize(learned - self.centre, dim=1)
        return F.normalize(torch.cat([learned, self.summary(tiles)], dim=1), dim=1)

    def learned(self, vectors: Tensor) -> Tensor:
        """The network's part of `vectors (..., embedding_dim)`, of unit length.

        The loss uses this part alone. If it also saw the summary, it could tell most tiles apart from that alone, and
        the network would learn little.
        """
        return vectors if self.summary is None else F.normalize(vectors[..., : self.config.learned_dims], dim=-1)
