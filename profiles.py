"""Brightness profiles: how much of each brightness every layer of a tile shows.

Not a command.
"""

import math

import torch
from torch import Tensor, nn

# --- what a tile shows -------------------------------------------------------------------------------------

PROFILE_CLASSES = 16  # of brightness, in each layer
PROFILE_FLOOR, PROFILE_LIMIT = 0.01, 10.0  # a class that hardly ever occurs must not outweigh all others
PROFILE_STEEPNESS = 64  # below a 64th of a tile a class counts nearly in proportion
PROFILE_SHARE = 1.0  # length of the summary beside the learned part's 1


def brightness_profile(tiles: Tensor) -> Tensor:
    """Logarithms of the shares of its pixels that each class of brightness has in each layer of a tile.

    `tiles (B, C, S, S) uint8` to `(B, C * 16) float32`, log(1 + 64 share) / log(65): 0 where a class is absent, 1 where
    it fills the layer; ground on which nothing is drawn is in no class. The logarithm keeps a few dots from vanishing
    beside whole areas, and is nearly linear for dots, so that they can be counted. Turning a tile changes nothing.
    """
    pixels = tiles.flatten(2)
    drawn = torch.where(pixels == 0, PROFILE_CLASSES, pixels >> 4).long()  # one more class for the bare ground
    counts = torch.zeros(*pixels.shape[:2], PROFILE_CLASSES + 1, device=tiles.device)
    counts.scatter_add_(2, drawn, counts.new_ones(()).expand(drawn.shape))
    shares = counts[:, :, :PROFILE_CLASSES] / pixels.shape[2]
    return (PROFILE_STEEPNESS * shares).log1p().flatten(1) / math.log1p(PROFILE_STEEPNESS)


class ProfileScale(nn.Module):
    """Brightness profiles by how far they lie from a city's mean, in standard deviations; part of a checkpoint."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, profiles: Tensor) -> None:
        """Take mean and deviation from `profiles (N, size)`."""
        self.mean.copy_(profiles.mean(dim=0))
        self.scale.copy_((profiles.var(dim=0, correction=0) + PROFILE_FLOOR**2).sqrt())

    def forward(self, profiles: Tensor) -> Tensor:
        """Standardised `profiles (B, size)`; no class counts for more than `PROFILE_LIMIT` deviations."""
        return ((profiles - self.mean) / self.scale).clamp(-PROFILE_LIMIT, PROFILE_LIMIT)


class ProfileSummary(nn.Module):
    """The principal components of standardised brightness profiles, on average as long as the learned unit vector.

    Each is divided by the root of its deviation: half-way to whitening, so that the first few do not decide alone what
    is near. Not trained but fitted, once, before training: there is no better linear summary of so many numbers.
    """

    def __init__(self, in_channels: int, dims: int):
        super().__init__()
        size = in_channels * PROFILE_CLASSES
        self.scale = ProfileScale(size)
        self.register_buffer("components", torch.zeros(size, dims))

    def fit(self, profiles: Tensor) -> None:
        """Take scale and components from `profiles (N, 192)`."""
        self.scale.fit(profiles)
        standardised = self.scale(profiles).double()
        centred = standardised - standardised.mean(dim=0)
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))  # ascending
        kept = slice(-self.components.shape[1], None)
        components = (axes[:, kept] * variances[kept].clamp(min=1e-6) ** -0.25).flip(1)
        length = (standardised @ components).square().sum(dim=1).mean().sqrt()
        self.components.copy_(PROFILE_SHARE * components / length.clamp(min=1e-6))

    def forward(self, tiles: Tensor) -> Tensor:
        """`(B, profile_dims) float32` for `tiles (B, 12, S, S)` in 0..1."""
        with torch.autocast(tiles.device.type, enabled=False):
            profiles = brightness_profile((tiles.detach() * 255).round().to(torch.uint8))
            return self.scale(profiles) @ self.components


class ProfileHead(nn.Module):
    """Tells a tile's brightness profile from its vector while training; no viewer needs it.

    The map is linear, so that what the layers show stays in the vector for every linear model that reads it. Training
    on views with blanked layers, it must also tell what a layer shows from the others.
    """

    def __init__(self, embedding_dim: int, profiles: Tensor):
        super().__init__()
        self.linear = nn.Linear(embedding_dim, profiles.shape[1])
        self.scale = ProfileScale(profiles.shape[1])
        self.scale.fit(profiles)

    def forward(self, vectors: Tensor, profiles: Tensor) -> Tensor:
        """Mean squared error of each tile's standardised profile `(B,)`; `vectors (B, D)` have unit length.

        Squared, because a dot on few tiles is a large value: a loss that forgives outliers would forgive every shop.
        """
        told = self.linear(vectors * vectors.shape[1] ** 0.5)
        return (told - self.scale(profiles)).square().mean(dim=1)
