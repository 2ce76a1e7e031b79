"""How much memory a training step needs and how much is free.

Not a command.
"""

import dataclasses
import functools
from bisect import bisect_right
from pathlib import Path

import torch

from devices import compute_dtype
from distributed import World
from model import Encoder, EncoderConfig
from train_config import TrainConfig


def network_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What the network computes in; weights, statistics and the loss stay float32."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "auto": compute_dtype(device)}[config.speed.precision]


# --- memory ------------------------------------------------------------------------------------------------

# Most bytes a step holds per pixel of one layer of one tile, measured on the CPU at 64 and 128 px (peak resident size).
STEP_BYTES_PER_PIXEL = {torch.float32: 1800, torch.bfloat16: 1100}


def memory_need(config: TrainConfig, world: World, batch_size: int | None = None, tile_size: int | None = None) -> int:
    """Bytes that a process takes to train on batches of so many samples."""
    edge = tile_size or config.packing.tile_size
    weights = weight_count(dataclasses.replace(config.encoder, tile_size=edge))
    tiles = (batch_size or config.sample.batch_size) // world.size * config.loss.views
    per_pixel = STEP_BYTES_PER_PIXEL[network_dtype(config, world.device)]
    return 16 * weights + per_pixel * tiles * edge**2  # weights, gradients, two moments, float32


@functools.cache
def weight_count(config: EncoderConfig) -> int:
    """Number of an encoder's weights."""
    with torch.device("meta"):
        return sum(weights.numel() for weights in Encoder(config).parameters())


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take, by what the device, the system and its limits allow."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not Path("/proc/meminfo").is_file():
        return 1 << 62  # not Linux: unknown
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    free = [int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024]
    ceiling, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    if ceiling.is_file() and (most := ceiling.read_text().strip()) != "max":
        free.append(int(most) - int(used.read_text()))
    import resource  # not above: Linux and macOS only

    if (most := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        free.append(most - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return max(0, min(free))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device's or the system's memory did not suffice."""
    return not isinstance(error, RuntimeError) or any(
        text in str(error) for text in ("out of memory", "can't allocate memory", "not enough memory")
    )


def memory_advice(config: TrainConfig, world: World, free: int) -> str:
    """One sentence with the batch size or tile size that would fit into so many free bytes."""
    size, edge = config.sample.batch_size, config.packing.tile_size
    sizes = range(world.size, size, world.size)
    smaller = sizes[: bisect_right(sizes, free, key=lambda n: memory_need(config, world, batch_size=n))]
    coarser = [n for n in range(32, edge, 32) if memory_need(config, world, tile_size=n) <= free]
    ways = [f"--batch_size {smaller[-1]}"] if smaller else []
    ways += [f"--tile_size {coarser[-1]}"] if coarser else []
    both = f"--batch_size {world.size} --tile_size 32 is the least there is"
    return (
        f"out of memory: a step on {size * config.loss.views} tiles of {edge} px needs about "
        f"{memory_need(config, world) / 1e9:.1f} GB and {free / 1e9:.1f} GB were free on {world.device}; "
        + (f"{' or '.join(ways)} would fit" if ways else both)
    )
