"""The test ground: real scripts as subprocesses, and a small made-up city drawn as 12 layers of PNG tiles."""

import base64
import gzip
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from embeddings import Embeddings

# Workers that share the cores must not each start a thread on every one: threads that wait for others spin.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, min(2, (os.cpu_count() or 1) // WORKERS))))

REPO = Path(__file__).resolve().parent.parent
SCRIPT_TIMEOUT_S = 600
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def tally(request) -> Iterator[Counter]:
    """How many inputs of each class ended how; printed when the module is done."""
    from fork_host import show

    counts: Counter = Counter()
    yield counts
    for (kind, ending), count in sorted(counts.items()):
        show(request.config, f"{kind}: {count:,} {ending}")


def page_json(path: Path) -> dict:
    """The data of an explorer page."""
    packed = re.search(r'<script type="text/plain" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


# --- running scripts ---------------------------------------------------------------------------------------


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """`run_script("train.py", "--epochs", 1, check=0)`: run a script of the repository as a user would.

    `cwd` is the test's own folder unless given; `check` is the exit code expected (None: any); `env` adds to
    the environment. The answer's `stdout` and `stderr` are text.
    """

    def run(script: str, *args: object, cwd: Path = tmp_path, check: int | None = 0, env: dict | None = None):
        command = [sys.executable, str(REPO / script), *map(str, args)]
        result = subprocess.run(
            command, cwd=cwd, env=script_env(env), capture_output=True, text=True, timeout=SCRIPT_TIMEOUT_S
        )
        if check is not None and result.returncode != check:
            said = f"{result.stdout}\n{result.stderr}"
            pytest.fail(f"{' '.join(command)}\nended with {result.returncode}, not {check}\n{said}")
        return result

    return run


def script_env(extra: dict | None = None) -> dict[str, str]:
    """The environment for a script under test: help texts that are not cut, plus `extra`."""
    return os.environ | {"COLUMNS": "200"} | (extra or {})


# --- a made-up city ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tiles_root` of 12 x 12 tiles at 64 px, shared by the whole session: read it, never write to it."""
    return make_tiles(tmp_path_factory.mktemp("tiny") / "tiles")


def make_tiles(
    root: Path,
    nx: int = 12,
    ny: int = 12,
    px: int = 64,
    zoom: int = 17,
    x0: int = 76600,
    y0: int = 44200,
    seed: int = 0,
) -> Path:
    """Write a structured city as `root/<layer>/<zoom>/<x>/<y>.png`, 8-bit grey, and return `root`.

    A river from north to south, a railway from west to east, a road grid, buildings and amenities denser in
    the middle, a park; most planes of the outskirts are blank.
    """
    for layer, plane in draw_city(nx * px, ny * px, px, np.random.default_rng(seed)).items():
        _write_layer(Path(root) / layer / str(zoom), plane, px, x0, y0)
    return Path(root)


def _write_layer(folder: Path, plane: np.ndarray, px: int, x0: int, y0: int) -> None:
    """Cut `plane` (ny * px, nx * px) into PNG tiles `folder/<x>/<y>.png`."""
    tiles = plane.reshape(plane.shape[0] // px, px, plane.shape[1] // px, px).transpose(2, 0, 1, 3)
    blank = png_bytes(np.zeros((px, px), np.uint8))
    for i, column in enumerate(tiles):
        (folder / str(x0 + i)).mkdir(parents=True)
        for j, tile in enumerate(column):
            (folder / str(x0 + i) / f"{y0 + j}.png").write_bytes(png_bytes(tile) if tile.any() else blank)


def png_bytes(pixels: np.ndarray) -> bytes:
    """`pixels` (height, width) uint8 as a grey PNG."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def draw_city(width: int, height: int, px: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The whole city by layer, each (height, width) uint8; `px` pixels are one tile."""
    size = (width, height)
    river = [(width * (0.3 + 0.05 * math.sin(9 * t)), height * t) for t in np.linspace(-0.1, 1.1, 60)]
    water = _drawn(size, lambda draw: draw.line(river, 200, px // 2, joint="curve"))
    layers = _drawn_surroundings(size, px) | {"water": water, "roads": _roads(size, px)}
    layers["buildings"] = _scattered(size, px / 5, (0.05, 0.14), 0.45, rng, value=180)
    layers["amenities"] = _scattered(size, px / 3, (0.03, 0.04), 0.35, rng, value=255)
    for built in ("buildings", "amenities", "roads"):
        layers[built][water > 0] = 0
    return layers


def _drawn(size: tuple[int, int], draw_with: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    image = Image.new("L", size)
    draw_with(ImageDraw.Draw(image))
    return np.array(image)


def _drawn_surroundings(size: tuple[int, int], px: int) -> dict[str, np.ndarray]:
    """The layers of few objects: one or two shapes each, at fixed shares of the city."""
    w, h = size
    shapes: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
        "natural-features": lambda d: d.ellipse((0.62 * w, 0.1 * h, 0.8 * w, 0.3 * h), fill=120),
        "boundaries": lambda d: d.line((0, 0.55 * h, w, 0.45 * h), 90, max(1, px // 32)),
        "landcover": lambda d: [
            d.ellipse((0.3 * w, 0.25 * h, 0.75 * w, 0.75 * h), fill=80),
            d.rectangle((0.75 * w, 0.7 * h, 0.95 * w, 0.9 * h), fill=160),
        ],
        "railways": lambda d: d.line((0, 0.3 * h, 0.6 * w, 0.5 * h, w, 0.85 * h), 220, max(2, px // 16)),
        "aeroways": lambda d: d.line((0.05 * w, 0.8 * h, 0.22 * w, 0.95 * h), 240, px // 4),
        "leisure": lambda d: d.rectangle((0.42 * w, 0.3 * h, 0.52 * w, 0.42 * h), fill=150),
        "places": lambda d: [_dot(d, 0.5 * w, 0.5 * h, px / 6, 255), _dot(d, 0.85 * w, 0.2 * h, px / 8, 130)],
        "power": lambda d: d.line((0.9 * w, 0, 0.7 * w, h), 110, max(1, px // 32)),
    }
    return {layer: _drawn(size, draw_with) for layer, draw_with in shapes.items()}


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, value: int) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)


def _roads(size: tuple[int, int], px: int) -> np.ndarray:
    """Two main roads across, and a grid of streets in the middle half."""
    w, h = size

    def draw_with(draw: ImageDraw.ImageDraw) -> None:
        for x in np.arange(0.35 * w, 0.75 * w, px / 2):
            draw.line((x, 0.25 * h, x, 0.75 * h), 110, max(1, px // 24))
        for y in np.arange(0.25 * h, 0.75 * h, px / 2):
            draw.line((0.35 * w, y, 0.75 * w, y), 110, max(1, px // 24))
        draw.line((0, 0.6 * h, w, 0.4 * h), 230, max(2, px // 12))
        draw.line((0.55 * w, 0, 0.5 * w, h), 230, max(2, px // 12))

    return _drawn(size, draw_with)


def _scattered(
    size: tuple[int, int],
    step: float,
    sides: tuple[float, float],
    spread: float,
    rng: np.random.Generator,
    value: int,
) -> np.ndarray:
    """Rectangles on a grid of `step` pixels, fewer away from the middle; `sides` are shares of five steps."""
    w, h = size
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(0, w, step), np.arange(0, h, step)))
    far = ((x / w - 0.5) ** 2 + (y / h - 0.5) ** 2) / spread**2
    kept = rng.random(len(x)) < np.exp(-3 * far)
    extent = rng.uniform(*sides, (kept.sum(), 2)) * 5 * step
    corners = np.column_stack([x[kept], y[kept], x[kept] + extent[:, 0], y[kept] + extent[:, 1]])
    return _drawn(size, lambda draw: [draw.rectangle(box.tolist(), fill=value) for box in corners])


# --- a checkpoint ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained encoder for 32 px tiles and vectors of 16 numbers: read it, never write to it."""
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.pth"
    save_untrained(path)
    return path


@pytest.fixture(scope="session")
def multiscale_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of an encoder that also sees the surroundings."""
    path = tmp_path_factory.mktemp("checkpoints") / "multiscale.pth"
    save_untrained(path, architecture="multiscale")
    return path


def save_untrained(
    path: Path, tile_size: int = 32, embedding_dim: int = 16, seed: int = 0, architecture: str = "loc2vec"
) -> None:
    """Write the checkpoint of an untrained encoder; equal for an equal `seed`."""
    import torch  # not above: most tests of the set-up run without it

    from checkpoint import Checkpoint, encoder_state, save_checkpoint
    from model import EncoderConfig, build_network

    config = EncoderConfig(embedding_dim, dropout=0.0, architecture=architecture, tile_size=tile_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_network(config)
    save_checkpoint(path, Checkpoint(encoder_config=vars(config), encoder_state=encoder_state(encoder)))


# --- a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium that is installed; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium found: `apt-get install chromium` (Debian), then run the test again")
    return found


# --- made-up vectors without tiles -------------------------------------------------------------------------


def made_up_embeddings(tile_xy: np.ndarray, dimensions: int = 128, zoom: int = 17) -> "Embeddings":
    """Vectors that change smoothly over the map, with noise, and facts that go with them; a twentieth is blank."""
    from embeddings import Embeddings
    from layers import LAYERS
    from tile_grid import tile_codes

    codes = tile_codes(tile_xy)
    rng = np.random.default_rng(codes[:4].astype(np.uint64))
    waves = np.random.default_rng(0).normal(size=(2, 24)) / 40
    hidden = np.sin(tile_xy.astype(np.float64) @ waves) + 0.3 * rng.normal(size=(len(tile_xy), 24))
    vectors = hidden @ np.random.default_rng(1).normal(size=(24, dimensions))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    blank = codes % 20 == 0
    intensity = np.abs(hidden[:, : len(LAYERS)]).astype(np.float32) / 4 * (hidden[:, : len(LAYERS)] > 0)
    intensity[blank] = 0
    layer = np.where(intensity.any(axis=1), intensity.argmax(axis=1), -1).astype(np.int8)
    blank |= layer < 0
    density = intensity.mean(axis=1)
    zone = (codes % 9).astype(np.int8)
    content = codes.astype(np.uint64)
    return Embeddings(tile_xy, vectors, zoom, "made up", layer, zone, density, blank, intensity, content, "made up")


def write_vectors(folder: Path | str, side: int, *, block: int = 64, dtype: str = "float16", x0: int = 91520) -> Path:
    """A dataset of side x side made-up tiles, as `python embed.py COUNTRY.osm.pbf -o FOLDER/` writes one."""
    from vector_dataset import FORMAT, DatasetFolder, part_bytes, part_name

    y0, parts = 43776, {}
    dataset = DatasetFolder(folder)
    for left in range(0, side, block):
        for top in range(0, side, block):
            x, y = np.meshgrid(np.arange(left, min(side, left + block)), np.arange(top, min(side, top + block)))
            tiles = made_up_embeddings(np.stack([x.ravel() + x0, y.ravel() + y0], axis=1).astype(np.int32))
            name = f"{(x0 + left) // block}_{(y0 + top) // block}"
            dataset.write(part_name(name), part_bytes(tiles, dtype, {"dataset": f"made up {side}"}))
            parts[name] = len(tiles)
    dataset.write_summary([part_name(name) for name in sorted(parts)])
    west, north, east, south = 71.36, 51.2, 71.5, 51.1
    dataset.write_manifest({
        "format": FORMAT, "key": f"made up {side}", "complete": True, "failed": [], "parts": parts, "zoom": 17,
        "extract": {"name": "Nowhere.osm.pbf", "digest": ""}, "style": "", "dtype": dtype, "block_tiles": block,
        "encoder": {"digest": "made up", "dimensions": 128}, "box": [west, south, east, north],
        "attribution": "© OpenStreetMap contributors, ODbL 1.0",
    })  # fmt: skip
    return Path(folder)
