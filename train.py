"""Train the encoder on a city's tiles; checkpoints go to checkpoints/, curves to runs/.

python train.py --epochs 50 --batch_size 16
python train.py --preset recommended
python train.py --resume checkpoints/last.pth
torchrun --nproc_per_node=2 train.py --preset recommended
"""

import dataclasses
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from checkpoint import Checkpoint, encoder_state, load_checkpoint, save_checkpoint
from cli import StopSignal, UserError, WorkError, run_main
from data_loader import DeviceTiles, TripletSampler, augment, to_float
from distributed import World, across_ranks, joined_world
from files import atomic_path, atomic_write
from memory import free_memory, is_out_of_memory, memory_advice, memory_need, network_dtype
from model import Encoder, TripletTerms, batch_loss
from profiles import ProfileHead, brightness_profile
from progress_bars import progress, warn
from run_log import Recorder
from tile_store import TileStore, open_configured
from train_config import TrainConfig, parse_config, split_city
from vectors import rank_me, triplet_accuracy

# --- batches -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Batch:
    """One step's data: this process's tiles, and where all the batch's tiles lie."""

    tiles: Tensor  # (b * K, 12, S, S) uint8, sample after sample
    tile_xy: Tensor  # (B, K, 2) float32, in tiles from the area's corner
    rows: np.ndarray  # (B, K) rows of the store
    ready: torch.cuda.Event | None = None  # on a GPU: when both have arrived

    def arrive(self) -> None:
        """Let what is computed from now on wait for the data; the host does not."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.tiles.device)
            stream.wait_event(self.ready)
            for tensor in (self.tiles, self.tile_xy):
                tensor.record_stream(stream)


class Batches:
    """The batches of each epoch, made ahead by threads; the same for the same seed, epoch and step."""

    def __init__(self, store: TileStore, config: TrainConfig, world: World, rows: np.ndarray):
        self.store, self.config, self.world = store, config, world
        self.tiles = DeviceTiles(store, world.device)
        sample = config.sample
        self.sampler = TripletSampler(store, sample.pos_radius, sample.neg_radius, config.device.seed, rows)
        self.size = sample.batch_size
        self.steps = max(1, sample.max_samples // self.size)
        self.waited = 0.0
        self.stream = torch.cuda.Stream(world.device) if world.device.type == "cuda" else None

    def epoch(self, epoch: int, first_step: int) -> Iterator[tuple[int, Batch]]:
        """`(step, batch)` from `first_step` to the end of an epoch."""
        thin = self.config.sample.thin
        anchors = self.sampler.thinned(epoch, thin) if thin else None
        triplets = self.sampler.epoch(epoch, self.steps * self.size, anchors)[:, : self.config.loss.views]
        plan = triplets.reshape(self.steps, self.size, -1)
        for step, batch in self._ahead(lambda step: self.load(epoch, step, plan[step]), first_step):
            batch.arrive()
            yield step, batch

    def load(self, epoch: int, step: int, rows: np.ndarray) -> Batch:
        """A batch; on a GPU it is put together beside the computation, on a stream of its own."""
        if self.stream is None:
            return self._make(epoch, step, rows)
        with torch.cuda.stream(self.stream):
            return dataclasses.replace(self._make(epoch, step, rows), ready=self.stream.record_event())

    def _make(self, epoch: int, step: int, rows: np.ndarray) -> Batch:
        rng = np.random.default_rng([self.config.device.seed, epoch, step])
        share = self.size // self.world.size
        own = slice(self.world.rank * share, (self.world.rank + 1) * share)
        edge, jitter = self.store.tile_size, self.config.augment.jitter
        if jitter:
            origin = self.sampler.windows(rows, jitter, edge, rng)
            tiles = self.tiles.windows(origin[own].reshape(-1, 2))
            tile_xy = origin / edge
        else:
            tiles = self.tiles.tiles(rows[own].reshape(-1))
            tile_xy = self.store.unwrapped_xy[rows].astype(np.float64)
        place = torch.from_numpy((tile_xy - self.store.grid.origin).astype(np.float32))
        return Batch(tiles, place.to(self.world.device, non_blocking=True), rows)

    def _ahead(self, make: Callable[[int], Batch], first_step: int) -> Iterator[tuple[int, Batch]]:
        workers = self.config.packing.num_workers
        if not workers:
            yield from ((step, make(step)) for step in range(first_step, self.steps))
            return
        waiting: deque = deque()
        todo = iter(range(first_step, self.steps))
        with ThreadPoolExecutor(min(workers, 4)) as threads:
            try:
                for step in range(first_step, self.steps):
                    while len(waiting) <= min(workers, 4) and (ahead := next(todo, None)) is not None:
                        waiting.append(threads.submit(make, ahead))
                    started = time.perf_counter()
                    batch = waiting.popleft().result()
                    self.waited += time.perf_counter() - started
                    yield step, batch
            finally:
                for future in waiting:
                    future.cancel()

    def prepared(self, batch: Batch, epoch: int, step: int) -> Tensor:
        """The batch as the network takes it: augmented, `(b * K, 12, S, S) float32`, `channels_last`."""
        chosen, tiles = self.config.augment, batch.tiles
        if chosen.turn or chosen.channel_dropout:
            chance = np.random.SeedSequence([self.config.device.seed, epoch, step]).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(chance >> 1))
            part = (self.world.rank, self.world.size)
            tiles = augment(tiles, generator, turn=chosen.turn, channel_dropout=chosen.channel_dropout, part=part)
        return network_input(tiles)


def network_input(tiles: Tensor) -> Tensor:
    """`uint8` tiles as the network takes them."""
    return to_float(tiles).contiguous(memory_format=torch.channels_last)


# --- validation --------------------------------------------------------------------------------------------


class Validation:
    """Held-out triplets: always the same ones, of whole tiles, whatever the recipe trains on."""

    def __init__(self, store: TileStore, config: TrainConfig, tiles: DeviceTiles, rows: np.ndarray):
        self.store, self.config, self.tiles = store, config, tiles
        self.triplets = self._held_out(rows)
        self.rows, places = np.unique(self.triplets, return_inverse=True)
        self.places = torch.from_numpy(places.reshape(self.triplets.shape))

    def _held_out(self, rows: np.ndarray) -> np.ndarray:
        sample, count = self.config.sample, self.config.fit.val_samples
        if not len(rows):
            return np.zeros((0, 3), dtype=np.int64)
        try:
            sampler = TripletSampler(self.store, sample.pos_radius, sample.neg_radius, 0, rows)
            return sampler.epoch(0, count)
        except UserError:
            everywhere = TripletSampler(self.store, sample.pos_radius, sample.neg_radius, 0)
            anchors = np.intersect1d(everywhere.anchors, rows)
            if not len(anchors):
                return np.zeros((0, 3), dtype=np.int64)
            warn("the held-out blocks are too small for triplets of their own; some negatives are training tiles")
            return everywhere.epoch(0, count, anchors)

    def measure(self, encoder: nn.Module, autocast: Callable) -> tuple[dict[str, float], Tensor]:
        """Metrics of the held-out triplets, and the vectors of `rows` on the CPU."""
        if not len(self.rows):
            return {}, torch.zeros(0, self.config.encoder.embedding_dim)
        vectors = embed_rows(encoder, self.tiles, self.rows, autocast)
        terms = self._terms(encoder.learned(vectors))
        metrics = {
            "loss": float(terms.loss.mean()),
            "positive": float(terms.positive.mean()),
            "negative": float(terms.negative.mean()),
            "usage": float(terms.active.float().mean()),
            "triplet_accuracy": triplet_accuracy(*vectors[self.places].numpy().transpose(1, 0, 2)),
            "rankme": rank_me(vectors),
        }
        return metrics, vectors

    def _terms(self, vectors: Tensor) -> TripletTerms:
        """The loss over the held-out triplets, batch by batch as in training, without mining."""
        sample, loss = self.config.sample, dataclasses.replace(self.config.loss, mining="random")
        tile_xy = torch.from_numpy((self.store.unwrapped_xy[self.triplets] - self.store.grid.origin).astype(np.float32))
        parts = []
        for first in range(0, len(self.triplets), sample.batch_size):
            chosen = slice(first, first + sample.batch_size)
            batch, places = vectors[self.places[chosen, : loss.views]], tile_xy[chosen, : loss.views]
            terms = batch_loss(loss, batch, places, sample.pos_radius, sample.neg_radius)
            parts.append([terms.loss.expand(len(batch)), terms.positive, terms.negative, terms.active.float()])
        return TripletTerms(*[torch.cat(column) for column in zip(*parts, strict=True)])


@torch.inference_mode()
def embed_rows(
    encoder: nn.Module, tiles: DeviceTiles, rows: np.ndarray, autocast: Callable, chunk: int = 128
) -> Tensor:
    """Vectors `(n, D) float32` on the CPU of rows of the store, as they are read, whatever the encoder's mode."""
    was_training, parts = encoder.training, []
    encoder.eval()
    for first in range(0, len(rows), chunk):
        with autocast():
            parts.append(encoder(network_input(tiles.tiles(rows[first : first + chunk]))))
    encoder.train(was_training)
    return torch.cat(parts).cpu()


