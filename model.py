"""The loc2vec encoder, its losses, and the one pair of functions that write and read checkpoints.

Not a command itself. `python train.py` trains it, `python precompute_embeddings.py` uses it.
"""

import dataclasses
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli import UserError, count_float, count_int, flag, fraction, positive_float, positive_int
from layers import LAYERS
from profiles import PROFILE_CLASSES, ProfileSummary

BLOCK_CHANNELS = (64, 128, 256, 512, 512)
FC_SIZES = (1024, 512)


# --- encoder -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Encoder."""

    embedding_dim: int = flag(128, "length of a tile's vector", type=positive_int)
    dropout: float = flag(0.5, "share of the hidden features dropped while training", type=fraction)
    profile_dims: int = flag(0, "how many of a vector's numbers sum up how bright its layers are", type=count_int)
    tile_size: int = 256
    in_channels: int = len(LAYERS)

    def __post_init__(self) -> None:
        most = min(self.embedding_dim - 1, self.in_channels * PROFILE_CLASSES)
        if self.profile_dims > most:
            raise UserError(
                f"--profile_dims {self.profile_dims} does not fit into vectors of --embedding_dim {self.embedding_dim};"
                f" at most {most} do"
            )
        if self.tile_size % 32:
            nearest = max(32, round(self.tile_size / 32) * 32)
            raise UserError(f"--tile_size {self.tile_size} is not a multiple of 32; try --tile_size {nearest}")

    @property
    def learned_dims(self) -> int:
        """How many of a vector's numbers are trained: all but the summary's."""
        return self.embedding_dim - self.profile_dims


class Encoder(nn.Module):
    """The loc2vec CNN: `(B, 12, S, S)` in 0..1 to `(B, embedding_dim)`, L2-normalised.

    Five blocks of convolution, batch norm, ReLU and 2 x 2 max pooling; then 512 * (S / 32)^2 -> 1024 -> 512 ->
    embedding_dim, with dropout after each hidden layer. With `profile_dims` the last so many numbers are a
    `ProfileSummary` instead ("wide and deep", Cheng et al. 2016): pooling forgets a dot or two, which it keeps. The
    trained numbers are then read from their `centre`, the mean over the training tiles (zero until training sets it):
    they fill a cone, from whose axis they lie further apart.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        channels = (config.in_channels, *BLOCK_CHANNELS)
        self.blocks = nn.Sequential(*[_block(a, b) for a, b in pairwise(channels)])
        sizes = (BLOCK_CHANNELS[-1] * (config.tile_size // 32) ** 2, *FC_SIZES)
        hidden = [
            nn.Sequential(nn.Linear(a, b), nn.ReLU(inplace=True), nn.Dropout(config.dropout))
            for a, b in pairwise(sizes)
        ]
        self.head = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], config.learned_dims))
        self.apply(_start_spread)
        self.summary = ProfileSummary(config.in_channels, config.profile_dims) if config.profile_dims else None
        if self.summary is not None:
            self.register_buffer("centre", torch.zeros(config.learned_dims))

    def forward(self, tiles: Tensor) -> Tensor:
        """Vectors of unit length, in the weights' precision (float32), for `tiles (B, 12, S, S)`."""
        return self.vectors(self.head(self.blocks(tiles)), tiles)

    def vectors(self, features: Tensor, tiles: Tensor) -> Tensor:
        """The vectors of `tiles (B, 12, S, S)` whose convolved `features` the head has read."""
        vectors = F.normalize(features.to(self.head[-1].weight.dtype), dim=1)
        if self.summary is not None:
            if not self.training:
                vectors = F.normalize(vectors - self.centre, dim=1)
            vectors = F.normalize(torch.cat([vectors, self.summary(tiles)], dim=1), dim=1)
        return vectors

    def learned(self, vectors: Tensor) -> Tensor:
        """The trained part of `vectors (..., embedding_dim)`, of unit length: what a loss may ask something of.

        Were the loss to see the summary, which tells most tiles apart, too, little would be left to learn.
        """
        return vectors if self.summary is None else F.normalize(vectors[..., : self.config.learned_dims], dim=-1)


