"""Train the encoder on a city's tiles; checkpoints go to checkpoints/, curves to runs/.

python train.py --epochs 50 --batch_size 16
python train.py --preset recommended
python train.py --resume checkpoints/last.pth
torchrun --nproc_per_node=2 train.py --preset recommended
"""

import contextlib
import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checkpoint import Checkpoint, encoder_state, load_checkpoint, save_checkpoint
from cli import StopRequested, StopSignal, UserError, WorkError, run_main
from compile_trial import CompileTrial
from data_loader import Batch, TileDataset, TripletDataset, TripletSampler, copy_to, prefetch
from devices import keep_freed_memory
from distributed import ProcessGroup, distribute, init_distributed
from files import atomic_path, atomic_write
from memory import free_memory, is_out_of_memory, memory_advice, memory_need, tiles_fit
from model import AnyEncoder, TripletTerms, batch_loss, build_network
from multiscale import MultiscaleEncoder, ridge_solution
from progress_bars import progress, progress_listener, warn
from run_log import Recorder
from tile_statistics import city_targets
from tile_store import TileStore, open_configured
from train_config import (
    TrainConfig,
    load_initial,
    loader_threads,
    network_dtype,
    parse_config,
    split_city,
    tiles_key,
)
from vectors import rank_me, triplet_accuracy

LAST, BEST = "last.pth", "best_model.pth"
LOGGED = ("loss", "positive", "negative", "usage", "grad_norm")  # what a training step returns, and then the number 1
START_SAMPLE = 6000  # tiles of each city from which the start of the multiscale encoder is computed
MAP_SAMPLE = 2048  # tiles from which the multiscale encoder gets its fixed map; twice as many in the last epoch
MAP_RIDGE = 1e-3  # penalty for what the decoder of the map differs in from the one that was trained
PARTIAL_WEIGHT = 0.3  # of the statistics told from some of the scales only, beside those told from all
SCALE_DROPOUT = 0.4  # chance that such a vector does not see a scale
PROJECTOR_TILES = 1500
MIN_VAL_SAMPLES = 20
ESTIMATE_AFTER_STEPS, ESTIMATE_AFTER_S = 10, 20  # whichever comes first
LONG_RUN_S = 3600  # on a CPU, a run that takes longer gets a hint at faster settings


@dataclasses.dataclass
class TrainState:
    """Where a run stands. A checkpoint holds all of it, and the states of optimiser and random number generators."""

    epoch: int = 0  # epochs completed
    step_in_epoch: int = 0
    step: int = 0  # steps since the run began
    sums: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(len(LOGGED) + 1))  # of this epoch's steps
    best: float = math.inf  # lowest validation loss
    best_epoch: int = 0
    ramp_from: int = 0  # step at which the learning-rate schedule began
    run_name: str = ""