# --- the run -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Progress:
    """Where a run stands; all of it is in a checkpoint."""

    epoch: int = 0  # whole epochs done
    step_in_epoch: int = 0
    step: int = 0  # steps done since the run began
    sums: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(len(SUMMED) + 1))
    best: float = math.inf
    best_epoch: int = 0
    ramp_from: int = 0  # step at which the learning-rate schedule began
    run_name: str = ""


SUMMED = ("loss", "positive", "negative", "usage", "grad_norm")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run left: its checkpoints, its folder, and the metrics of its last epoch."""

    best: Path
    last: Path
    folder: Path
    metrics: dict[str, float]


def train(config: TrainConfig) -> Outcome:
    """Train as configured; resumes when the configuration names a checkpoint."""
    with joined_world(config.device.device) as world, StopSignal() as stop:
        free = free_memory(world.device)
        try:
            return Trainer(config, world, stop).fit()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise WorkError(memory_advice(config, world, free)) from error


class Trainer:
    """One run: data, network, optimiser, and where it stands."""

    def __init__(self, config: TrainConfig, world: World, stop: StopSignal):
        check_batch_size(config, world)
        self.world, self.stop = world, stop
        checkpoint = load_checkpoint(config.run.resume) if config.run.resume else None
        self.store = open_city(config)
        self.at = Progress(run_name=config.run.run_name or default_run_name(config, world))
        self.config = dataclasses.replace(config, run=dataclasses.replace(config.run, run_name=self.at.run_name))
        train_rows, val_rows = split_city(self.store, config)
        if world.device.type == "cpu" and memory_need(config, world) > (free := free_memory(world.device)):
            raise WorkError(memory_advice(config, world, free))  # else the system would kill the process
        self.batches = Batches(self.store, config, world, train_rows)
        self.centre_rows = some_with_content(self.store, train_rows, CENTRE_SAMPLE)
        self.validation = Validation(self.store, config, self.batches.tiles, val_rows)
        torch.manual_seed(config.device.seed)
        self.encoder = Encoder(config.encoder).to(world.device, memory_format=torch.channels_last)
        self.profile_head = self._start_from_profiles(train_rows)
        self.optimizer = make_optimizer(self._learners(), config)
        if checkpoint:
            self._go_on_from(checkpoint)
        self.at.sums = self.at.sums.to(world.device)
        self.network = self._network()
        if world.is_main_process:
            config.run.output_dir.mkdir(parents=True, exist_ok=True)  # a path that cannot be is said before the work
        folder = self.config.run.log_dir / self.at.run_name
        self.recorder = Recorder(folder, self.config.flat(), world, self.at.step)
        # Without a GPU asking for a value costs nothing; with one it would make the host wait for every step.
        self.check_every = 1 if world.device.type == "cpu" else 16
        self.unchecked: deque[tuple[int, Tensor, np.ndarray]] = deque()
        self.warned: set[str] = set()

    def _start_from_profiles(self, train_rows: np.ndarray) -> ProfileHead | None:
        """Let what reads or tells brightness profiles know their mean and spread; the head of the profile term."""
        wanted = self.config.loss.profile_weight > 0
        if not wanted and self.encoder.summary is None:
            return None
        profiles = sample_profiles(self.batches.tiles, train_rows)
        if self.encoder.summary is not None:
            self.encoder.summary.fit(profiles)
        return ProfileHead(self.config.encoder.learned_dims, profiles).to(self.world.device) if wanted else None

    def _learners(self) -> nn.ModuleList:
        """What is trained: the encoder and, where the loss has one, the head that tells profiles from vectors."""
        return nn.ModuleList([self.encoder, self.profile_head] if self.profile_head else [self.encoder])

    def _network(self) -> nn.Module:
        network = across_ranks(self.encoder, self.world) if self.world.size > 1 else self.encoder
        cuda = self.world.device.type == "cuda"
        if cuda:
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        if cuda and self.config.speed.compile and self._steps_left() >= COMPILE_PAYS_STEPS:
            torch._dynamo.config.suppress_errors = True  # whatever cannot be compiled runs as it is
            network = torch.compile(network)
        return network.train()

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured."""
        enabled = network_dtype(self.config, self.world.device) == torch.bfloat16
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=enabled)

    # the loop

    def fit(self) -> Outcome:
        """Train to the last epoch; returns where everything lies."""
        metrics: dict[str, float] = {}
        try:
            while self.at.epoch < self.config.fit.epochs:
                metrics = self._epoch()
            self._project()
        finally:
            self.recorder.close()
        run = self.config.run
        return Outcome(run.output_dir / BEST, run.output_dir / LAST, self.recorder.folder, metrics)

    def _epoch(self) -> dict[str, float]:
        epoch, started, first = self.at.epoch, time.perf_counter(), self.at.step_in_epoch
        self.batches.waited = 0.0
        bar = progress(total=self.batches.steps, desc=f"epoch {epoch + 1}/{self.config.fit.epochs}", unit="batch")
        bar.update(first)
        with bar:
            for step, batch in self.batches.epoch(epoch, first):
                self.step(batch, step)
                bar.update()
                if self.at.step % self.check_every == 0:
                    self._check_losses()
                    self._stop_if_asked()
        self._check_losses()
        seconds = time.perf_counter() - started
        done = (self.batches.steps - first) * self.config.sample.batch_size * self.config.loss.views
        speed = {"tiles_per_second": done / seconds, "data_wait": self.batches.waited / seconds}
        return self._finish_epoch(self._averages() | speed)

    def _project(self) -> None:
        """Show up to so many tiles, held-out ones first, in TensorBoard's Projector."""
        if not self.world.is_main_process:
            return
        others = np.setdiff1d(np.arange(len(self.store)), self.validation.rows)
        room = max(0, PROJECTOR_TILES - len(self.validation.rows))
        rows = np.concatenate([self.validation.rows, some_with_content(self.store, others, room)])
        vectors = embed_rows(self.encoder, self.batches.tiles, rows, self.autocast)
        self.recorder.project(self.store, rows, vectors, self.at.step)

    def step(self, batch: Batch, step: int) -> None:
        """Take one step of an epoch."""
        values = self.learn(self.batches.prepared(batch, self.at.epoch, step), batch)
        self.at.sums += values
        self.at.step += 1
        self.at.step_in_epoch = step + 1
        if self.at.step % self.config.run.log_every == 0:
            self._log_step(values.tolist())

    def learn(self, tiles: Tensor, batch: Batch) -> Tensor:
        """One optimiser step on `tiles`; the figures of `SUMMED`, and 1, stay on the device: nobody waits for them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        terms = self._forward(tiles, batch)
        loss = terms.loss.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.encoder.parameters()])
        self.unchecked.append((self.at.step, loss.detach(), batch.rows))
        if self.check_every == 1:
            self._check_losses()
        self.optimizer.step()
        means = [loss, terms.positive.mean(), terms.negative.mean(), terms.active.float().mean(), norm]
        return torch.stack([value.detach().float() for value in means] + [loss.new_ones(()).detach()])

    def _forward(self, tiles: Tensor, batch: Batch) -> TripletTerms:
        sample, jitter = self.config.sample, self.config.augment.jitter
        with self.autocast():
            vectors = self.network(tiles)
        vectors = self.encoder.learned(self.world.gather(vectors)).view(*batch.tile_xy.shape[:2], -1)
        terms = batch_loss(self.config.loss, vectors, batch.tile_xy, jitter or sample.pos_radius, sample.neg_radius)
        return self._with_profile(terms, vectors, batch) if self.profile_head else terms

    def _with_profile(self, terms: TripletTerms, vectors: Tensor, batch: Batch) -> TripletTerms:
        """Add how badly the vectors tell what the tiles show, layers blanked by chance included.

        Every process sees all the batch's vectors and profiles, so the head stays equal in all without being synced.
        """
        profiles = self.world.gather(brightness_profile(batch.tiles))
        missed = self.profile_head(vectors.flatten(0, 1), profiles).view(vectors.shape[:2]).mean(dim=1)
        return dataclasses.replace(terms, loss=terms.loss + self.config.loss.profile_weight * missed)

    def _log_step(self, values: list[float]) -> None:
        metrics = dict(zip(SUMMED, values, strict=False)) | {"lr": self._learning_rate(self.at.step - 1)}
        self.recorder.log("step", self.at.step, metrics, epoch=self.at.epoch)

    def _averages(self) -> dict[str, float]:
        *sums, count = self.at.sums.tolist()
        return {name: value / count for name, value in zip(SUMMED, sums, strict=True)} | {
            "lr": self._learning_rate(self.at.step - 1)
        }

    def _finish_epoch(self, metrics: dict[str, float]) -> dict[str, float]:
        at, run = self.at, self.config.run
        at.epoch, at.step_in_epoch = at.epoch + 1, 0
        at.sums = torch.zeros_like(at.sums)
        if self.world.is_main_process:
            self._centre()
            val, vectors = self.validation.measure(self.encoder, self.autocast)
            judged = val.get("loss", metrics["loss"])
            better = judged < at.best
            if better:
                at.best, at.best_epoch = judged, at.epoch
            self.recorder.log("epoch", at.step, metrics, val, epoch=at.epoch)
            if len(vectors) and run.figure_every and at.epoch % run.figure_every == 0:
                self.recorder.draw(self.store, self.validation.rows, vectors, at.step)
            metrics |= {f"val_{name}": value for name, value in val.items()}
            self._save(metrics)
            if better:
                publish(run.output_dir / LAST, run.output_dir / BEST)
            if run.save_every and at.epoch % run.save_every == 0:
                publish(run.output_dir / LAST, run.output_dir / f"epoch_{at.epoch:03d}.pth")
            self._warn(metrics)
            print(epoch_line(at.epoch, self.config.fit.epochs, metrics, better), flush=True)
        self.world.barrier()
        return metrics

    def _centre(self) -> None:
        """Have the trained part read from the middle of what it says of the tiles that it is trained on."""
        if self.encoder.summary is None:
            return
        self.encoder.centre.zero_()
        vectors = embed_rows(self.encoder, self.batches.tiles, self.centre_rows, self.autocast)
        self.encoder.centre.copy_(self.encoder.learned(vectors).mean(dim=0))

    def _warn(self, metrics: dict[str, float]) -> None:
        """Say once when training leaves what is healthy, and how to mend it."""
        found = unhealthy(metrics, self.config)
        for kind, advice in found.items():
            if kind not in self.warned:
                warn(f"epoch {self.at.epoch}: {advice}")
        self.warned = set(found)

    # learning rate

    def _steps_left(self) -> int:
        return self.config.fit.epochs * self.batches.steps - self.at.step

    def _learning_rate(self, step: int | None = None) -> float:
        fit = self.config.fit
        step = (self.at.step if step is None else step) - self.at.ramp_from
        total = fit.epochs * self.batches.steps - self.at.ramp_from
        return fit.lr * schedule_factor(step, total, fit.warmup, fit.schedule)

    # checks

    def _check_losses(self) -> None:
        if not self.unchecked:
            return
        finite = torch.isfinite(torch.stack([loss for _, loss, _ in self.unchecked])).tolist()
        for (step, _, rows), good in zip(self.unchecked, finite, strict=True):
            if not good:
                self._complain_of_loss(step, rows)
        self.unchecked.clear()

    def _complain_of_loss(self, step: int, rows: np.ndarray) -> None:
        names = [f"{self.store.zoom}/{x}/{y}" for x, y in self.store.tile_xy[np.unique(rows)]]
        listing = self.recorder.folder / "nonfinite_batch.txt"
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more, listed in {listing}" if len(names) > 12 else "")
        if self.world.is_main_process:
            with atomic_write(listing, "w") as file:
                file.write("\n".join(names) + "\n")
        last = self.config.run.output_dir / LAST
        kept = f"the last good checkpoint is {last}" if last.is_file() else "no checkpoint was written yet"
        raise WorkError(
            f"the loss is no longer a finite number at step {step + 1}; {kept}. Try a smaller --lr. "
            f"Tiles of the batch: {shown}"
        )

    def _stop_if_asked(self) -> None:
        signum = self.world.all_reduce_max(self.stop.signum or 0)
        if not signum:
            return
        self.stop.signum = signum
        if self.world.is_main_process:
            self._save({})
            print(f"stopped after step {self.at.step}; go on with: python train.py --resume {self._last}", flush=True)
        self.world.barrier()
        self.stop.raise_if_requested()

    # checkpoints

    @property
    def _last(self) -> Path:
        return self.config.run.output_dir / LAST

    def _save(self, metrics: dict[str, float]) -> None:
        at, config = self.at, self.config
        state = {field.name: getattr(at, field.name) for field in dataclasses.fields(at)}
        state |= {"sums": at.sums.cpu(), "optimizer": self.optimizer.state_dict(), "rng": rng_state(self.world.device)}
        if self.profile_head:
            state["profile_head"] = encoder_state(self.profile_head)
        checkpoint = Checkpoint(
            encoder_config=dataclasses.asdict(config.encoder),
            encoder_state=encoder_state(self.encoder),
            train_config=config.flat(),
            train_state=state | {"tiles": self.store.content_key},
            metrics=metrics,
            epoch=at.epoch,
            step=at.step,
            zoom=self.store.zoom,
            shrink=self.store.shrink,
        )
        try:
            save_checkpoint(self._last, checkpoint)
        except OSError as error:
            before = "the one written before it is whole" if self._last.is_file() else "none was written before"
            raise WorkError(
                f"{self._last} could not be written: {error.strerror}; {before}. Free some space, or name another "
                f"--output_dir, then go on with --resume"
            ) from error

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        try:
            self._restore(checkpoint)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.config.run.resume} holds no state of a run that this version can go on with ({error}); "
                "leave --resume out to start a new run"
            ) from error

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = dict(checkpoint.train_state)
        if state["tiles"] != self.store.content_key:
            raise UserError(
                f"{self.config.run.resume} was trained on other tiles than {self.store.tiles_root} holds now; "
                "name the same --tiles_root, or leave --resume out to start a new run"
            )
        self.encoder.load_state_dict(checkpoint.encoder_state)
        if self.profile_head:
            self.profile_head.load_state_dict(state["profile_head"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_rng(state["rng"], self.world.device)
        fields = {field.name: state[field.name] for field in dataclasses.fields(Progress)}
        self.at = Progress(**(fields | {"run_name": self.config.run.run_name}))
        planned = checkpoint.train_config["epochs"]
        if self.config.fit.epochs == self.at.epoch:
            raise UserError(
                f"{self.config.run.resume} has finished its {planned} epochs; `--epochs 25` trains for 25 further ones"
            )
        if self.config.fit.epochs != planned:
            self.at.ramp_from = self.at.step  # further epochs: the schedule starts anew


LAST, BEST = "last.pth", "best_model.pth"
PROJECTOR_TILES = 1500
COMPILE_PAYS_STEPS = 2000  # compiling takes about as long as this many steps save


def schedule_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Share of the highest learning rate at a step: a linear rise, then half a cosine down to 0 or nothing more."""
    rise = max(1, round(total * warmup)) if warmup else 0
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def unhealthy(metrics: dict[str, float], config: TrainConfig) -> dict[str, str]:
    """What is wrong with an epoch's figures, by kind, each with its remedy; empty when all is well."""
    found = {}
    usage, rank, dim = metrics["usage"], metrics.get("val_rankme", math.inf), config.encoder.embedding_dim
    if config.loss.loss_type != "ntxent" and usage < 0.2:
        found["low usage"] = (
            f"only {usage:.0%} of the triplets still teach anything (20-80% is healthy): try --mining semi-hard, a "
            "larger --pos_radius and --neg_radius, a larger --margin, or --loss_type softpn"
        )
    if config.loss.loss_type != "ntxent" and usage > 0.8:
        found["high usage"] = (
            f"{usage:.0%} of the triplets are still unsolved (20-80% is healthy): give it more epochs, or try a "
            "smaller --margin, --dropout or --pos_radius, --mining random, or --preset recommended"
        )
    if rank < min(4, dim / 4):
        found["collapse"] = (
            f"the vectors collapse: effective rank {rank:.1f} of {dim}; try --vicreg_weight 1, a smaller --lr or "
            "--dropout, --mining random, or --preset recommended"
        )
    return found


