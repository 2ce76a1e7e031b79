"""The processes that `torchrun` starts, and how they share one batch.

Not a command. `torchrun --nproc_per_node=2 train.py` uses it.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import override

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from cli import UserError
from devices import pick_device

TIMEOUT = timedelta(days=1)  # the other processes wait while the main one validates or packs tiles


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """This process among those that `torchrun` started; alone without it.

    Arrays and numbers travel between CPUs, over gloo; tensors on a GPU travel over NCCL.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # on the CPU: a GPU need not be waited for

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Context that the main process leaves before the others enter it."""
        if not self.is_main_process:
            self.barrier()
        yield
        if self.is_main_process:
            self.barrier()

    def all_reduce_max(self, value: int) -> int:
        """The largest `value` of any process."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, vectors: Tensor) -> Tensor:
        """All processes' `vectors (b, ...)` in the order of the batch, `(B, ...)`, with gradient.

        Every process computes the same loss from them, so it needs the gradient of its own rows only. That is
        multiplied by the number of processes, because DistributedDataParallel averages gradients.
        """
        if self.size == 1:
            return vectors
        own = vectors.contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own.detach())
        if own.requires_grad:
            own = own.view_as(own)
            own.register_hook(lambda gradient: gradient * self.size)
        parts[self.rank] = own
        return torch.cat(parts)

    def broadcast_array(self, array: np.ndarray) -> np.ndarray:
        """The main process's `array`, in every process; one-dimensional, of 8-byte numbers."""
        if self.size == 1:
            return array
        length = torch.tensor([len(array)])
        dist.broadcast(length, 0)
        tensor = torch.empty(int(length), dtype=torch.int64)
        if self.is_main_process:
            tensor = torch.from_numpy(array.view(np.int64).copy())
        dist.broadcast(tensor, 0)
        return tensor.numpy().view(array.dtype)

    def gather_rows(self, part: np.ndarray, total: int) -> np.ndarray:
        """All parts `(n, D) float32`, as `np.array_split` divided them, joined `(total, D)`, in the main process."""
        if self.size == 1:
            return part
        joined = torch.zeros((total, part.shape[1]))
        own_rows = np.array_split(np.arange(total), self.size)[self.rank]
        joined[torch.from_numpy(own_rows)] = torch.from_numpy(part)
        dist.reduce(joined, 0)
        return joined.numpy()


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, and leave them at the end; `device` is a `--device` flag.

    Each process on a machine takes a GPU of its own. On MPS several processes cannot exchange tensors: they take the
    CPU, or raise `UserError` if MPS was asked for.
    """
    size, chosen = int(os.environ.get("WORLD_SIZE", "1")), pick_device(device)
    if size == 1:
        yield ProcessGroup(chosen)
        return
    backend, device_id = "gloo", None
    if chosen.type == "mps":
        if device == "mps":
            raise UserError("torchrun cannot train on MPS; run `python train.py`, or pass --device cpu")
        chosen = torch.device("cpu")
    if chosen.type == "cuda":
        local_rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= gpus:
            raise UserError(f"torchrun started more processes than the {gpus} GPUs here; pass --nproc_per_node={gpus}")
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
        backend, device_id = "cpu:gloo,cuda:nccl", chosen
    dist.init_process_group(backend, timeout=TIMEOUT, device_id=device_id)
    try:
        yield ProcessGroup(chosen, dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


# --- layers that see the batch of all processes ------------------------------------------------------------


class _SyncBatchNormCPU(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the samples of all processes (torch's SyncBatchNorm needs a GPU)."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    @override
    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        values = features.to(self.running_mean.dtype)
        others = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1] + [1] * (values.dim() - 2)
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = all_reduce(values.sum(dim=others)) / count
        centred = values - mean.view(shape)
        variance = all_reduce(centred.square().sum(dim=others)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = (variance + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale.view(shape)).to(features.dtype)
        return (centred * (self.weight * scale).view(shape) + self.bias.view(shape)).to(features.dtype)

    @override
    def _check_input_dim(self, input: Tensor) -> None:
        pass


class _SyncDropout(nn.Dropout):
    """Dropout that draws for the tiles of all processes and uses its own part: equal for any number of processes."""

    @override
    def forward(self, features: Tensor) -> Tensor:
        rank, size = dist.get_rank(), dist.get_world_size()
        kept = super().forward(features.new_ones(size * len(features), *features.shape[1:]))
        return features * kept[rank * len(features) : (rank + 1) * len(features)]


def distribute(network: nn.Module, group: ProcessGroup) -> nn.Module:
    """The network as one part of a run over several processes: gradients are averaged, statistics are shared."""
    cuda = group.device.type == "cuda"
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d) and not cuda:
                child.__class__ = _SyncBatchNormCPU  # type: ignore[assignment]  # the same attributes
            elif isinstance(child, nn.Dropout):
                setattr(module, name, _SyncDropout(child.p))
    if cuda:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return nn.parallel.DistributedDataParallel(network, device_ids=[group.device.index] if cuda else None)