def _start_spread(module: nn.Module) -> None:
    """He et al. 2015: signals keep their size through ReLUs; torch's own start lets all vectors begin nearly equal."""
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:  # there, it would import all of dynamo
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


# --- losses ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TripletTerms:
    """Per-triplet terms, each `(B,)`: loss, distances, and whether the triplet still gives a gradient.

    Of a sample that stands for many triplets (ntxent), `negative` and `active` are means over them.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    active: Tensor


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> TripletTerms:
    """Triplet loss `max(0, d(a, p) - d(a, n) + margin)` (Schroff et al. 2015, FaceNet; unsquared distances).

    Vectors are `(B, D)`; the mean of `.loss` equals `torch.nn.TripletMarginLoss(margin)`.
    """
    near, far = F.pairwise_distance(anchor, positive), F.pairwise_distance(anchor, negative)
    hinge = near - far + margin
    return TripletTerms(hinge.clamp(min=0), near, far, hinge > 0)


def softpn_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, scale: float = 1.0) -> TripletTerms:
    """SoftPN loss `sigmoid(scale * (d(a, p) - min(d(a, n), d(p, n))))^2` (Balntas et al. 2016, PN-Net).

    The softmax pair of the paper, (e^a / (e^a + e^b))^2, is this sigmoid without an `exp` that overflows. On the unit
    sphere distances stay below 2, so with the published scale of 1 the loss cannot fall below sigmoid(-2)^2 = 0.014
    and, for a negative as far from both as three unit vectors allow, 0.028. `margin` only decides which triplets
    count as active.
    """
    near = F.pairwise_distance(anchor, positive)
    far = torch.minimum(F.pairwise_distance(anchor, negative), F.pairwise_distance(positive, negative))
    return TripletTerms(torch.sigmoid(scale * (near - far)).square(), near, far, near > far - margin)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Loss."""

    loss_type: str = flag("softpn", "what is minimised", choices=["triplet", "softpn", "ntxent"])
    margin: float = flag(0.2, "triplet loss margin", type=count_float)
    mining: str = flag(
        "random",
        "negative of a triplet: the one drawn, or from the batch (triplet, softpn)",
        choices=["random", "semi-hard", "hard"],
    )
    softpn_scale: float = flag(1.0, "steepness s of softpn; 1 as published", type=positive_float)
    temperature: float = flag(0.1, "temperature of ntxent", type=positive_float)
    vicreg_weight: float = flag(0.0, "weight of the variance/covariance term against collapse", type=count_float)
    profile_weight: float = flag(
        0.0, "weight of telling what each layer of a tile shows from its vector", type=count_float
    )

    @property
    def views(self) -> int:
        """Tiles per sample: ntxent takes its negatives from the batch and needs none drawn."""
        return 2 if self.loss_type == "ntxent" else 3


def batch_loss(config: LossConfig, vectors: Tensor, tile_xy: Tensor, near: float, far: float) -> TripletTerms:
    """The configured loss of a batch; the mean of `.loss` is what training minimises.

    `vectors (B, K, D)` are anchor, positive and (K = 3) negative; `tile_xy (B, K, 2) float32` where they lie, in
    tiles; pairs within `near` count as positives for ntxent; tiles at least `far` apart may serve as negatives.
    """
    if config.loss_type == "ntxent":
        terms = ntxent_loss(vectors, tile_xy, near, far, config.temperature, config.margin)
    else:
        anchor, positive, negative = vectors.unbind(1)
        if config.mining != "random":
            negative = mined_negatives(config, vectors, tile_xy, far)
        if config.loss_type == "triplet":
            terms = triplet_loss(anchor, positive, negative, config.margin)
        else:
            terms = softpn_loss(anchor, positive, negative, config.margin, config.softpn_scale)
    if config.vicreg_weight:
        spread = config.vicreg_weight * vicreg_penalty(vectors.flatten(0, 1))
        terms = dataclasses.replace(terms, loss=terms.loss + spread)
    return terms


