"""What the measurements of bench.py share: flags, figures, timing, tiles and an untrained model.

Not a command; `python bench.py` uses it.
"""

import dataclasses
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch

from checkpoint import Checkpoint, encoder_state, save_checkpoint
from cli import UserError, flag, positive_int
from model import AnyEncoder, EncoderConfig, build_network
from tile_store import TileStore, open_store

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class BenchFlags:
    """Measurement."""

    tiles_root: Path | None = flag(None, "tiles to measure on; left out: the sample city, rendered first", type=Path)
    extract: Path = flag(HERE / "sample_data" / "astana.osm.pbf", "extract that `render` draws, whole")
    mapnik: bool = flag(False, "`render` also times Mapnik, which `uv pip install mapnik` installs")
    repeats: int = flag(
        5, "how often each figure and its floor are measured, in turn; the median is printed", type=positive_int
    )


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured figure; `ratio` is value / floor, and `unit` says whether more or less is better."""

    name: str
    value: float
    unit: str
    floor: float
    ratio: float
    device: str
    tiles: int
    note: str = ""

    def with_note(self, note: str) -> "Figure":
        """The same figure with another note."""
        return dataclasses.replace(self, note=note)


@dataclasses.dataclass(frozen=True)
class Bench:
    """A session of measurements: its flags, its device and a scratch folder; tiles are rendered when first needed."""

    flags: BenchFlags
    device: torch.device
    scratch: Path

    @cached_property
    def hardware(self) -> str:
        """The device in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "mps":
            return f"{processor_name()}, MPS"
        return f"{processor_name()}, {os.cpu_count()} cores"

    @cached_property
    def tiles_root(self) -> Path:
        """The tiles to measure on."""
        return self.flags.tiles_root or self._rendered("sample")

    @cached_property
    def whole_city(self) -> Path:
        """The tiles of the whole sample extract. The viewers are measured on thousands of tiles."""
        return self.flags.tiles_root or self._rendered("astana")

    def _rendered(self, city: str) -> Path:
        root = self.scratch / f"tiles-{city}"
        script("render_tiles.py", "--city", city, "--tiles_root", root)
        return root

    @cached_property
    def whole_store(self) -> TileStore:
        """The packed tiles of the whole city."""
        return open_store(self.whole_city, 64, cache_dir=self.scratch / "cache", quick=True)

    def store(self, tile_size: int) -> TileStore:
        """The packed tiles at some size."""
        return open_store(self.tiles_root, tile_size, cache_dir=self.scratch / "cache")

    def untrained_checkpoint(self, tile_size: int) -> Path:
        """A checkpoint of an untrained encoder in the scratch folder."""
        encoder, path = untrained_encoder(tile_size), self.scratch / f"untrained-{tile_size}.pth"
        save_checkpoint(path, Checkpoint(dataclasses.asdict(encoder.config), encoder_state(encoder)))
        return path

    def compare(self, name: str, work: Callable, floor: Callable, *, unit: str, tiles: int, note: str = "") -> Figure:
        """Time `work` and `floor` in turn; the figure is in seconds, the ratio the median of the pairs' ratios."""
        work(), floor()
        pairs = [(seconds(work), seconds(floor)) for _ in range(self.flags.repeats)]
        value, base = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        return Figure(name, value, unit, base, ratio, self.hardware, tiles, note)


def processor_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def seconds(work: Callable) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script of this project to its end; its failure ends the measurement."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"{name} ended with exit code {result.returncode}: {result.stderr.strip()}")
    return result


def untrained_encoder(tile_size: int, architecture: str = EncoderConfig.architecture) -> AnyEncoder:
    """An encoder with random weights, which is as fast as a trained one."""
    torch.manual_seed(0)
    return build_network(EncoderConfig(tile_size=tile_size, architecture=architecture))