@dataclasses.dataclass
class Run:
    """Everything that training needs: configuration, data, network, optimiser, log, and where it stands."""

    config: TrainConfig
    group: ProcessGroup
    batches: TripletDataset
    val_triplets: list[np.ndarray]  # (M, 3) held-out rows of each city
    encoder: AnyEncoder  # what is saved
    network: nn.Module  # what is trained: the encoder, perhaps distributed and compiled
    decoder: nn.Linear | None  # tells the statistics of a place from its vector, if the loss asks for that
    targets: Tensor | None  # those statistics `(N, T)`, of the tiles of all cities
    optimizer: torch.optim.Optimizer
    state: TrainState
    recorder: Recorder
    # Step, loss, and of its batch the cities and rows.
    unchecked: list[tuple[int, Tensor, np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)
    warned: set[str] = dataclasses.field(default_factory=set)  # what the last epoch was warned of

    @property
    def stores(self) -> list[TileStore]:
        """The packed tiles of each city."""
        return [dataset.store for dataset in self.batches.datasets]

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.config.fit.epochs * len(self.batches)

    @property
    def check_every(self) -> int:
        """Steps between two looks at the losses. On a GPU a look makes the host wait, so it looks rarely."""
        return 1 if self.group.device.type == "cpu" else 16

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context for the forward pass: in mixed precision, if configured."""
        device = self.group.device
        if network_dtype(self.config, device) == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        fit, start = self.config.fit, self.state.ramp_from
        return fit.lr * schedule_factor(step - start, self.total_steps - start, fit.warmup, fit.schedule)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run left: its checkpoints, the folder of its log, and the metrics of its last epoch."""

    best: Path
    last: Path
    folder: Path
    metrics: dict[str, float]


# --- the training loop -------------------------------------------------------------------------------------


def main() -> None:
    """Train as the command line says."""
    outcome = train(parse_config())
    print(f"best checkpoint: {outcome.best}\ncurves: tensorboard --logdir {outcome.folder.parent}")


def train(config: TrainConfig) -> Outcome:
    """Train as configured; continues a run if the configuration names a checkpoint."""
    with init_distributed(config.device.device) as group, StopSignal() as stop:
        free = free_memory(group.device)
        try:
            with progress_listener(lambda *_: stop.raise_if_requested()):  # also while tiles are packed
                run = build_run(config, group)  # data, network, optimiser
            free -= sum(dataset.store.planes.nbytes for dataset in run.batches.datasets if dataset.resident)
            with contextlib.closing(run.recorder):
                metrics = fit(run, stop)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise WorkError(memory_advice(config, group, free)) from error
    folder = config.run.output_dir
    return Outcome(folder / BEST, folder / LAST, run.recorder.folder, metrics)


def fit(run: Run, stop: StopSignal) -> dict[str, float]:
    """The training loop; returns the metrics of the last epoch.

    A stop by signal ends it at any point with everything saved: a run that is stopped while it validates validates
    again when it is resumed.
    """
    config, state, batches = run.config, run.state, run.batches
    metrics: dict[str, float] = {}
    vectors: list[Tensor] = []  # of each city's held-out tiles, after the latest epoch
    began, began_at, announced = time.perf_counter(), state.step, False
    warm = run.group.device.type == "cpu"
    trial = CompileTrial(run.network, run.group, enabled=config.speed.compile and run.group.device.type == "cuda")
    for epoch in range(state.epoch, config.fit.epochs):
        batches.set_epoch(epoch)
        started, waited, first_step = time.perf_counter(), 0.0, state.step_in_epoch
        bar = progress(total=len(batches), desc=f"epoch {epoch + 1}/{config.fit.epochs}", unit="batch")
        bar.update(first_step)
        with bar:
            for batch in prefetch(batches, first_step, loader_threads(config, run.group.device)):
                # Forward, loss, backward, step.
                values = train_step(run, batch, batches.augmented(batch))
                state.sums += values
                state.step += 1
                state.step_in_epoch += 1
                waited += batch.waited
                bar.update()
                if state.step % config.run.log_every == 0:
                    step_metrics = dict(zip(LOGGED, values.tolist(), strict=False))
                    step_metrics["lr"] = run.learning_rate(state.step - 1)
                    run.recorder.log("step", state.step, step_metrics, epoch=epoch)
                stop_if_requested(run, stop)
                if state.step % run.check_every == 0:
                    check_losses(run)
                    if not warm:  # the first steps on a GPU choose the kernels of the others
                        began, began_at, warm = time.perf_counter(), state.step, True
                    elif not announced:
                        announced = announce_duration(run, state.step - began_at, time.perf_counter() - began)
                    decision = trial.measure(state.step, run.total_steps - state.step)
                    run.network = trial.network
                    if decision and run.group.is_main_process:
                        print(decision, flush=True)
        check_losses(run)
        seconds = time.perf_counter() - started
        *sums, count = state.sums.tolist()
        metrics = {name: value / count for name, value in zip(LOGGED, sums, strict=True)}
        metrics["lr"] = run.learning_rate(state.step - 1)
        tiles = (len(batches) - first_step) * config.sample.batch_size * config.loss.views
        metrics |= {"tiles_per_second": tiles / seconds, "data_wait": waited / seconds}

        # Validate and save in the main process; the others wait in `stop_if_requested` and in `barrier`.
        val: dict[str, float] = {}
        if run.group.is_main_process:
            with contextlib.suppress(StopRequested):  # raised again in all processes, with the epoch still open
                fit_map(run, stop)
                val, vectors = validate(run, stop)
        stop_if_requested(run, stop)
        state.epoch, state.step_in_epoch, state.sums = epoch + 1, 0, torch.zeros_like(state.sums)
        if run.group.is_main_process:
            metrics = finish_epoch(run, metrics, val, vectors)
        run.group.barrier()
    if run.group.is_main_process:
        fill_projector(run, vectors, stop)
    return metrics


def train_step(run: Run, batch: Batch, inputs: tuple[Tensor, ...]) -> Tensor:
    """One optimiser step on `inputs`, the augmented batch; returns the numbers of `LOGGED`, and 1.

    They stay on the device, so that the host need not wait for a GPU.
    """
    config, device = run.config, run.group.device
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate(run.state.step)

    # Forward: V vectors of each tile of all processes, (B * K, V, D), before the fixed map of the encoder. The first of
    # the V sees all that the encoder can see.
    with run.autocast():
        if run.encoder.uses_surroundings:
            unmapped = run.network(*inputs, keep=scale_dropout(run, batch))
        else:
            unmapped = run.network(*inputs)[:, None]
    unmapped = run.group.gather(unmapped.float())
    vectors = F.normalize(unmapped[:, 0], dim=1) if run.encoder.uses_surroundings else unmapped[:, 0]
    vectors = vectors.view(*batch.index.shape, -1)  # (B, K, D)

    # Loss.
    near = config.augment.jitter or config.sample.pos_radius
    terms = batch_loss(config.loss, vectors, batch.tile_xy, near, config.sample.neg_radius)
    loss = terms.loss
    if run.decoder is not None and run.targets is not None:
        # Every process sees all vectors and targets, so the decoder stays equal in all of them.
        wanted = run.targets[batch.index.flatten(), None]  # (B * K, 1, T)
        missed = (run.decoder(unmapped) - wanted).square().sum(dim=2)  # (B * K, V)
        missed = missed[:, 0] + PARTIAL_WEIGHT * missed[:, 1:].sum(dim=1)
        loss = loss + config.loss.reconstruction_weight * missed.view(batch.index.shape).mean(dim=1)
    loss = loss.mean()

    # Backward.
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for p in run.encoder.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if config.fit.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.fit.max_grad_norm, norm)

    # Step.
    run.unchecked.append((run.state.step, loss.detach(), batch.city, batch.rows))
    if device.type == "cpu":  # where a look costs nothing, a non-finite loss never reaches the weights
        check_losses(run)
    run.optimizer.step()
    means = [loss, terms.positive.mean(), terms.negative.mean(), terms.active.float().mean(), norm]
    return torch.stack([value.detach().float() for value in means] + [loss.new_ones(()).detach()])


