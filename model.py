"""The loc2vec encoder, its losses, and the one pair of functions that write and read checkpoints.

Not a command itself. `python train.py` trains it, `python precompute_embeddings.py` uses it.
"""

import dataclasses
import io
import math
import os
import platform
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli import UserError, count_float, count_int, flag, fraction, positive_float, positive_int
from data_loader import DEFAULT_ZOOM, LAYERS, SHRINKS
from files import atomic_write, digest, remove_leftovers

CHECKPOINT_FORMAT = 3  # 3: the trained part beside a summary is centred
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
        self.summary = ProfileSummary(config) if config.profile_dims else None
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


def pick_device(name: str) -> torch.device:
    """The device a `--device` flag names; `auto` takes CUDA, then MPS, then the CPU."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name):
        raise UserError(f"--device {name} is not available on this machine; leave it out or pass --device cpu")
    return torch.device(name)


def compute_dtype(device: torch.device) -> torch.dtype:
    """The precision that networks run fastest in: bfloat16 where the chip multiplies it itself, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # AVX512-BF16 or AMX; torch has no public name for them
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        usable = device.type == "cpu" and torch.backends.mkldnn.is_available()
        native = usable and any(getattr(torch.cpu, name, bool)() for name in checks)
    return torch.bfloat16 if native else torch.float32


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

    def __init__(self, config: EncoderConfig):
        super().__init__()
        size = config.in_channels * PROFILE_CLASSES
        self.scale = ProfileScale(size)
        self.register_buffer("components", torch.zeros(size, config.profile_dims))

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


# --- how good vectors are, without labels ------------------------------------------------------------------


def rank_me(vectors: Tensor) -> float:
    """Effective rank of `vectors (N, D)`: exp of the entropy of the singular values (Garrido et al. 2023)."""
    values = torch.linalg.svdvals(vectors.detach().double().cpu())
    share = values / values.sum().clamp(min=1e-12) + 1e-12
    return float(torch.exp(-(share * share.log()).sum()))


def triplet_accuracy(anchor: Tensor, positive: Tensor, negative: Tensor) -> float:
    """Share of triplets whose positive lies nearer to the anchor than their negative."""
    nearer = F.pairwise_distance(anchor, positive) < F.pairwise_distance(anchor, negative)
    return float(nearer.float().mean())


# --- checkpoints -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Checkpoint:
    """Everything that rebuilds the encoder and goes on training: plain tensors and plain types only."""

    encoder_config: dict[str, Any]
    encoder_state: dict[str, Tensor]
    train_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    train_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    layers: list[str] = dataclasses.field(default_factory=lambda: list(LAYERS))
    zoom: int = DEFAULT_ZOOM
    shrink: str = "mean"
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: library_versions())
    format_version: int = CHECKPOINT_FORMAT

    @property
    def tile_size(self) -> int:
        """Edge of the tiles the encoder takes, in pixels."""
        return self.encoder_config["tile_size"]

    def key(self) -> str:
        """Digest of the encoder's weights and settings: equal for equal vectors, whatever else was saved."""
        weights = [part for name, tensor in self.encoder_state.items() for part in (name, tensor.cpu().numpy())]
        return digest(self.encoder_config, self.layers, self.zoom, self.shrink, *weights)


def library_versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def encoder_state(encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's weights on the CPU under plain names, whether it was compiled, wrapped for DDP, or not."""
    while True:
        inner = getattr(encoder, "_orig_mod", None) or (encoder.module if hasattr(encoder, "module") else None)
        if inner is None:
            break
        encoder = inner
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that `path` holds either the old or the new one, whole, whatever happens meanwhile."""
    buffer = io.BytesIO()
    torch.save({field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}, buffer)
    remove_leftovers(Path(path).parent)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises `UserError` for a missing, damaged, foreign or newer file, and for one trained on other layers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; `python train.py` writes one, or name another with --model_path")
    try:
        _check_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(_damaged(path)) from error
    if not isinstance(content, dict) or not {"format_version", "encoder_config", "encoder_state"} <= set(content):
        raise UserError(f"{path} is not a checkpoint of this project; `python train.py` writes one")
    if content["format_version"] != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content['format_version']}, this version reads format {CHECKPOINT_FORMAT}; "
            "train again or use the version that wrote it"
        )
    names = {field.name for field in dataclasses.fields(Checkpoint)}
    if missing := names - set(content):
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; `python train.py` writes a whole checkpoint")
    checkpoint = Checkpoint(**{name: content[name] for name in names})
    _check_layers(path, checkpoint)
    _check_weights(path, checkpoint)
    return checkpoint


def _check_layers(path: Path, checkpoint: Checkpoint) -> None:
    if checkpoint.layers != list(LAYERS):
        names = ", ".join(checkpoint.layers) if isinstance(checkpoint.layers, list) else repr(checkpoint.layers)
        raise UserError(
            f"{path} was trained on the layers {names}; expected {', '.join(LAYERS)}. "
            "Its vectors would mean something else; train again with `python train.py`"
        )
    if checkpoint.shrink not in SHRINKS or not isinstance(checkpoint.zoom, int):
        raise UserError(
            f"{path} was trained on tiles of zoom {checkpoint.zoom!r} shrunk by {checkpoint.shrink!r}; "
            "this version knows no such thing: train again with `python train.py`"
        )


def _check_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Weights must be those of the encoder that the settings describe, and numbers."""
    try:
        with torch.device("meta"):
            expected = Encoder(EncoderConfig(**checkpoint.encoder_config)).state_dict()
        found = checkpoint.encoder_state
        fits = expected.keys() == found.keys() and all(found[name].shape == expected[name].shape for name in expected)
    except (AttributeError, RuntimeError, TypeError, ValueError, UserError):
        fits = False
    if not fits:
        raise UserError(
            f"the weights in {path} are not those of the encoder that its settings describe; it was not written by "
            "this version: train again with `python train.py`"
        )
    if not all(weights.isfinite().all() for weights in found.values()):
        raise UserError(f"{path} holds weights that are no finite numbers; train again with a smaller --lr")


def _check_whole(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is not as it was written")


def _damaged(path: Path) -> str:
    good = newest_good_checkpoint(path.parent, skip=path)
    instead = f"the newest whole one beside it is {good}" if good else "no whole one lies beside it; train again"
    return f"{path} is damaged or cut short and was not loaded; {instead}"


# What Python's zipfile raises for one wrong byte or another.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError)


def newest_good_checkpoint(folder: Path, skip: Path | None = None) -> Path | None:
    """The latest written checkpoint of a folder whose content is whole."""
    candidates = [path for path in folder.glob("[!.]*.pth") if path != skip and path.is_file()]
    for path in sorted(candidates, key=os.path.getmtime, reverse=True):
        try:
            _check_whole(path)
        except _ZIP_ERRORS:
            continue
        return path
    return None


def build_encoder(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Encoder:
    """The checkpoint's encoder, ready to embed: weights loaded, evaluation mode, `channels_last`."""
    encoder = Encoder(EncoderConfig(**checkpoint.encoder_config))
    encoder.load_state_dict(checkpoint.encoder_state)
    return encoder.to(device, memory_format=torch.channels_last).eval()


def load_encoder(path: Path | str, device: torch.device | str = "cpu") -> tuple[Encoder, Checkpoint]:
    """Read a checkpoint and rebuild its encoder on `device`: `(encoder, checkpoint)`."""
    checkpoint = load_checkpoint(path)
    return build_encoder(checkpoint, device), checkpoint
