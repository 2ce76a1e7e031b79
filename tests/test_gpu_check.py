"""gpu_check.py on the CPU with tiny settings: the page it writes, what it refuses, and how it chooses its numbers."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch

import bench_network
import data_loader
import gpu_check
import memory
from bench_setup import Bench, BenchFlags, Figure
from cli import UserError, WorkError
from data_loader import TileDataset
from gpu_check import Check, main

TINY = ["--device", "cpu", "--tile_size", "32", "--batch_size", "4", "--steps", "4"]


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> tuple[Path, Path]:
    """Tiles of a part of the sample city that is wide enough for a quality report, and their labels."""
    from bench_setup import script

    folder = tmp_path_factory.mktemp("city")
    tiles, labels, box = folder / "tiles", folder / "labels.parquet", "71.38,51.11,71.485,51.155"
    script("render_tiles.py", "--city", "sample", "--bbox", box, "--tiles_root", tiles, "--labels", labels)
    return tiles, labels


def check(monkeypatch, *arguments: object, tests: tuple[bool, str] = (True, "3 passed in 2.00s")) -> None:
    monkeypatch.setattr(gpu_check, "run_gpu_tests", lambda: tests)
    monkeypatch.setattr("sys.argv", ["gpu_check.py", *TINY, *map(str, arguments)])
    main()


def table(page: str) -> dict[str, list[str]]:
    """The rows of a page's tables by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    return {name: cells for name, *cells in rows}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("resident", [False, True])
def test_the_page_holds_every_figure_of_both_presets(city, tmp_path, monkeypatch, resident):
    """With `resident`, the CPU holds the whole store as a GPU does, so that this branch runs from end to end."""
    if resident:
        init = TileDataset.__init__
        monkeypatch.setattr(
            TileDataset, "__init__", lambda self, store, device="cpu", _=None: init(self, store, device, True)
        )
    monkeypatch.setattr(gpu_check, "CHOICES_UNTIL_S", math.inf)  # on a busy machine all are measured too
    monkeypatch.setattr(bench_network, "can_compile", lambda _device: False)  # takes a minute and more
    tiles, labels = city
    check(monkeypatch, "--tiles_root", tiles, "--labels", labels, "--output_dir", tmp_path / "gpu")
    (path,) = (tmp_path / "gpu").iterdir()
    page = path.read_text()
    assert page.startswith("# ") and path.suffix == ".md" and "3 passed" in page
    found = table(page)
    assert found[""] == ["spec", "recommended"]
    assert found["training: steps, samples per batch"] == ["4, 4", "4, 4"]
    assert found["tiles are held by"] == ["the device" if resident else "the host"] * 2
    for name in gpu_check.ROWS:
        assert all(re.search(r"\d", cell) for cell in found[name]) or name == "tiles are held by"
    for name in ("of the same step on a tensor that is on the device", "of bare forward passes"):
        assert all(re.fullmatch(r"[\d.]+ \(goal 0\.9\d?: (reached|missed)\)", cell) for cell in found[name])
    assert all(0 <= float(cell.strip("%")) <= 100 for cell in found["share of the time waiting for data"])
    assert all(0 < float(cell) <= 1 for cell in found["triplet accuracy"])
    assert len([name for name in found if name.startswith("ridge R2 ")]) > 3
    choices = [name for name in found if name.endswith("32 px")]
    assert {name.split(",")[0] for name in choices} >= {"channels_last", "bf16", "fused AdamW"}


@pytest.mark.slow
def test_a_failed_test_is_on_the_page_and_fails_the_check(city, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "check_preset", lambda _check, preset: measured(preset))
    monkeypatch.setattr(gpu_check, "check_choices", lambda *_, **__: [])
    tiles, labels = city
    arguments = ("--tiles_root", tiles, "--labels", labels, "--output_dir", tmp_path)
    with pytest.raises(WorkError, match="1 failed"):
        check(monkeypatch, *arguments, tests=(False, "1 failed, 2 passed"))
    (path,) = tmp_path.glob("*.md")
    assert "1 failed, 2 passed" in path.read_text() and "no time or memory was left" in path.read_text()