def scale_dropout(run: Run, batch: Batch) -> Tensor:
    """Which scales two vectors of each of this process's tiles see, `(2, b * K, 3) bool`: all, and a random part."""
    size, rank = run.group.size, run.group.rank
    count = batch.inputs[0].shape[0]
    chance = torch.rand((size * count, 3), generator=run.batches.generator(batch, stream=1))
    keep = chance[rank * count : (rank + 1) * count] > SCALE_DROPOUT
    keep[:, 0] |= ~keep.any(dim=1)
    return copy_to(torch.stack([torch.ones_like(keep), keep]), run.group.device)


def schedule_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Share of the highest learning rate at a step: a linear rise, then half a cosine down to 0, or constant."""
    rise = max(1, round(total * warmup)) if warmup else 0
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


# --- data, network and optimiser ---------------------------------------------------------------------------


def build_run(config: TrainConfig, group: ProcessGroup) -> Run:
    """Open the data, build network and optimiser, and restore their state if the run is resumed."""
    size, seed, device = config.sample.batch_size, config.device.seed, group.device
    if size % group.size:
        fits = max(group.size, size // group.size * group.size)
        raise UserError(f"--batch_size {size} does not divide among {group.size} processes; try --batch_size {fits}")
    checkpoint = load_checkpoint(config.run.resume) if config.run.resume else None
    # Only the main process writes, so only it needs a name.
    dated = f"{datetime.now():%Y%m%d-%H%M%S}-{config.loss.loss_type}" if group.is_main_process else ""
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, run_name=config.run.run_name or dated))

    if device.type == "cpu":
        keep_freed_memory()

    # Data.
    stores = [open_configured(config.tiles.one(root), config.packing, verify=True) for root in config.tiles.tiles_root]
    if len({store.content_key for store in stores}) < len(stores):
        raise UserError("two folders of --tiles_root hold the same tiles; name each city once")
    if device.type == "cpu" and memory_need(config, group) > (free := free_memory(device)):
        raise WorkError(memory_advice(config, group, free))  # otherwise the system would kill the process
    split = [split_city(store, config) for store in stores]
    resident = tiles_fit(sum(store.planes.nbytes for store in stores), config, group)
    batches = TripletDataset(
        [TileDataset(store, device, resident) for store in stores],
        config.sample,
        config.augment,
        rows=[train_rows for train_rows, _ in split],
        seed=seed,
        views=config.loss.views,
        surroundings=config.encoder.uses_surroundings,
        group=group,
    )
    val_samples = min(config.fit.val_samples, max(MIN_VAL_SAMPLES, spare_tiles(config, group) // 6)) // len(stores)
    val_triplets = [
        held_out_triplets(store, config, val_rows, max(1, val_samples))
        for store, (_, val_rows) in zip(stores, split, strict=True)
    ]

    # Network, and what tells the statistics of a place from its vector.
    torch.manual_seed(seed)
    encoder = build_network(config.encoder).to(device).to(memory_format=torch.channels_last)
    decoder, targets = None, None
    if config.loss.reconstruction_weight > 0:
        decoder, targets = build_decoder(config, group, batches)
    if config.fit.init and checkpoint is None:
        start_from_weights(encoder, decoder, batches, targets, config)
    elif isinstance(encoder, MultiscaleEncoder) and checkpoint is None:
        start_from_regression(encoder, decoder, batches, targets)

    # Optimiser, in one kernel if the device has it.
    trained = nn.ModuleList([encoder, decoder] if decoder else [encoder])
    optimizer = torch.optim.AdamW(
        trained.parameters(),
        config.fit.lr,
        weight_decay=config.fit.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )

    # Where the run stands.
    state = TrainState(run_name=config.run.run_name)
    if checkpoint:
        state = restore(checkpoint, config, stores, encoder, decoder, optimizer, device)
    state.sums = state.sums.to(device)

    network = distribute(encoder, group) if group.size > 1 else encoder
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    network.train()

    if group.is_main_process:
        config.run.output_dir.mkdir(parents=True, exist_ok=True)  # a path that does not work fails before the work
        if checkpoint:
            carry_best_over(state, config)
    recorder = Recorder(config.run.log_dir / config.run.run_name, config.flat(), group, state.step)
    return Run(config, group, batches, val_triplets, encoder, network, decoder, targets, optimizer, state, recorder)


def build_decoder(config: TrainConfig, group: ProcessGroup, batches: TripletDataset) -> tuple[nn.Linear, Tensor]:
    """The layer that tells the statistics of a place from its vector, and these statistics of all tiles `(N, T)`."""
    stores = [dataset.store for dataset in batches.datasets]
    with group.main_process_first():
        training = [sampler.rows for sampler in batches.samplers]
        by_city = city_targets(stores, training, config.tiles.cache_dir, config.packing.num_workers)
    targets = torch.from_numpy(np.concatenate(by_city))
    decoder = nn.Linear(config.encoder.embedding_dim, targets.shape[1])
    with torch.no_grad():  # number k of a vector starts as the one that tells component k
        decoder.weight.zero_().fill_diagonal_(1).mul_(targets.std(dim=0, correction=0)[:, None])
        decoder.bias.zero_()
    return decoder.to(group.device), targets.to(group.device)


@torch.no_grad()
def start_from_regression(
    encoder: MultiscaleEncoder, decoder: nn.Linear | None, batches: TripletDataset, targets: Tensor | None
) -> None:
    """Let the multiscale encoder start as the best linear reading of what its untrained trunks measure.

    Without a decoder, only these measures are standardised.
    """
    features, index = measured_sample(batches, lambda inputs: encoder.features(*inputs))
    goal = None
    if decoder is not None and targets is not None:
        goal = targets[index, : decoder.in_features] / decoder.weight.diagonal().clamp(min=1e-6)
    encoder.start(features, goal)


@torch.no_grad()
def start_from_weights(
    encoder: AnyEncoder, decoder: nn.Linear | None, batches: TripletDataset, targets: Tensor | None, config: TrainConfig
) -> None:
    """Start from the weights that `--init` names, with a decoder that regresses the targets on their vectors."""
    source, expected = load_initial(config.fit.init), dataclasses.asdict(config.encoder)
    differ = [name for name, value in source.encoder_config.items() if name != "dropout" and expected[name] != value]
    if differ:
        found = ", ".join(f"{name} {source.encoder_config[name]} there, {expected[name]} here" for name in differ)
        raise UserError(f"--init {config.fit.init} holds another encoder ({found}); pass the same settings")
    encoder.load_state_dict(source.encoder_state)
    if decoder is None or targets is None:
        return
    encoder.eval()
    (vectors,), index = measured_sample(batches, lambda inputs: [unmapped_vectors(encoder, inputs).float().cpu()])
    x = torch.cat([vectors, torch.ones(len(vectors), 1)], dim=1)
    solution = torch.linalg.lstsq(x, targets[index].cpu()).solution  # (D + 1, T)
    decoder.weight.copy_(solution[:-1].T)
    decoder.bias.copy_(solution[-1])


def measured_sample(
    batches: TripletDataset, measure: Callable[[tuple[Tensor, ...]], list[Tensor]]
) -> tuple[list[Tensor], Tensor]:
    """What `measure` finds on `START_SAMPLE` training tiles of each city, and the rows of these tiles in the targets.

    `measure` gets the encoder's inputs for some tiles. Each of its results is gathered in one block of memory: many
    small ones would break up the memory that is used between them.
    """
    cities = list(zip(batches.datasets, batches.samplers, batches.first_row, strict=True))
    rows = [with_content(dataset.store, sampler.rows, START_SAMPLE) for dataset, sampler, _ in cities]
    index = np.concatenate([own + first_row for own, (*_, first_row) in zip(rows, cities, strict=True)])
    gathered: list[Tensor] = []
    done = 0
    for own, (dataset, *_) in zip(rows, cities, strict=True):
        for first in progress(range(0, len(own), 64), desc="measuring a sample", unit="batch"):
            part = own[first : first + 64]
            found = measure(dataset.inputs(dataset.store.tile_xy[part] + 0.5, batches.surroundings))
            gathered = gathered or [some.new_empty(len(index), some.shape[1]) for some in found]
            for whole, some in zip(gathered, found, strict=True):
                whole[done : done + len(part)] = some
            done += len(part)
    return gathered, copy_to(index, batches.device)


def spare_tiles(config: TrainConfig, group: ProcessGroup) -> int:
    """Tiles that the main process embeds in a quarter of an epoch's time; a forward pass is a third of a step.

    Validation may embed half of them, the closing pass for the Projector a quarter.
    """
    return config.sample.max_samples // group.size * config.loss.views * 3 // 4


def with_content(store: TileStore, rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of `rows` that are not blank, evenly spaced."""
    rows = rows[~store.blank[rows]]
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


