"""dataset_search.py: the nearest tiles of a dataset, built part by part, memory-mapped, with filters."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import dataset_search
import embed
from cli import UserError
from dataset_search import DatasetSearch, open_dataset, tile_at
from embeddings import Embeddings
from tile_grid import great_circle_km, latlon_of_tile
from vector_dataset import FORMAT, DatasetFolder, part_bytes, part_name, read_tiles

CORNER = np.array([91520, 43776])
SIDE, PARTS = 40, 4  # tiles of a part, parts in a row


def write_parts(folder: Path, numbers: list[int], dtype: str = "float32", blanks: tuple[int, ...] = ()) -> np.ndarray:
    """A dataset of made-up parts, each 40 x 40 tiles; returns the vectors of those that are not blank.

    Every tile of the parts `blanks` is blank.
    """
    parts, all_vectors = {}, []
    for number in numbers:
        rng = np.random.default_rng(number)
        x, y = (axis.ravel() for axis in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
        tile_xy = (np.column_stack([x + number * SIDE, y]) + CORNER).astype(np.int32)
        centres = np.random.default_rng(99).standard_normal((30, 16))
        vectors = centres[rng.integers(30, size=len(x))] + 0.3 * rng.standard_normal((len(x), 16))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        blank = rng.random(len(x)) < (1 if number in blanks else 0.1)
        zeros = np.zeros(len(x), np.int8)
        facts = (zeros, zeros, zeros.astype(np.float32), blank, np.zeros((len(x), 12), np.float32), zeros)
        tiles = Embeddings(tile_xy, vectors, 17, "", *facts, model_key="encoder")
        parts[f"{number}_0"] = len(x)
        DatasetFolder(folder).write(part_name(f"{number}_0"), part_bytes(tiles, dtype, {"dataset": "k"}))
        all_vectors.append(vectors[~blank])
    west_north, east_south = latlon_of_tile(np.array([CORNER, CORNER + np.array([SIDE * PARTS, SIDE])]), 17)
    manifest = {"format": FORMAT, "key": "k", "complete": True, "zoom": 17, "dtype": dtype, "parts": parts}
    manifest |= {"encoder": {"digest": "encoder", "dimensions": 16}, "extract": {"name": "made.osm.pbf"}}
    manifest["box"] = [west_north[1], east_south[0], east_south[1], west_north[0]]
    DatasetFolder(folder).write_manifest(manifest)
    return np.concatenate(all_vectors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("search") / "made"
    write_parts(path, list(range(PARTS)))
    return path


def stored(search: DatasetSearch) -> np.ndarray:
    """The vectors of all rows, as the index has them."""
    search.index.make_direct_map()
    return search.index.reconstruct_n(0, len(search))


def test_it_finds_what_exact_search_finds(folder):
    search = open_dataset(folder)
    assert 0.85 * PARTS * SIDE**2 < len(search) < 0.95 * PARTS * SIDE**2, "blank tiles are left out"
    vectors, rng = stored(open_dataset(folder)), np.random.default_rng(1)
    queries = vectors[rng.integers(len(vectors), size=50)]
    rows, distances = search.query(queries, 10)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(rows, truth, strict=True)]) >= 9.8
    np.testing.assert_allclose(distances, 1 - np.take_along_axis(queries @ vectors.T, rows, axis=1), atol=2e-3)
    assert (np.diff(distances, axis=1) >= 0).all()


def test_rows_are_the_tiles_they_say(folder):
    search = open_dataset(folder)
    for row in (0, 17, len(search) - 1):
        tile = tile_at(folder, tuple(search.latlon(np.array([row]))[0]))
        np.testing.assert_array_equal(tile.tile_xy, search.tile_xy[[row]])
        assert search.query(tile.vectors, 1)[0][0, 0] == row and tile.model_key == search.model_key


@pytest.mark.parametrize("min_km", [0.5, 5.0, 20.0])
def test_twins_at_least_so_far_away(folder, min_km):
    search = open_dataset(folder)
    place = tuple(search.latlon(np.array([300]))[0])
    allowed = search.allowed(place, min_km)
    km = great_circle_km(search.latlon(np.arange(len(search))), np.array(place))
    np.testing.assert_array_equal(allowed, km >= min_km)
    rows, _ = search.query(tile_at(folder, place).vectors, 10, allowed=allowed)
    assert (rows >= 0).all() and km[rows].min() >= min_km


def test_a_box_with_few_tiles_is_searched_whole(folder):
    search = open_dataset(folder)
    (north, west), (south, east) = latlon_of_tile(CORNER + np.array([[3, 3], [6, 6]]), 17)
    allowed = search.allowed((0.0, 0.0), 0.0, (west, south, east, north))
    offset = search.tile_xy - CORNER
    np.testing.assert_array_equal(allowed, ((offset >= 3) & (offset < 6)).all(axis=1))
    rows, distances = search.query(stored(open_dataset(folder))[5], 12, allowed=allowed)
    assert set(rows[0][rows[0] >= 0]) == set(np.flatnonzero(allowed)) and np.isinf(distances[0][rows[0] < 0]).all()


@pytest.mark.parametrize("box", [None, (71.35, 51.0, 71.45, 51.4)])
def test_as_many_are_found_as_there_are(folder, box):
    search = open_dataset(folder)
    place = tuple(search.latlon(np.array([0]))[0].tolist())
    there = int(search.allowed(place, 0.0, box).sum())
    assert there > 1000
    answer = search.similar(stored(search)[0], there, place, box=box)
    assert len(answer.rows) == there == len(set(answer.rows.tolist()))


def test_new_parts_are_added_and_lost_ones_make_it_anew(tmp_path, monkeypatch):
    folder = tmp_path / "made"
    write_parts(folder, [0, 1])
    first = open_dataset(folder)
    assert first.added == len(first) > 0 and open_dataset(folder).added == 0
    write_parts(folder, [0, 1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(dataset_search, "_trained", None)  # the lists stay
        second = open_dataset(folder)
    assert second.added == len(second) - len(first) > 0
    np.testing.assert_array_equal(second.tile_xy[: len(first)], first.tile_xy)
    write_parts(folder, [1, 2])
    third = open_dataset(folder)
    assert third.added == len(third) < len(second) and third.tile_xy[:, 0].min() >= CORNER[0] + SIDE


def test_a_damaged_index_is_built_again(tmp_path):
    folder = tmp_path / "made"
    write_parts(folder, [0])
    count = len(open_dataset(folder))
    path = next((folder / "_index").glob("*.faiss"))
    path.write_bytes(path.read_bytes()[:-1000])
    assert open_dataset(folder).added == count
    tiles = folder / "_index" / "tiles.l2v"
    tiles.write_bytes(tiles.read_bytes()[:-1] + b"x")
    assert open_dataset(folder).added == count


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_vectors_are_searched_too(tmp_path, dtype):
    vectors = write_parts(tmp_path / "made", [0], dtype)
    search = open_dataset(tmp_path / "made")
    found = search.query(vectors[:20], 1)[1][:, 0]
    assert len(search) == len(vectors) and found.max() < (0.001 if dtype == "float16" else 0.01)


def test_wrong_queries_get_a_sentence(folder, tmp_path):
    search = open_dataset(folder)
    for vector in (np.zeros(15), np.full(16, np.nan)):
        with pytest.raises(UserError, match="one checkpoint"):
            search.query(vector)
    with pytest.raises(UserError, match="no finished dataset"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(UserError, match="no tile of"):
        tile_at(folder, (0.0, 0.0))


def test_the_command_searches_with_distance_and_box(folder, monkeypatch, capsys):
    search = open_dataset(folder)
    lat, lon = search.latlon(np.array([100]))[0]

    def ask(*args) -> str:
        monkeypatch.setattr(sys, "argv", ["embed.py", "--query", f"{lat},{lon}", "--from", str(folder), *args])
        embed.main()
        return capsys.readouterr().out

    near = re.findall(r"mlat=([\d.]+)&mlon=([\d.]+)", ask("--k", "5"))
    assert len(near) == 5 and (f"{lat:.5f}", f"{lon:.5f}") not in near
    far = np.array(re.findall(r"mlat=([\d.]+)&mlon=([\d.]+)", ask("--min_km", "3")), dtype=float)
    assert len(far) == 10 and great_circle_km(far, np.array([lat, lon])).min() >= 3
    (north, west), (south, east) = latlon_of_tile(CORNER + np.array([[0, 0], [2, 2]]), 17)
    assert "places fit" in ask("--bbox", f"{west},{south},{east},{north}")


def test_a_dataset_and_a_file_search_in_each_other(folder, tmp_path, monkeypatch, capsys):
    table = read_tiles(folder).slice(0, 500)
    pq.write_table(table, tmp_path / "city.parquet")
    about = {"checkpoint": "of another encoder"}
    other = table.replace_schema_metadata((table.schema.metadata or {}) | {b"loc2vec": json.dumps(about).encode()})
    pq.write_table(other, tmp_path / "other.parquet")
    lat, lon = latlon_of_tile(np.array([table["x"][0].as_py(), table["y"][0].as_py()]) + 0.5, 17)

    def ask(from_: Path, in_: Path) -> str:
        line = ["embed.py", "--query", f"{lat},{lon}", "--from", str(from_), "--in", str(in_), "--k", "3"]
        monkeypatch.setattr(sys, "argv", line)
        embed.main()
        return capsys.readouterr().out

    for from_, in_ in ((folder, tmp_path / "city.parquet"), (tmp_path / "city.parquet", folder)):
        first = ask(from_, in_).splitlines()[2]
        assert f"{lat:.5f}" in first and "0.0000" in first, "the place itself is in the other, at distance 0"
    for from_, in_ in ((folder, tmp_path / "other.parquet"), (tmp_path / "other.parquet", folder)):
        with pytest.raises(UserError, match="different encoders"):
            ask(from_, in_)


def test_the_manifest_decides_what_is_finished(folder, tmp_path):
    manifest = json.loads((folder / "_manifest.json").read_text())
    assert dataclasses.fields(DatasetSearch) and manifest["complete"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "_manifest.json").write_text(json.dumps(manifest | {"format": "of the future"}))
    with pytest.raises(UserError, match="of the future"):
        open_dataset(tmp_path / "other")


def test_parts_without_content_are_in_no_index(tmp_path):
    vectors = write_parts(tmp_path / "made", [0, 1, 2], blanks=(0, 2))
    search = open_dataset(tmp_path / "made")
    assert len(search) == len(vectors) and search.tile_xy[:, 0].min() >= CORNER[0] + SIDE
    write_parts(tmp_path / "nothing", [0, 1], blanks=(0, 1))
    with pytest.raises(UserError, match=r"every tile of .* is blank"):
        open_dataset(tmp_path / "nothing")