def measured(preset: str) -> gpu_check.Measured:
    figures = [Figure("", 1.0, "s", 0.5, 2.0, "", 1, "10 tiles/s; floor")] * 4
    return gpu_check.Measured(preset, 4, 4, True, 12.0, 0.5, 1 << 30, figures, {"RankMe": 3.0})


def test_a_speed_is_told_beside_its_goal():
    figure = Figure("", 1.0, "s", 0.5, 2.0, "", 1)
    assert gpu_check.speed(figure) == "0.50" and gpu_check.speed(figure, 0.9) == "0.50 (goal 0.9: missed)"
    assert gpu_check.speed(figure, 0.5) == "0.50 (goal 0.5: reached)"


def test_without_a_gpu_it_says_how_to_try_it_out(run_script):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("has a GPU")
    result = run_script("gpu_check.py", check=2)
    assert "no CUDA and no MPS device" in result.stderr and "--device cpu" in result.stderr


def test_tiles_need_labels(monkeypatch, tiny_tiles, tmp_path):
    with pytest.raises(UserError, match="give both or neither"):
        check(monkeypatch, "--tiles_root", tiny_tiles, "--output_dir", tmp_path)


def test_the_batch_is_what_fits_into_memory(monkeypatch, tiny_tiles, tmp_path):
    bench = Bench(BenchFlags(tiles_root=tiny_tiles), torch.device("cuda"), tmp_path)
    whole = Check(bench, tmp_path, 256, 300, None, 256, 5)
    for free, expected in ((1 << 50, 256), (1, 8)):
        monkeypatch.setattr(gpu_check, "free_memory", lambda _device, free=free: free)
        monkeypatch.setattr(memory, "network_dtype", lambda *_: torch.bfloat16)
        assert gpu_check.fitting_batch(whole, "spec") == expected
    config = gpu_check.training_config(whole, "spec", 64)
    need = memory.memory_need(config, data_loader.ProcessGroup(torch.device("cuda")))
    monkeypatch.setattr(gpu_check, "free_memory", lambda _device: need / gpu_check.MEMORY_SHARE)
    assert gpu_check.fitting_batch(whole, "spec") == 64


@pytest.mark.parametrize(("body", "passed"), [("pass", True), ("assert 0", False)])
def test_the_tests_for_a_gpu_are_run_and_summed_up(body, passed, tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    test = f"import pytest\n@pytest.mark.gpu\ndef test_one():\n    {body}\ndef test_other():\n    assert 0\n"
    (tmp_path / "tests" / "test_it.py").write_text(test)
    monkeypatch.setattr(gpu_check, "HERE", tmp_path)
    found, summary = gpu_check.run_gpu_tests()
    assert found == passed and f"1 {'passed' if passed else 'failed'}, 1 deselected" in summary


def test_tests_that_hang_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "TESTS_S", 0.1)
    assert gpu_check.run_gpu_tests() == (False, "not finished after 0.1 s")


def test_without_pytest_it_says_what_installs_it(monkeypatch, tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'python: No module named pytest' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(UserError, match="make gpu-check"):
        gpu_check.run_gpu_tests()


def test_peak_memory_is_asked_of_the_device(monkeypatch):
    assert memory.peak_memory(torch.device("cpu")) > 1 << 20
    reset = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 7)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 9)
    for name in ("cpu", "cuda", "mps"):
        memory.reset_peak_memory(torch.device(name))
    assert [device.type for device in reset] == ["cuda"]
    assert memory.peak_memory(torch.device("cuda")) == 7 and memory.peak_memory(torch.device("mps")) == 5
    assert memory.free_memory(torch.device("mps")) == 4
