"""Which device and which precision a network runs in.

Not a command.
"""

import contextlib
import ctypes

import torch
from torch import Tensor

from cli import UserError

FREED_MEMORY = 512 << 20  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def pick_device(name: str) -> torch.device:
    """The device a `--device` flag names; `auto` takes CUDA, then MPS, then the CPU. On CUDA it turns TF32 off."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available.get(name):
        raise UserError(f"--device {name} is not available on this machine; leave it out or pass --device cpu")
    if name == "cuda":  # what is said to run in float32 does: no rounding to TF32 inside convolutions and products
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Keep up to `FREED_MEMORY` bytes that were freed for what is allocated next, where the C library is glibc.

    A training step on a CPU allocates the same hundreds of megabytes as the one before. By default glibc returns large
    blocks to the system as soon as they are freed, and every step waits until the system has cleared them again, a
    fifth of its time.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries have no mallopt
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, FREED_MEMORY)


def compute_dtype(device: torch.device) -> torch.dtype:
    """The precision that networks run fastest in: bfloat16 where the chip multiplies it itself, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # AVX512-BF16 or AMX; torch has no public name for them
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        usable = device.type == "cpu" and torch.backends.mkldnn.is_available()
        native = usable and any(getattr(torch.cpu, name, bool)() for name in checks)
    return torch.bfloat16 if native else torch.float32


def network_input(tiles: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`uint8` tiles `(B, 12, S, S)` as a network takes them: 0 to 1 in `dtype`, in `channels_last` order."""
    return tiles.contiguous(memory_format=torch.channels_last).to(dtype).div_(255)
