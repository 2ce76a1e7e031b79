"""bench.py: its figures are complete, and every device has work."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bench_embedding
import bench_network
import bench_setup
import bench_tiles
import bench_viewers
from bench import BENCHES, main
from bench_setup import Bench, BenchFlags, Figure
from cli import UserError
from osm_file import cut_extract
from render_tiles import SAMPLE_EXTRACT
from streaming import open_drawing
from tile_files import scan_tiles
from tile_painter import Painter
from tile_store import open_store

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
    design = {"render", "memory", "pack", "loader", "train", "embed", "dataset", "search", "project", "html", "app"}
    assert set(BENCHES) == design | {"naive", "choices", "pipeline", "precompute"}


def test_figures_are_printed_as_one_table(tiny_tiles, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.py", "pack", "loader", "--tiles_root", str(tiny_tiles), "--repeats", "1"])
    monkeypatch.setitem(BENCHES, "loader", lambda _: iter([Figure("a copy", 2.0, "s", 1.0, 2.0, "CPU", 7, "slow")]))
    main()
    hardware, header, *rows = capsys.readouterr().out.splitlines()
    assert "cores" in hardware and len(rows) == 4
    for name in ("floor", "ratio", "tiles"):
        ends = {len(row[: header.index(name) + len(name)].rstrip()) for row in rows}
        assert ends == {header.index(name) + len(name)}  # every number ends where its column does
    assert rows[-1].startswith("a copy") and rows[-1].endswith("slow")


def test_a_part_that_fails_costs_no_other(monkeypatch, capsys):
    def fails(_bench: Bench):
        yield Figure("before", 2.0, "s", 1.0, 2.0, "CPU", 7)
        raise UserError("no /proc here")

    monkeypatch.setattr("sys.argv", ["bench.py", "pack", "loader"])
    monkeypatch.setitem(BENCHES, "pack", fails)
    monkeypatch.setitem(BENCHES, "loader", lambda _: iter([Figure("after", 2.0, "s", 1.0, 2.0, "CPU", 7)]))
    with pytest.raises(UserError, match=r"^not measured: pack: no /proc here$"):
        main()
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()[2:]] == ["before", "after"]


@pytest.mark.parametrize("part", ["html", "app"])
def test_measuring_pages_without_a_browser_names_the_command(part, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "playwright", None)
    with pytest.raises(UserError, match=r"setup\.sh browser"):
        next(BENCHES[part](Bench(BenchFlags(), torch.device("cpu"), tmp_path)))


def test_a_server_that_does_not_start_ends_the_measurement(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)", encoding="utf-8")
    with pytest.raises(UserError, match="exit code 3"), bench_viewers.live_app([broken]):
        pass


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_training_is_measured_on_every_device(device, monkeypatch, tmp_path):
    """What is measured differs by device; none is left out."""
    measured = []
    run = SimpleNamespace(recorder=SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(bench_network, "bench_run", lambda _bench, *work: measured.append(work) or run)
    monkeypatch.setattr(bench_network, "bench_step", lambda _bench, _run, steps: iter([steps]))
    steps = list(bench_network.bench_train(Bench(BenchFlags(), torch.device(device), tmp_path)))
    assert {preset for _, _, preset in measured} == {"spec", "recommended"} and all(steps)
    assert all(size % 32 == 0 and batch > 1 for size, batch, _ in measured)


def test_a_measurement_waits_for_its_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in ("cpu", "cuda", "mps"):
        bench_setup.wait(torch.device(device))
    assert waited == ["cuda", "mps"]


def test_the_renderers_floor_writes_every_plane_on_all_cores(tiny_tiles, tmp_path):
    bench = Bench(BenchFlags(tiles_root=tiny_tiles), torch.device("cpu"), tmp_path)
    store = bench.store(64)
    assert 0 < bench_tiles.write_seconds(bench, store, bench_tiles.pillow_png) < 60
    plane = np.asarray(store.planes[1])
    assert bench_tiles.pillow_png(plane).startswith(b"\x89PNG")


@pytest.mark.parametrize("encode", [True, False])
def test_the_renderers_other_floor_makes_the_same_tiles(encode, tiny_tiles, tmp_path):
    store = Bench(BenchFlags(tiles_root=tiny_tiles), torch.device("cpu"), tmp_path).store(64)
    planes = store.planes
    (tmp_path / "made" / ".partial").mkdir(parents=True)
    taken = bench_tiles.tree_share(
        tmp_path / "made", planes.filename, planes.shape, encode, store.tile_xy, store.plane_of
    )
    assert taken > 0
    made = open_store(tmp_path / "made", 64, cache_dir=tmp_path / "cache")
    assert made.content_key == store.content_key


@pytest.fixture
def tiny_bench(tiny_tiles, tmp_path):
    return Bench(BenchFlags(tiles_root=tiny_tiles, repeats=1), torch.device("cpu"), tmp_path)


@pytest.mark.parametrize("preset", ["spec", "recommended"])
def test_a_training_step_has_three_floors(tiny_bench, preset):
    run = bench_network.bench_run(tiny_bench, 32, 4, preset, neg_radius=5)
    figures = list(bench_network.bench_step(tiny_bench, run, 1))
    run.recorder.close()
    assert {figure.tiles for figure in figures} == {4 * run.config.loss.views}
    ready, bare, products = (figure.note for figure in figures)
    assert "on the device" in ready and "forward and backward" in bare
    reached, possible = (float(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:of|GFLOP)", products))
    assert 0 <= reached < possible


def test_the_bare_passes_change_no_weight(tiny_bench):
    run = bench_network.bench_run(tiny_bench, 32, 4, "recommended", neg_radius=5)
    before = {name: weight.clone() for name, weight in run.encoder.state_dict().items()}
    batch = run.batches[0]
    bench_network.forward_backward(run, batch, batch.inputs)
    run.recorder.close()
    assert all(torch.equal(weight, before[name]) for name, weight in run.encoder.state_dict().items())
    assert run.encoder.skip.weight.grad is not None and run.encoder.skip.weight.grad.any()


def test_the_naive_way_runs(tiny_bench, monkeypatch):
    monkeypatch.setattr(bench_network, "bench_run", small_run(bench_network.bench_run))
    figures = list(bench_network.bench_naive(tiny_bench, size=64, batch_size=2))
    assert [figure.tiles for figure in figures] == [192, 6] and all(figure.value > 0 for figure in figures)


def small_run(bench_run):
    """`bench_run` for a city of 12 x 12 tiles."""
    return lambda *args, **settings: bench_run(*args, **{"neg_radius": 5} | settings)


def test_choices_differ_in_one_thing(tiny_bench, monkeypatch):
    """Each choice is measured on steps that differ in it alone, and it is switched back afterwards."""
    seen = []
    monkeypatch.setattr(bench_network, "bench_run", small_run(bench_network.bench_run))
    monkeypatch.setattr(bench_network, "can_compile", lambda _device: False)

    def step(run, _batch, inputs):
        weight = run.encoder.blocks[0][0].weight
        seen.append(
            {
                "channels_last": weight.is_contiguous(memory_format=torch.channels_last),
                "bf16": run.config.speed.precision,
                "fused AdamW": run.optimizer.defaults["fused"],
                "input": inputs[0].dtype,
            }
        )

    monkeypatch.setattr(bench_network, "train_step", step)
    for figure in bench_network.choices_of(tiny_bench, "spec", 32, 4, 1):
        (choice, with_it, without), seen[:] = (figure.name.split(",")[0], *seen[:2]), []
        differing = {name for name in with_it if with_it[name] != without[name]} - {"input"}
        assert differing == {choice}
        assert (with_it["input"] != without["input"]) == (choice == "channels_last")


def test_tf32_is_on_inside_its_context_only():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with bench_network.tf32():
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("architecture", ["loc2vec", "multiscale"])
def test_embedding_has_the_forward_passes_as_its_floor(tiny_bench, architecture):
    encoder = bench_setup.untrained_encoder(32, architecture)
    figure = bench_embedding.embed_figure(tiny_bench, architecture, encoder, tiny_bench.store(32), 8)
    assert figure.tiles == 8 and architecture in figure.name and "floor: bare forward passes" in figure.note
    whole = bench_embedding.embed_figure(tiny_bench, architecture, encoder, tiny_bench.store(32), None)
    assert whole.tiles == (~tiny_bench.store(32).blank).sum()


@pytest.mark.slow
def test_the_pipeline_is_measured_against_its_parts(tmp_path):
    cut_extract(SAMPLE_EXTRACT, (71.42, 51.12, 71.44, 51.13), tmp_path / "city.osm.pbf")
    bench = Bench(BenchFlags(extract=tmp_path / "city.osm.pbf", repeats=1), torch.device("cpu"), tmp_path)
    (figure,) = bench_embedding.bench_pipeline(bench)
    assert figure.tiles == len(scan_tiles(tmp_path / "pipeline").tile_xy) and figure.ratio == pytest.approx(
        figure.value / figure.floor
    )
    drawing, passes = map(float, re.findall(r"([\d.]+) s", figure.note)[1:])
    assert figure.floor == pytest.approx(drawing + passes, abs=0.11)


def test_drawing_alone_draws_every_plane(tmp_path):
    cut_extract(SAMPLE_EXTRACT, (71.42, 51.12, 71.43, 51.125), tmp_path / "city.osm.pbf")
    drawing = open_drawing(tmp_path / "city.osm.pbf", None, 17, tmp_path)
    place = drawing.area.unwrapped_xy
    painter = Painter(drawing.index, 256)
    inked = sum(len(list(painter.layers(tile, x, y))) for tile, (x, y) in enumerate(place.tolist()))
    assert bench_embedding.draw_block(tmp_path, np.arange(len(place)), place) == inked > 0