def mined_negatives(config: LossConfig, vectors: Tensor, tile_xy: Tensor, far: float) -> Tensor:
    """For each triplet of `vectors (B, 3, D)` a negative `(B, D)` among the tiles of the batch at least `far` away.

    `hard` takes the nearest; `semi-hard` (Schroff et al. 2015) the nearest that is farther than the positive, or the
    drawn one where there is none. Nearness is the loss's own: for softpn, to the anchor or the positive.
    """
    with torch.no_grad():
        pool = vectors.flatten(0, 1)  # (3 B, D)
        distance = torch.cdist(vectors[:, 0], pool)
        if config.loss_type == "softpn":
            distance = torch.minimum(distance, torch.cdist(vectors[:, 1], pool))
        own = 3 * torch.arange(len(vectors), device=vectors.device) + 2
        allowed = tiles_apart(tile_xy[:, 0], tile_xy.flatten(0, 1)) >= far
        allowed = allowed.scatter(1, own[:, None], True)
        if config.mining == "semi-hard":
            allowed &= distance > F.pairwise_distance(vectors[:, 0], vectors[:, 1])[:, None]
        chosen = distance.masked_fill(~allowed, torch.inf).argmin(dim=1)
        chosen = torch.where(allowed.any(dim=1), chosen, own)
    return vectors.flatten(0, 1)[chosen]


def tiles_apart(a: Tensor, b: Tensor) -> Tensor:
    """Chebyshev distance in tiles `(A, B)` between places `a (A, 2)` and `b (B, 2)`."""
    return (a[:, None] - b[None]).abs().amax(dim=-1)


def ntxent_loss(
    vectors: Tensor, tile_xy: Tensor, near: float, far: float, temperature: float, margin: float
) -> TripletTerms:
    """Multi-positive InfoNCE over the batch (NT-Xent, Chen et al. 2020; several positives as Khosla et al. 2020).

    For tile i: the mean over its positives p of -log(e^s_ip / (e^s_ip + sum over negatives n of e^s_in)), s being the
    cosine over the temperature. Positives are its own pair and tiles within `near`; negatives lie at least `far`
    away; what lies between is left out. Terms are per sample; `active` is its share of (i, p, n) within the margin.
    """
    batch, views, _ = vectors.shape
    z, xy = vectors.flatten(0, 1), tile_xy.flatten(0, 1)
    owner = torch.arange(batch, device=z.device).repeat_interleave(views)
    own = owner[:, None] == owner
    apart = tiles_apart(xy, xy)
    positive = (own | (apart <= near)).fill_diagonal_(False)
    negative = ~own & (apart >= far)
    cosine = z @ z.T
    logits = cosine / temperature
    rivals = logits.masked_fill(~negative, -1e4).logsumexp(dim=1, keepdim=True)
    pair_loss = F.softplus(rivals - logits)
    loss = (pair_loss * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    with torch.no_grad():
        distance = (2 - 2 * cosine).clamp(min=0).sqrt()
        partner = F.pairwise_distance(vectors[:, 0], vectors[:, 1]).repeat_interleave(views)
        rival_count = negative.sum(dim=1).clamp(min=1)
        mean_rival = (distance * negative).sum(dim=1) / rival_count
        active = ((partner[:, None] > distance - margin) & negative).sum(dim=1) / rival_count
    by_sample = [term.view(batch, views).mean(dim=1) for term in (loss, partner, mean_rival, active)]
    return TripletTerms(*by_sample)


def vicreg_penalty(vectors: Tensor) -> Tensor:
    """Variance and covariance terms of VICReg (Bardes et al. 2022), 25 : 1, on unit vectors times sqrt(D)."""
    centred = (vectors - vectors.mean(dim=0)) * vectors.shape[1] ** 0.5
    covariance = centred.T @ centred / max(len(vectors) - 1, 1)
    variance = covariance.diagonal()
    missing = F.relu(1 - (variance + 1e-4).sqrt()).mean()
    crossed = (covariance.square().sum() - variance.square().sum()) / vectors.shape[1]
    return missing + crossed / 25
