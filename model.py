"""The encoder, the losses it is trained with, and mining of negatives.

Not a command. `python train.py` trains an encoder. To add a loss, write a function and add it to `LOSSES`; to add an
encoder, write a module and add it to `ENCODERS`.
"""

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli import UserError, count_float, flag, fraction, positive_float, positive_int
from devices import network_input
from layers import LAYERS
from multiscale import MultiscaleEncoder

BLOCK_CHANNELS = (64, 128, 256, 512, 512)
FC_SIZES = (1024, 512)


# --- encoder -----------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """The loc2vec CNN: `(B, 12, S, S)`, `uint8` or in 0..1, to unit vectors `(B, embedding_dim)`.

    Five blocks of convolution, batch norm, ReLU and 2 x 2 max pooling; then 512 * (S / 32)^2 -> 1024 -> 512 ->
    embedding_dim, with dropout after each hidden layer (Sentiance, loc2vec).
    """

    uses_surroundings = False

    def __init__(self, config: "EncoderConfig"):
        super().__init__()
        self.config = config
        channels = (config.in_channels, *BLOCK_CHANNELS)
        self.blocks = nn.Sequential(*[_block(a, b) for a, b in pairwise(channels)])
        sizes = (BLOCK_CHANNELS[-1] * (config.tile_size // 32) ** 2, *FC_SIZES)
        hidden = [
            nn.Sequential(nn.Linear(a, b), nn.ReLU(inplace=True), nn.Dropout(config.dropout))
            for a, b in pairwise(sizes)
        ]
        self.head = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], config.embedding_dim))
        self.apply(_init_weights)

    def forward(self, tiles: Tensor) -> Tensor:
        """Vectors of unit length, in the weights' precision (float32), for `tiles (B, 12, S, S)`."""
        return self.unit_vectors(self.blocks(network_input(tiles) if tiles.dtype == torch.uint8 else tiles))

    def unit_vectors(self, features: Tensor) -> Tensor:
        """The vectors that the head reads, in its own precision, from the blocks' output `(B, 512, S / 32, S / 32)`."""
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would blur distances of near neighbours
            return F.normalize(self.head(features.to(next(self.head.parameters()).dtype)), dim=1)


AnyEncoder = Encoder | MultiscaleEncoder
ENCODERS: dict[str, type[AnyEncoder]] = {"loc2vec": Encoder, "multiscale": MultiscaleEncoder}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Encoder."""

    embedding_dim: int = flag(128, "length of a tile's vector", type=positive_int)
    dropout: float = flag(0.5, "share of the hidden features dropped while training", type=fraction)
    architecture: str = flag(
        "loc2vec", "loc2vec: the published network; multiscale: it also sees the surroundings", choices=list(ENCODERS)
    )
    tile_size: int = 256
    in_channels: int = len(LAYERS)

    @property
    def uses_surroundings(self) -> bool:
        """Whether the encoder sees the surroundings of a tile, too."""
        return ENCODERS[self.architecture].uses_surroundings

    def __post_init__(self) -> None:
        if self.tile_size % 32:
            nearest = max(32, round(self.tile_size / 32) * 32)
            raise UserError(f"--tile_size {self.tile_size} is not a multiple of 32; try --tile_size {nearest}")
        if self.architecture not in ENCODERS:
            raise UserError(f"no encoder is named {self.architecture!r}; this version has {', '.join(ENCODERS)}")


def build_network(config: EncoderConfig) -> AnyEncoder:
    """The untrained encoder that `config` describes. Its `uses_surroundings` says what it takes.

    Called with the tensors that `TileDataset.inputs` gives, it returns unit vectors `(B, embedding_dim)`.
    """
    return ENCODERS[config.architecture](config)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


def _init_weights(module: nn.Module) -> None:
    """He initialisation (He et al. 2015). With torch's default, the vectors of all tiles start nearly equal."""
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:  # on meta it would import dynamo
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# --- losses ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TripletTerms:
    """Per-sample terms, each `(B,)`: loss, distances, and whether the triplet still gives a gradient.

    For a loss with many negatives per sample (ntxent), `negative` and `active` are means over them.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    active: Tensor


@dataclasses.dataclass(frozen=True)
class LossInput:
    """What a loss may use: the vectors of a batch, and where their tiles lie.

    `vectors (B, K, D)` are anchor, positive and (K = 3) negative, of unit length; `tile_xy (B, K, 2) float32` their
    places, in tiles. Tiles within `near` of each other count as alike; tiles at least `far` apart may be negatives.
    """

    vectors: Tensor
    tile_xy: Tensor
    near: float
    far: float

    @property
    def triplets(self) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors, positives and negatives, each `(B, D)`."""
        anchor, positive, negative = self.vectors.unbind(1)
        return anchor, positive, negative


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


