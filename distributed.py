"""Several processes on one batch: what `torchrun` started.

Not a command.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, override

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from devices import pick_device
from model import Encoder

# --- several processes -------------------------------------------------------------------------------------


class Ranks:
    """The processes that `torchrun` started, or just this one."""

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.count > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=timedelta(days=1))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process: several on one machine take one GPU each."""
        device = pick_device(name)
        if device.type == "cuda" and self.count > 1:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        return device

    def close(self) -> None:
        """Leave the group of processes."""
        if self.count > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def wait(self) -> None:
        """Return once every process came here."""
        if self.count > 1:
            torch.distributed.barrier()

    def first_then_others(self) -> "_FirstThenOthers":
        """Context that the first process leaves before the others enter it."""
        return _FirstThenOthers(self)

    def share(self, array: np.ndarray) -> np.ndarray:
        """The first process's array, in every process; all arrays are one-dimensional and of 8-byte numbers."""
        if self.count == 1:
            return array
        length = torch.tensor([len(array)])
        torch.distributed.broadcast(length, 0)
        tensor = torch.empty(int(length), dtype=torch.int64)
        if self.first:
            tensor = torch.from_numpy(array.view(np.int64).copy())
        torch.distributed.broadcast(tensor, 0)
        return tensor.numpy().view(array.dtype)

    def gather(self, part: np.ndarray, total: int) -> np.ndarray:
        """All parts `(n_rank, D)`, as `np.array_split` cut them, put together `(total, D)`, in the first process."""
        if self.count == 1:
            return part
        whole = torch.zeros((total, part.shape[1]))
        mine = np.array_split(np.arange(total), self.count)[self.rank]
        whole[torch.from_numpy(mine)] = torch.from_numpy(part)
        torch.distributed.reduce(whole, 0)
        return whole.numpy()


class _FirstThenOthers:
    def __init__(self, ranks: Ranks):
        self.ranks = ranks

    def __enter__(self) -> None:
        if not self.ranks.first:
            self.ranks.wait()

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.ranks.first and kind is None:
            self.ranks.wait()


@dataclasses.dataclass(frozen=True)
class World:
    """This process among those that `torchrun` started."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def highest(self, value: int) -> int:
        """The largest value of any process."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, vectors: Tensor) -> Tensor:
        """All processes' vectors in the order of the batch; the gradient finds its way back."""
        return vectors if self.size == 1 else _Gather.apply(vectors, self.rank, self.size)


@contextlib.contextmanager
def joined_world(device: str) -> Iterator[World]:
    """Join the processes that `torchrun` started; alone without it."""
    size, chosen = int(os.environ.get("WORLD_SIZE", "1")), pick_device(device)
    if size == 1:
        yield World(chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(chosen, dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Concatenate all processes' rows.

    Every process computes the same loss of them, so the gradient of its own rows is all it needs; times the number of
    processes, since DistributedDataParallel takes the mean.
    """

    @staticmethod
    @override
    def forward(ctx: Any, vectors: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.size = rank, size
        parts = [torch.empty_like(vectors) for _ in range(size)]
        dist.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].chunk(ctx.size)[ctx.rank] * ctx.size, None, None


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is the all-reduced gradient."""

    @staticmethod
    @override
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _RankBatchNorm(nn.BatchNorm2d):
    """Batch norm over the tiles of all processes (torch's SyncBatchNorm needs a GPU)."""

    @override
    def forward(self, tiles: Tensor) -> Tensor:
        if not self.training:
            return super().forward(tiles)
        values = tiles.to(self.weight.dtype)
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = _SumOverRanks.apply(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _SumOverRanks.apply(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(tiles.dtype)


class _RankDropout(nn.Dropout):
    """Dropout that draws for the tiles of all processes and uses its part: chance is the same for any number."""

    @override
    def forward(self, features: Tensor) -> Tensor:
        rank, size = dist.get_rank(), dist.get_world_size()
        kept = super().forward(features.new_ones(size * len(features), *features.shape[1:]))
        return features * kept[rank * len(features) : (rank + 1) * len(features)]


def across_ranks(encoder: Encoder, world: World) -> nn.Module:
    """The encoder as one part of a run over several processes."""
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and world.device.type != "cuda":
                child.__class__ = _RankBatchNorm
            elif isinstance(child, nn.Dropout):
                setattr(module, name, _RankDropout(child.p))
    if world.device.type == "cuda":
        encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    ids = [world.device.index] if world.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(encoder, device_ids=ids)
