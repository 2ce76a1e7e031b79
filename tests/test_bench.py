"""bench.py: its figures are complete, and every device has work."""

import json

import numpy as np
import pytest
import torch

import bench_network
import bench_tiles
from bench import BENCHES, main
from bench_setup import Bench, BenchFlags

DESIGN = {"name", "value", "unit", "floor", "ratio", "device", "tiles"}


def test_figures_are_printed_as_json(tiny_tiles, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.py", "pack", "--tiles_root", str(tiny_tiles), "--repeats", "1", "--json"])
    main()
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [figure["name"] for figure in figures] == ["pack 128 px", "open a pack again", "open a pack again"]
    for figure in figures:
        assert set(figure) >= DESIGN
        assert figure["ratio"] == pytest.approx(figure["value"] / figure["floor"])


def test_every_name_of_the_design_is_a_measurement():
    assert list(BENCHES) == ["render", "memory", "pack", "loader", "train", "embed", "search", "project", "html", "app"]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_training_is_measured_on_every_device(device, monkeypatch, tmp_path):
    """What is measured differs by device; none is left out."""
    measured = []
    monkeypatch.setattr(bench_network, "bench_step", lambda _bench, *work: measured.append(work) or iter(()))
    monkeypatch.setattr(bench_network, "bench_naive", lambda _bench: iter(()))
    list(bench_network.bench_train(Bench(BenchFlags(), torch.device(device), tmp_path)))
    assert measured and all(size % 32 == 0 and batch > 1 and steps > 0 for size, batch, steps in measured)


def test_a_measurement_waits_for_its_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in ("cpu", "cuda", "mps"):
        bench_network.wait(torch.device(device))
    assert waited == ["cuda", "mps"]


def test_the_renderers_floor_writes_every_plane_on_all_cores(tiny_tiles, tmp_path):
    bench = Bench(BenchFlags(tiles_root=tiny_tiles), torch.device("cpu"), tmp_path)
    store = bench.store(64)
    assert 0 < bench_tiles.write_seconds(bench, store, bench_tiles.pillow_png) < 60
    plane = np.asarray(store.planes[1])
    assert bench_tiles.pillow_png(plane).startswith(b"\x89PNG")