# --- validation --------------------------------------------------------------------------------------------


def held_out_triplets(store: TileStore, config: TrainConfig, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` triplets `(M, 3)` of validation tiles: always the same ones, of whole tiles, whatever training draws."""
    sample, none = config.sample, np.zeros((0, 3), dtype=np.int64)
    if not len(rows):
        return none
    try:
        return TripletSampler(store, sample.pos_radius, sample.neg_radius, 0, rows).epoch(0, count)
    except UserError:
        everywhere = TripletSampler(store, sample.pos_radius, sample.neg_radius, 0)
        anchors = np.intersect1d(everywhere.anchors, rows)
        if not len(anchors):
            return none
        warn("the held-out blocks are too small for triplets of their own; some negatives are training tiles")
        return everywhere.epoch(0, count, anchors)


@torch.inference_mode()
def embed_rows(run: Run, city: int, rows: np.ndarray, stop: StopSignal, chunk: int = 128) -> Tensor:
    """Vectors `(n, D) float32` on the CPU of a city's `rows`, in evaluation mode, before the encoder's fixed map."""
    encoder, dataset = run.encoder, run.batches.datasets[city]
    was_training, parts = encoder.training, [torch.zeros(0, run.config.encoder.embedding_dim)]
    encoder.eval()
    try:
        for first in range(0, len(rows), chunk):
            stop.raise_if_requested()
            centre = dataset.store.tile_xy[rows[first : first + chunk]] + 0.5
            with run.autocast():
                vectors = unmapped_vectors(encoder, dataset.inputs(centre, encoder.uses_surroundings))
            parts.append(vectors.float().cpu())
    finally:
        encoder.train(was_training)
    return torch.cat(parts)


def unmapped_vectors(encoder: AnyEncoder, inputs: tuple[Tensor, ...]) -> Tensor:
    """The encoder's vectors of `inputs`, before its fixed map if it has one."""
    if not encoder.uses_surroundings:
        return encoder(*inputs)
    all_scales = torch.ones(1, len(inputs[0]), 3, dtype=torch.bool, device=inputs[0].device)
    return encoder(*inputs, keep=all_scales)[:, 0]


def final_vectors(run: Run, vectors: Tensor) -> Tensor:
    """The encoder's vectors, given those before its fixed map, on the CPU."""
    if not isinstance(run.encoder, MultiscaleEncoder):
        return vectors
    with torch.inference_mode():
        return run.encoder.final(vectors.to(run.group.device)).cpu()


def fit_map(run: Run, stop: StopSignal) -> None:
    """Set the fixed map of the multiscale encoder, from training tiles of every city.

    The decoder lags behind the vectors while both are trained. For the map it is corrected by a ridge regression.
    """
    if not isinstance(run.encoder, MultiscaleEncoder) or run.decoder is None or run.targets is None:
        return
    is_last = run.state.epoch + 1 == run.config.fit.epochs
    most = (2 if is_last else 1) * MAP_SAMPLE // len(run.stores)
    vectors, wanted = [], []
    for city, (store, sampler) in enumerate(zip(run.stores, run.batches.samplers, strict=True)):
        rows = with_content(store, sampler.rows, most)
        vectors.append(embed_rows(run, city, rows, stop))
        wanted.append(run.targets[copy_to(rows + run.batches.first_row[city], run.group.device)].cpu())
    x, weight = torch.cat(vectors).double(), run.decoder.weight.detach().cpu().double()
    centred, missed = x - x.mean(dim=0), torch.cat(wanted).double() - x @ weight.T
    penalty = max(1e-9, MAP_RIDGE * float(centred.square().sum(dim=0).mean()))
    correction = ridge_solution(centred.T @ centred, centred.T @ (missed - missed.mean(dim=0)), penalty)  # (D, T)
    run.encoder.fit_map(x, weight + correction.T)


def validate(run: Run, stop: StopSignal) -> tuple[dict[str, float], list[Tensor]]:
    """Mean metrics of the held-out triplets of the cities, and the vectors of each city's held-out tiles on the CPU.

    The vectors are in the order of `np.unique` of the city's triplets.
    """
    metrics: list[dict[str, float]] = []
    found = []
    sample, config = run.config.sample, dataclasses.replace(run.config.loss, mining="random")
    for city, triplets in enumerate(run.val_triplets):
        rows, places = np.unique(triplets, return_inverse=True)
        places = places.reshape(triplets.shape)
        unmapped = embed_rows(run, city, rows, stop)
        vectors = final_vectors(run, unmapped)
        found.append(vectors)
        if not len(triplets):
            continue

        # The loss, batch by batch as in training, without mining.
        store, unit = run.stores[city], F.normalize(unmapped, dim=1)
        tile_xy = torch.from_numpy((store.unwrapped_xy[triplets] - store.grid.origin).astype(np.float32))
        parts = []
        for first in range(0, len(triplets), sample.batch_size):
            chosen = slice(first, first + sample.batch_size)
            batch, xy = unit[places[chosen, : config.views]], tile_xy[chosen, : config.views]
            terms = batch_loss(config, batch, xy, sample.pos_radius, sample.neg_radius)
            parts.append([terms.loss, terms.positive, terms.negative, terms.active.float()])
        terms = TripletTerms(*[torch.cat(column) for column in zip(*parts, strict=True)])
        loss = float(terms.loss.mean())
        if run.decoder is not None and run.targets is not None:
            with torch.inference_mode():
                wanted = run.targets[torch.from_numpy(rows + run.batches.first_row[city]).to(run.targets.device)]
                missed = (run.decoder(unmapped.to(wanted.device)) - wanted).square().sum(dim=1).mean()
            loss += run.config.loss.reconstruction_weight * float(missed)
        metrics.append(
            {
                "loss": loss,
                "positive": float(terms.positive.mean()),
                "negative": float(terms.negative.mean()),
                "usage": float(terms.active.mean()),
                "triplet_accuracy": triplet_accuracy(*vectors[places].numpy().transpose(1, 0, 2)),
                "rankme": rank_me(vectors.numpy()),
            }
        )
    means = {name: float(np.mean([one[name] for one in metrics])) for name in (metrics[0] if metrics else ())}
    return means, found


def fill_projector(run: Run, held_out_vectors: list[Tensor], stop: StopSignal) -> None:
    """Show the held-out tiles and others of the first city, up to `PROJECTOR_TILES`, in TensorBoard's Projector."""
    store, held_out = run.stores[0], np.unique(run.val_triplets[0])
    if held_out_vectors and len(held_out_vectors[0]) == len(held_out):
        vectors = held_out_vectors[0]
    else:  # nothing was validated since the run was resumed
        vectors = final_vectors(run, embed_rows(run, 0, held_out, stop))
    others = np.setdiff1d(np.arange(len(store)), held_out)
    held_out, vectors = held_out[:PROJECTOR_TILES], vectors[:PROJECTOR_TILES]
    most = min(PROJECTOR_TILES - len(held_out), spare_tiles(run.config, run.group) // 4)
    others = with_content(store, others, max(0, most))
    vectors = torch.cat([vectors, final_vectors(run, embed_rows(run, 0, others, stop))])
    run.recorder.project(store, np.concatenate([held_out, others]), vectors, run.state.step)


# --- the end of an epoch -----------------------------------------------------------------------------------


def finish_epoch(run: Run, metrics: dict[str, float], val: dict[str, float], vectors: list[Tensor]) -> dict[str, float]:
    """Log the metrics, save the checkpoints, and print the epoch; returns all metrics."""
    state, config = run.state, run.config.run
    judged = val.get("loss", metrics["loss"])
    better = judged < state.best
    if better:
        state.best, state.best_epoch = judged, state.epoch
    run.recorder.log("epoch", state.step, metrics, val, epoch=state.epoch)
    if val and config.figure_every and state.epoch % config.figure_every == 0:
        run.recorder.draw(run.stores[0], np.unique(run.val_triplets[0]), vectors[0], state.step)
    metrics = metrics | {f"val_{name}": value for name, value in val.items()}
    names = [BEST] if better else []
    if config.save_every and state.epoch % config.save_every == 0:
        names.append(f"epoch_{state.epoch:03d}.pth")
    save(run, metrics, names)
    found = unhealthy(metrics, run.config)
    for kind, advice in found.items():
        if kind not in run.warned:
            warn(f"epoch {state.epoch}: {advice}")
    run.warned = set(found)
    print(epoch_line(state.epoch, run.config.fit.epochs, metrics, better), flush=True)
    return metrics


def unhealthy(metrics: dict[str, float], config: TrainConfig) -> dict[str, str]:
    """What is wrong with an epoch's metrics, by kind, each with what to try; empty if all is well."""
    found = {}
    usage, rank, dim = metrics["usage"], metrics.get("val_rankme", math.inf), config.encoder.embedding_dim
    draws_negatives = config.loss.views == 3  # otherwise `usage` counts pairs, of which few matter
    if draws_negatives and usage < 0.2:
        found["low usage"] = (
            f"only {usage:.0%} of the triplets still give a gradient (20-80% is healthy): try --mining semi-hard, a "
            "larger --pos_radius and --neg_radius, a larger --margin, or --loss_type softpn"
        )
    if draws_negatives and usage > 0.8:
        found["high usage"] = (
            f"{usage:.0%} of the triplets are still unsolved (20-80% is healthy): train for more epochs, or try a "
            "smaller --margin, --dropout or --pos_radius, --mining random, or --preset recommended"
        )
    if rank < min(4, dim / 4):
        found["collapse"] = (
            f"the vectors collapse: effective rank {rank:.1f} of {dim}; try --vicreg_weight 1, a smaller --lr or "
            "--dropout, --mining random, or --preset recommended"
        )
    return found


def epoch_line(epoch: int, epochs: int, metrics: dict[str, float], better: bool) -> str:
    """One line with an epoch's metrics."""
    names = {
        "loss": "loss",
        "val_loss": "val",
        "positive": "d+",
        "negative": "d-",
        "usage": "usage",
        "val_triplet_accuracy": "accuracy",
        "val_rankme": "rankme",
        "tiles_per_second": "tiles/s",
    }
    shown = [f"{short} {metrics[name]:.4g}" for name, short in names.items() if name in metrics]
    return f"epoch {epoch}/{epochs}  " + "  ".join(shown) + ("  best" if better else "")


# --- during an epoch ---------------------------------------------------------------------------------------


def check_losses(run: Run) -> None:
    """Stop the run with `WorkError` if a loss since the last check is not finite, naming the tiles of its batch."""
    if not run.unchecked:
        return
    finite = torch.isfinite(torch.stack([loss for _, loss, *_ in run.unchecked])).tolist()
    if all(finite):
        run.unchecked.clear()
        return
    step, _, cities, rows = run.unchecked[finite.index(False)]
    places = [(run.stores[city], own) for city, own in zip(cities, rows, strict=True)]
    tiles = {(store.zoom, *xy) for store, own in places for xy in store.tile_xy[own].tolist()}
    names = ["/".join(map(str, tile)) for tile in sorted(tiles)]
    listing = run.recorder.folder / "nonfinite_batch.txt"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more, listed in {listing}" if len(names) > 12 else "")
    if run.group.is_main_process:
        with atomic_write(listing, "w") as file:
            file.write("\n".join(names) + "\n")
    last = run.config.run.output_dir / LAST
    kept = f"the last good checkpoint is {last}" if last.is_file() else "no checkpoint was written yet"
    raise WorkError(
        f"the loss is no longer a finite number at step {step + 1}; {kept}. Try a smaller --lr. "
        f"Tiles of the batch: {shown}"
    )


def stop_if_requested(run: Run, stop: StopSignal) -> None:
    """If any process got a signal, save and raise `StopRequested` in all of them."""
    signum = run.group.all_reduce_max(stop.signum or 0)
    if not signum:
        return
    stop.signum = signum
    check_losses(run)
    if run.group.is_main_process:
        save(run, {})
        last = run.config.run.output_dir / LAST
        print(f"stopped after step {run.state.step}; continue with: python train.py --resume {last}", flush=True)
    run.group.barrier()
    stop.raise_if_requested()


def announce_duration(run: Run, steps: int, seconds: float) -> bool:
    """After the first steps, say how long the run will take; on a CPU, name faster settings. Whether it did."""
    if steps < ESTIMATE_AFTER_STEPS and seconds < ESTIMATE_AFTER_S:
        return False
    config, device = run.config, run.group.device
    left = seconds / steps * (run.total_steps - run.state.step)
    if run.group.is_main_process:
        rate = steps * config.sample.batch_size * config.loss.views / seconds
        print(f"about {duration(left)} to go: {rate:,.0f} tiles/s on {device}", flush=True)
        if device.type == "cpu" and left > LONG_RUN_S and config.packing.tile_size > 64:
            faster = "--tile_size 64 is much faster"
            if not config.encoder.uses_surroundings:
                faster = "--preset recommended takes minutes; --tile_size 64 is also much faster"
            warn(f"on a CPU, {faster}")
    return True


def duration(seconds: float) -> str:
    """A time span in words: `45 s`, `12 min`, `3.5 h` or `2.1 days`."""
    for unit, length, digits in (("days", 86_400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


# --- checkpoints -------------------------------------------------------------------------------------------


def save(run: Run, metrics: dict[str, float], names: Sequence[str] = ()) -> None:
    """Write a checkpoint as `names` and, last of all, as last.pth.

    It holds the encoder, the settings, and the state from which the run continues exactly. A run that is killed before
    last.pth is written does its work again from the one before, so no name is ever left out.
    """
    config, device = run.config, run.group.device
    rng = {"cpu": torch.get_rng_state()}  # dropout draws from it; batches depend on seed, epoch and step alone
    if device.type == "cuda":
        rng["cuda"] = torch.cuda.get_rng_state(device)
    state = {field.name: getattr(run.state, field.name) for field in dataclasses.fields(TrainState)}
    state |= {"sums": run.state.sums.cpu(), "optimizer": run.optimizer.state_dict(), "rng": rng}
    if run.decoder is not None:
        state["decoder"] = encoder_state(run.decoder)
    checkpoint = Checkpoint(
        encoder_config=dataclasses.asdict(config.encoder),
        encoder_state=encoder_state(run.encoder),
        train_config=config.flat(),
        train_state=state | {"tiles": tiles_key(run.stores)},
        metrics=metrics,
        epoch=run.state.epoch,
        step=run.state.step,
        zoom=run.stores[0].zoom,
        shrink=run.stores[0].shrink,
    )
    folder, (first, *others) = config.run.output_dir, [*names, LAST]
    try:
        save_checkpoint(folder / first, checkpoint)
        for name in others:
            link_or_copy(folder / first, folder / name)
    except OSError as error:
        before = f"the {LAST} written before is complete" if (folder / LAST).is_file() else "none was written before"
        raise WorkError(
            f"{folder / first} could not be written: {error.strerror}; {before}. Free some space, or name another "
            f"--output_dir, then continue with --resume"
        ) from error


def restore(
    checkpoint: Checkpoint,
    config: TrainConfig,
    stores: list[TileStore],
    encoder: nn.Module,
    decoder: nn.Linear | None,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> TrainState:
    """Set weights, optimiser and random number generators from a checkpoint; returns where its run stands."""
    path, saved = config.run.resume, checkpoint.train_state
    try:
        if saved["tiles"] != tiles_key(stores):
            raise UserError(
                f"{path} was trained on other tiles than {', '.join(str(s.tiles_root) for s in stores)} holds now; "
                "name the same --tiles_root, or leave --resume out to start a new run"
            )
        encoder.load_state_dict(checkpoint.encoder_state)
        if decoder is not None:
            decoder.load_state_dict(saved["decoder"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"]["cpu"])
        if device.type == "cuda" and "cuda" in saved["rng"]:
            torch.cuda.set_rng_state(saved["rng"]["cuda"], device)
        state = TrainState(**{field.name: saved[field.name] for field in dataclasses.fields(TrainState)})
        planned = checkpoint.train_config["epochs"]
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} holds no state of a run that this version can continue ({error}); "
            "leave --resume out to start a new run"
        ) from error
    if config.fit.epochs == state.epoch:
        raise UserError(f"{path} has finished its {planned} epochs; `--epochs 25` trains for 25 further ones")
    if config.fit.epochs != planned:
        state.ramp_from = state.step  # further epochs: the learning-rate schedule starts again
    state.run_name = config.run.run_name
    return state


def carry_best_over(state: TrainState, config: TrainConfig) -> None:
    """Make best_model.pth of a resumed run that run's best checkpoint so far, also in a new --output_dir.

    If that checkpoint is lost or damaged, the next epoch counts as the best.
    """
    resumed, target = Path(config.run.resume), config.run.output_dir / BEST
    is_best = state.best_epoch == state.epoch and state.step_in_epoch == 0
    source = resumed if is_best else resumed.parent / BEST
    if not state.best_epoch:
        return
    try:
        found = state.best_epoch if is_best else load_checkpoint(source).epoch  # another: the file is of a later run
    except UserError:
        found = 0
    if found != state.best_epoch:
        state.best, state.best_epoch = math.inf, 0
    elif not (target.is_file() and source.samefile(target)):
        link_or_copy(source, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished checkpoint a second name, completely or not at all; a hard link if the file system has them."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


if __name__ == "__main__":
    run_main(main)