def ntxent_loss(
    vectors: Tensor, tile_xy: Tensor, near: float, far: float, temperature: float, margin: float
) -> TripletTerms:
    """Multi-positive InfoNCE over the batch (NT-Xent, Chen et al. 2020; several positives as Khosla et al. 2020).

    For tile i: the mean over its positives p of -log(e^s_ip / (e^s_ip + sum over negatives n of e^s_in)), s being the
    cosine over the temperature. Positives are its own pair and tiles within `near`; negatives lie at least `far`
    away; tiles in between are left out. Terms are per sample; `active` is its share of (i, p, n) within the margin.
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


@dataclasses.dataclass(frozen=True)
class Loss:
    """One choice of `--loss_type`: its function, and what batches it takes."""

    terms: Callable[[LossInput, "LossConfig"], TripletTerms]
    views: int = 3  # tiles per sample; 2 for a loss that takes its negatives from the batch
    nearest_of_pair: bool = False  # mining: a negative's distance is that to the anchor or the positive


def no_loss(vectors: Tensor) -> TripletTerms:
    """Terms of 0, for training by reconstruction alone."""
    zero = vectors.new_zeros(len(vectors))
    return TripletTerms(zero, zero, zero, zero)


LOSSES: dict[str, Loss] = {
    "reconstruction": Loss(lambda batch, _: no_loss(batch.vectors), views=1),
    "triplet": Loss(lambda batch, config: triplet_loss(*batch.triplets, config.margin)),
    "softpn": Loss(
        lambda batch, config: softpn_loss(*batch.triplets, config.margin, config.softpn_scale),
        nearest_of_pair=True,
    ),
    "ntxent": Loss(
        lambda batch, config: ntxent_loss(
            batch.vectors, batch.tile_xy, batch.near, batch.far, config.temperature, config.margin
        ),
        views=2,
    ),
}
MINING = ("random", "semi-hard", "hard")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Loss."""

    loss_type: str = flag("softpn", "what training minimises", choices=list(LOSSES))
    margin: float = flag(0.2, "triplet loss margin", type=count_float)
    mining: str = flag(
        "random", "negative of a triplet: the one drawn, or one from the batch (triplet, softpn)", choices=MINING
    )
    softpn_scale: float = flag(1.0, "steepness s of softpn; 1 as published", type=positive_float)
    temperature: float = flag(0.1, "temperature of ntxent", type=positive_float)
    vicreg_weight: float = flag(0.0, "weight of the variance/covariance term against collapse", type=count_float)
    reconstruction_weight: float = flag(
        0.0,
        "weight of telling the statistics of a tile and of its surroundings from its vector",
        type=count_float,
        aliases=["profile_weight"],
    )

    def __post_init__(self) -> None:
        for name, choices in (("loss_type", LOSSES), ("mining", MINING)):
            if (value := getattr(self, name)) not in choices:
                raise UserError(f"--{name} {value!r} is unknown; choose from {', '.join(choices)}")
        if self.loss_type == "reconstruction" and not self.reconstruction_weight:
            raise UserError(
                "--loss_type reconstruction needs --reconstruction_weight 1; with 0 there is nothing to learn"
            )

    @property
    def views(self) -> int:
        """Tiles per sample."""
        return LOSSES[self.loss_type].views


def batch_loss(config: LossConfig, vectors: Tensor, tile_xy: Tensor, near: float, far: float) -> TripletTerms:
    """The configured loss of a batch; the mean of `.loss` is what training minimises. See `LossInput` for shapes."""
    loss = LOSSES[config.loss_type]
    chosen = vectors
    if loss.views == 3 and config.mining != "random":
        chosen = torch.stack([vectors[:, 0], vectors[:, 1], mined_negatives(config, vectors, tile_xy, far)], dim=1)
    terms = loss.terms(LossInput(chosen, tile_xy, near, far), config)
    if config.vicreg_weight:
        spread = config.vicreg_weight * vicreg_penalty(vectors.flatten(0, 1))
        terms = dataclasses.replace(terms, loss=terms.loss + spread)
    return terms


# --- mining ------------------------------------------------------------------------------------------------


def mined_negatives(config: LossConfig, vectors: Tensor, tile_xy: Tensor, far: float) -> Tensor:
    """For each triplet of `vectors (B, 3, D)` a negative `(B, D)` among the tiles of the batch at least `far` away.

    `hard` takes the nearest one. `semi-hard` (Schroff et al. 2015) takes the nearest one that is farther than the
    positive, or the drawn one if there is none.
    """
    with torch.no_grad():
        pool = vectors.flatten(0, 1)  # (3 B, D)
        distance = torch.cdist(vectors[:, 0], pool)
        if LOSSES[config.loss_type].nearest_of_pair:
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