def epoch_line(epoch: int, epochs: int, metrics: dict[str, float], better: bool) -> str:
    """One epoch's figures for people."""
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


def default_run_name(config: TrainConfig, world: World) -> str:
    """Date, time and loss: equal on all processes, since only the leading one writes."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{config.loss.loss_type}" if world.is_main_process else ""


def check_batch_size(config: TrainConfig, world: World) -> None:
    """Every process takes an equal part of the batch."""
    size = config.sample.batch_size
    if size % world.size:
        fits = max(world.size, size // world.size * world.size)
        raise UserError(f"--batch_size {size} does not divide among {world.size} processes; try --batch_size {fits}")


def open_city(config: TrainConfig) -> TileStore:
    """The packed tiles that a configuration names."""
    return open_configured(config.tiles, config.packing, verify=True)


PROFILE_SAMPLE = 8192  # tiles from which the profiles' mean and spread are taken
CENTRE_SAMPLE = 1024  # and from which, after every epoch, the middle of the trained part is


def sample_profiles(tiles: DeviceTiles, rows: np.ndarray) -> Tensor:
    """Brightness profiles `(N, 192)` of the tiles with content among `rows`, at most `PROFILE_SAMPLE`."""
    chosen = some_with_content(tiles.store, rows, PROFILE_SAMPLE)
    return torch.cat([brightness_profile(tiles.tiles(chosen[i : i + 128])) for i in range(0, len(chosen), 128)])


def some_with_content(store: TileStore, rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of `rows` on which something is drawn, spread evenly."""
    rows = rows[~store.blank[rows]]
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def make_optimizer(learners: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, in one kernel where the device has it."""
    fused = next(learners.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(learners.parameters(), config.fit.lr, weight_decay=config.fit.weight_decay, fused=fused)


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators (dropout); batches and augmentation depend on seed, epoch and step alone."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def restore_rng(state: dict[str, Tensor], device: torch.device) -> None:
    """Put torch's generators where `rng_state` found them."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def publish(source: Path, target: Path) -> None:
    """Give a finished checkpoint a second name, whole or not at all; a link where the file system has links."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def main() -> None:
    """Train as the command line says."""
    outcome = train(parse_config())
    print(f"best checkpoint: {outcome.best}\ncurves: tensorboard --logdir {outcome.folder.parent}")


if __name__ == "__main__":
    run_main(main)
