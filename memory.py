"""How much memory a training step needs, and how much is free.

Not a command. `train.py` uses it to say which batch size fits.
"""

import dataclasses
import functools
import sys
from bisect import bisect_right
from pathlib import Path

import torch

from data_loader import WINDOW_GATHER_CHUNK, WINDOW_GATHER_OVERHEAD
from distributed import ProcessGroup
from model import EncoderConfig, build_network
from tile_levels import SURROUND_CHANNELS, SURROUND_PX
from train_config import TrainConfig, loader_threads, network_dtype

# Bytes that a step holds per pixel of one layer of one tile, measured as the peak of the resident size on a CPU.
PUBLISHED_BYTES_PER_PIXEL = {torch.float32: 1800, torch.bfloat16: 1100}  # at 64 and 128 px
# The multiscale encoder at 32 to 256 px, in either precision. A CPU skips what is blank.
MULTISCALE_BYTES_PER_PIXEL = {"cpu": 100, "cuda": 700, "mps": 700}
SURROUNDINGS_BYTES = 2_500_000  # of a tile's surroundings
START_BYTES = 1_000_000_000  # of the regression from which the multiscale encoder starts, measured with 1 and 2 cities
START_CITY_BYTES = 130_000_000  # of its sample of each city: 6,000 tiles with 5,166 numbers
CGROUP = Path("/sys/fs/cgroup")


def memory_need(
    config: TrainConfig, group: ProcessGroup, batch_size: int | None = None, tile_size: int | None = None
) -> int:
    """Bytes that a process needs to train on batches of so many samples.

    The parts: weights, gradients and two moments in float32; what the step keeps of each tile; the batches that are
    loaded ahead; on a GPU, the indices with which each thread cuts windows.
    """
    edge = tile_size or config.packing.tile_size
    weights = weight_count(dataclasses.replace(config.encoder, tile_size=edge))
    tiles = (batch_size or config.sample.batch_size) // group.size * config.loss.views
    pixels = tiles * edge**2
    batch_bytes, threads = pixels * config.encoder.in_channels, loader_threads(config, group.device)
    if config.encoder.uses_surroundings:
        step_bytes = MULTISCALE_BYTES_PER_PIXEL[group.device.type] * pixels + SURROUNDINGS_BYTES * tiles
        batch_bytes += 2 * SURROUND_CHANNELS * SURROUND_PX**2 * tiles
        start = START_BYTES + START_CITY_BYTES * len(config.tiles.tiles_root)
        need = max(start, 16 * weights + step_bytes + threads * batch_bytes)
    else:
        step_bytes = PUBLISHED_BYTES_PER_PIXEL[network_dtype(config, group.device)] * pixels
        need = 16 * weights + step_bytes + threads * batch_bytes
    if config.augment.jitter and group.device.type == "cuda":
        need += max(1, threads) * WINDOW_GATHER_OVERHEAD * min(batch_bytes, WINDOW_GATHER_CHUNK)
    return need


@functools.cache
def weight_count(config: EncoderConfig) -> int:
    """Number of an encoder's weights."""
    with torch.device("meta"):
        return sum(weights.numel() for weights in build_network(config).parameters())


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still use, as the device, the system and its limits allow."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if not Path("/proc/meminfo").is_file():
        return 1 << 62  # not Linux: unknown
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    free = [int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024]
    limit = CGROUP / "memory.max"  # cgroup v2
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        # The system drops the inactive part of the page cache when a process needs the memory.
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        free.append(int(most) - int((CGROUP / "memory.current").read_text()) + int(stat["inactive_file"]))
    import resource  # not above: Linux and macOS only

    if (most_here := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        free.append(most_here - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return max(0, min(free))


def tiles_fit(tile_bytes: int, config: TrainConfig, group: ProcessGroup) -> bool:
    """Whether a GPU can hold the tiles of all cities besides what a step needs; they take at most half of it."""
    if group.device.type != "cuda":
        return False
    free = free_memory(group.device)
    return tile_bytes < min(free // 2, free - memory_need(config, group))


def peak_memory(device: torch.device) -> int:
    """The most bytes that tensors held on a GPU since `reset_peak_memory`; on MPS what they hold now.

    On a CPU it is the peak of this process since it began. Linux and macOS only.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    import resource  # not above: Linux and macOS only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the memory of the device or of the system did not suffice."""
    return not isinstance(error, RuntimeError) or any(
        text in str(error) for text in ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    )


def memory_advice(config: TrainConfig, group: ProcessGroup, free: int) -> str:
    """One sentence with the batch size or tile size that would fit into `free` bytes."""
    size, edge = config.sample.batch_size, config.packing.tile_size
    sizes = range(group.size, size, group.size)
    smaller = sizes[: bisect_right(sizes, free, key=lambda n: memory_need(config, group, batch_size=n))]
    coarser = [n for n in range(32, edge, 32) if memory_need(config, group, tile_size=n) <= free]
    ways = [f"--batch_size {smaller[-1]}"] if smaller else []
    ways += [f"--tile_size {coarser[-1]}"] if coarser else []
    advice = f"{' or '.join(ways)} would fit" if ways else f"the least is --batch_size {group.size} --tile_size 32"
    return (
        f"out of memory: a step on {size * config.loss.views} tiles of {edge} px needs about "
        f"{memory_need(config, group) / 1e9:.1f} GB, but {free / 1e9:.1f} GB were free on {group.device}; {advice}"
    )
