"""Brightness profiles: how much of each brightness every layer of a tile shows.

Not a command. `tile_encoder.py` makes part of a vector from them; `train.py` can reconstruct them from vectors.
"""

import math

import torch
from torch import Tensor, nn

PROFILE_CLASSES = 16  # of brightness, in each layer
PROFILE_FLOOR = 0.01  # added to the deviations, so that a class that hardly ever occurs does not outweigh all others
PROFILE_LIMIT = 10.0  # standard deviations that a class counts for at most
PROFILE_STEEPNESS = 64  # a class counts nearly in proportion while it covers less than a 64th of a tile
PROFILE_SHARE = 1.0  # length of the summary beside the learned part, which has length 1


def brightness_profile(tiles: Tensor) -> Tensor:
    """The share of its pixels that each class of brightness covers in each layer of a tile, on a logarithmic scale.

    `tiles (B, C, S, S) uint8` to `(B, C * 16) float32`: log(1 + 64 share) / log(65), which is 0 where a class is absent
    and 1 where it fills the layer. Blank pixels belong to no class. The logarithm keeps a few dots visible beside whole
    areas; for dots alone it is nearly linear, so that they can be counted. Rotating a tile changes nothing.
    """
    pixels = tiles.flatten(2)
    drawn = torch.where(pixels == 0, PROFILE_CLASSES, pixels >> 4).long()  # one more class, for blank pixels
    counts = torch.zeros(*pixels.shape[:2], PROFILE_CLASSES + 1, device=tiles.device)
    counts.scatter_add_(2, drawn, counts.new_ones(()).expand(drawn.shape))
    shares = counts[:, :, :PROFILE_CLASSES] / pixels.shape[2]
    return (PROFILE_STEEPNESS * shares).log1p().flatten(1) / math.log1p(PROFILE_STEEPNESS)


class ProfileScale(nn.Module):
    """Standardises brightness profiles by the mean and standard deviation of a city; saved in a checkpoint."""

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, profiles: Tensor) -> None:
        """Take mean and standard deviation from `profiles (N, size)`."""
        self.mean.copy_(profiles.mean(dim=0))
        self.scale.copy_((profiles.var(dim=0, correction=0) + PROFILE_FLOOR**2).sqrt())

    def forward(self, profiles: Tensor) -> Tensor:
        """Standardised `profiles (B, size)`; no class counts for more than `PROFILE_LIMIT` deviations."""
        return ((profiles - self.mean) / self.scale).clamp(-PROFILE_LIMIT, PROFILE_LIMIT)


class ProfileSummary(nn.Module):
    """The principal components of standardised brightness profiles, on average as long as the learned unit vector.

    Each component is divided by the square root of its standard deviation. That is half-way to whitening, so that the
    first few components do not decide alone which tiles are near. It is fitted once, before training.
    """

    components: Tensor

    def __init__(self, in_channels: int, dims: int):
        super().__init__()
        size = in_channels * PROFILE_CLASSES
        self.scale = ProfileScale(size)
        self.register_buffer("components", torch.zeros(size, dims))

    def fit(self, profiles: Tensor) -> None:
        """Take scale and components from `profiles (N, 192)`. The linear algebra runs on the CPU, in float64."""
        self.scale.fit(profiles)
        standardised = self.scale(profiles).cpu().double()  # MPS has no float64
        centred = standardised - standardised.mean(dim=0)
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))  # ascending
        kept = slice(-self.components.shape[1], None)
        components = (axes[:, kept] * variances[kept].clamp(min=1e-6) ** -0.25).flip(1)
        length = (standardised @ components).square().sum(dim=1).mean().sqrt()
        self.components.copy_((PROFILE_SHARE * components / length.clamp(min=1e-6)).float())

    def forward(self, tiles: Tensor) -> Tensor:
        """`(B, profile_dims) float32` for `tiles (B, 12, S, S)` in 0..1."""
        with torch.autocast(tiles.device.type, enabled=False):
            profiles = brightness_profile((tiles.detach() * 255).round().to(torch.uint8))
            return self.scale(profiles) @ self.components


class ProfileHead(nn.Module):
    """Reconstructs a tile's brightness profile from its vector; used in training only.

    The map is linear, so that linear models that use the vectors can also read what the layers show. Since training
    blanks layers at random, the vector must also hold what a blanked layer usually shows beside the others.
    """

    def __init__(self, embedding_dim: int, profiles: Tensor):
        super().__init__()
        self.linear = nn.Linear(embedding_dim, profiles.shape[1])
        self.scale = ProfileScale(profiles.shape[1])
        self.scale.fit(profiles)

    def forward(self, vectors: Tensor, profiles: Tensor) -> Tensor:
        """Mean squared error of each tile's standardised profile `(B,)`; `vectors (B, D)` have unit length.

        The error is squared because a dot on few tiles is a large value: a loss that forgives outliers would ignore
        every shop.
        """
        reconstructed = self.linear(vectors * vectors.shape[1] ** 0.5)
        return (reconstructed - self.scale(profiles)).square().mean(dim=1)
