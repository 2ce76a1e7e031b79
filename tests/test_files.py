"""Files are complete or absent: atomic writes, damaged caches, locks, and processes killed in the middle."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cache_files import DamagedFile, load_cache, save_cache
from cli import UserError, WorkError
from conftest import REPO, script_env
from files import atomic_path, atomic_write, digest, file_digest, locked, named_errors, remove_leftovers

ARRAYS = {
    "vectors": np.linspace(-1, 1, 1000, dtype=np.float32).reshape(100, 10),
    "tile_xy": np.arange(200, dtype=np.int32).reshape(100, 2),
    "names": np.array(["Астана", "river", ""]),
    "none": np.zeros((0, 12), np.uint8),
    "single": np.array(7.5),
    "flags": np.array([True, False]),
    "sliced": np.arange(20)[::2],
    "swapped": np.arange(3, dtype=">i4"),
}
META = {"metric": "angular", "trees": 100, "root": Path("tiles"), "share": np.float32(0.5)}


def python(code: str, *args: object, **options) -> subprocess.Popen:
    """A Python process in the repository that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


# --- atomic writes -----------------------------------------------------------------------------------------


def test_a_write_appears_whole_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "Київ 1.txt"
    with atomic_write(path, "w") as file:
        file.write("Київ")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "Київ" and os.listdir(path.parent) == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path, "w") as file:
        file.write("half of the n")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.json"]


def test_the_temporary_name_keeps_the_suffix_and_is_hidden(tmp_path):
    with atomic_path(tmp_path / "city.parquet") as temporary:
        assert temporary.suffix == ".parquet" and temporary.name.startswith(".") and temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert os.listdir(tmp_path) == ["city.parquet"]


def test_a_writer_that_writes_nothing_is_an_error_not_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.bin"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_cache(tmp_path):
    """A limit on file sizes stands in for the full disk: the write fails in the middle with an OSError."""
    path = tmp_path / "a.l2v"
    save_cache(path, "old", {"x": np.arange(10)})
    code = (
        "import resource, signal, sys, numpy as np; from cache_files import save_cache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: save_cache(sys.argv[1], 'new', {'x': np.arange(100_000)})\n"
        "except OSError as error: print('OSError', error.errno)"
    )
    stdout, _ = python(code, path).communicate(timeout=60)
    assert stdout.startswith("OSError") and os.listdir(tmp_path) == ["a.l2v"]
    assert load_cache(path, "old") is not None


@pytest.mark.parametrize("round_", range(6))
def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path, round_):
    """SIGKILL at a random moment of endless rewriting: the file holds one whole version, and goes on working."""
    path = tmp_path / "a.l2v"
    code = (
        "import sys, numpy as np; from cache_files import save_cache\n"
        "for i in range(10**6):\n"
        "    save_cache(sys.argv[1], f'k{i}', {'x': np.full(300_000, i)}, {'i': i})\n"
        "    if i == 0: print('started', flush=True)"
    )
    with python(code, path) as process:
        assert process.stdout.readline() == "started\n"
        time.sleep(np.random.default_rng(round_).uniform(0, 0.1))
        process.kill()
    arrays, meta = load_cache(path)
    assert (arrays["x"] == meta["i"]).all() and len(arrays["x"]) == 300_000
    save_cache(path, "after", {"x": np.arange(3)})
    assert load_cache(path, "after")[0]["x"].tolist() == [0, 1, 2]


def test_leftovers_of_the_killed_go_those_of_the_living_stay(tmp_path):
    with python("pass") as dead:
        pass
    old = time.time() - 3600
    with atomic_path(tmp_path / "a.l2v") as temporary:
        temporary.write_bytes(b"x")
        here = re.fullmatch(rf"\.a\.([0-9a-f]{{8}})-{os.getpid()}-[0-9a-f]{{8}}\.tmp\.l2v", temporary.name)[1]
    (tmp_path / "a.l2v").unlink()
    there = f"{int(here, 16) ^ 1:08x}"
    names = {
        "killed": f".a.{here}-{dead.pid}-0123abcd.tmp.l2v",
        "living": f".a.{here}-{os.getpid()}-0123abcd.tmp.l2v",
        "elsewhere, old": f".b.{there}-{os.getpid()}-0123abcd.tmp.l2v",
        "elsewhere, young": f".b.{there}-{dead.pid}-0123abcd.tmp.l2v",
        "the user's": ".notes.tmp",
    }
    for kind, name in names.items():
        (tmp_path / name).write_bytes(b"x")
        if kind not in ("killed", "elsewhere, young"):
            os.utime(tmp_path / name, (old, old))
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names[kind] for kind in ("living", "elsewhere, young", "the user's"))


def test_the_next_write_removes_what_a_killed_one_left(tmp_path):
    code = (
        "import os, signal, sys; from files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "city.parquet"
    with python(code, path):
        pass
    assert [name.startswith(".city.") for name in os.listdir(tmp_path)] == [True]
    _, stderr = python(
        "import sys; from files import atomic_write\nwith atomic_write(sys.argv[1]) as f: f.write(b'x')", path
    ).communicate(timeout=60)
    assert os.listdir(tmp_path) == ["city.parquet"], stderr


# --- digests -----------------------------------------------------------------------------------------------


def test_a_digest_is_equal_in_every_process():
    code = "import numpy as np; from files import digest; print(digest({'b': 1, 'a': [2, 'x']}, b'z', np.eye(3)))"
    seen = set()
    for seed in ("1", "2"):
        stdout, _ = python(code, env=os.environ | {"PYTHONHASHSEED": seed}).communicate(timeout=60)
        seen.add(stdout.strip())
    assert seen == {digest({"a": [2, "x"], "b": 1}, b"z", np.eye(3))}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([np.zeros(4, np.float32)], [np.zeros(4, np.int32)]),
        ([np.zeros((2, 3))], [np.zeros((3, 2))]),
        ([b"a\0bytes1:b"], [b"a", b"b"]),
        (["ab"], ["a", "b"]),
        ([1], ["1"]),
        ([[1, 2]], [1, 2]),
        ([None], [False]),
        ([np.arange(6)[::2]], [np.arange(3)]),
    ],
)
def test_different_things_have_different_digests(one, other):
    assert digest(*one) != digest(*other)


def test_equal_things_have_equal_digests():
    x = np.arange(12).reshape(3, 4)
    assert digest(x.T) == digest(np.ascontiguousarray(x.T))
    assert digest(Path("a/b"), np.int64(3), (1, 2)) == digest("a/b", 3, [1, 2])
    assert digest(np.zeros((0, 3)), np.array("text")) == digest(np.zeros((0, 3)), np.array("text"))


@pytest.mark.parametrize("part", [{1, 2}, object(), np.array([{}]), np.zeros(2, "i4,f4")])
def test_what_has_no_lasting_form_has_no_digest(part):
    with pytest.raises(TypeError):
        digest(part)


def test_a_file_digest_is_its_content(tmp_path):
    (tmp_path / "a").write_bytes(b"tile")
    (tmp_path / "b").write_bytes(b"tile")
    (tmp_path / "c").write_bytes(b"tilf")
    a, b, c = (file_digest(tmp_path / name) for name in "abc")
    assert a == b != c


# --- cache files -------------------------------------------------------------------------------------------


def test_a_cache_comes_back_as_it_was(tmp_path):
    save_cache(tmp_path / "a.l2v", "key", ARRAYS, META)
    arrays, meta = load_cache(tmp_path / "a.l2v", "key")
    assert list(arrays) == list(ARRAYS) and meta == {"metric": "angular", "trees": 100, "root": "tiles", "share": 0.5}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
        assert not arrays[name].flags.writeable


def test_absent_and_outdated_caches_are_none(tmp_path):
    assert load_cache(tmp_path / "a.l2v", "key") is None
    assert load_cache(tmp_path, "key") is None
    save_cache(tmp_path / "a.l2v", "key", ARRAYS)
    assert load_cache(tmp_path / "a.l2v", "other key") is None
    assert load_cache(tmp_path / "a.l2v") is not None


@pytest.mark.parametrize("array", [np.array([{}]), np.zeros(2, "i4,f4"), np.array([None, 1])])
def test_objects_are_refused_and_nothing_is_left(tmp_path, array):
    with pytest.raises(TypeError):
        save_cache(tmp_path / "a.l2v", "key", {"x": array})
    assert os.listdir(tmp_path) == []


def test_every_damaged_byte_is_noticed(tmp_path):
    """All of the first and last kilobyte one by one, and every region between them by steps of a prime."""
    path = tmp_path / "a.l2v"
    save_cache(path, "key", ARRAYS, META)
    content = path.read_bytes()
    places = {*range(1024), *range(len(content) - 1024, len(content)), *range(0, len(content), 97)}
    for place in sorted(places):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile):
            load_cache(path, "key")
    path.write_bytes(content)
    assert load_cache(path, "key") is not None


def test_every_other_length_is_noticed(tmp_path):
    path = tmp_path / "a.l2v"
    save_cache(path, "key", ARRAYS, META)
    content = path.read_bytes()
    for length in {*range(200), *range(200, len(content), 101), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(DamagedFile):
            load_cache(path, "key")
    path.write_bytes(content + b"\0")
    with pytest.raises(DamagedFile):
        load_cache(path, "key")


@pytest.mark.parametrize("entry", ["|O", "<U", "no type"])
def test_a_forged_cache_with_a_right_digest_is_refused(tmp_path, monkeypatch, entry):
    """Somebody else's file may be whole and still not ours: it must neither run code nor end in a traceback."""
    import files

    path = tmp_path / "a.l2v"
    to_json = files.json.dumps
    with monkeypatch.context() as patch:
        patch.setattr(files.json, "dumps", lambda value, **_: to_json(value).replace("<i8", entry))
        save_cache(path, "key", {"x": np.arange(4)})
    with pytest.raises(DamagedFile):
        load_cache(path, "key")


def test_two_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.l2v"
    code = (
        "import sys, numpy as np; from cache_files import save_cache\n"
        "for i in range(40): save_cache(sys.argv[1], 'k', {'x': np.full(50_000, int(sys.argv[2]))})"
    )
    writers = [python(code, path, number) for number in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        loaded = load_cache(path, "k")
        assert loaded is None or len(np.unique(loaded[0]["x"])) == 1
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert os.listdir(tmp_path) == ["a.l2v"]


# --- locks -------------------------------------------------------------------------------------------------

HOLD = "import sys, time; from files import locked\nwith locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"


def test_a_lock_keeps_others_out_and_a_kill_frees_it(tmp_path, capfd):
    path = tmp_path / "store.lock"
    with python(HOLD, path) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"another process is still working on .*store"), locked(path, wait_s=0.3):
            pytest.fail("two processes hold one lock")
        assert "waiting for it" in capfd.readouterr().err
        holder.send_signal(signal.SIGKILL)
    with locked(path, wait_s=5):
        pass


def test_a_lock_is_freed_by_its_end_and_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new" / "a.lock"):
        raise ZeroDivisionError
    with locked(tmp_path / "new" / "a.lock", wait_s=0):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_work_goes_on_where_the_file_system_has_no_locks(tmp_path, monkeypatch, code):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    done = []
    with locked(tmp_path / "a.lock", wait_s=0):
        done.append(1)
    assert done == [1]


def test_an_error_of_the_work_passes_through_the_lock(tmp_path):
    with pytest.raises(OSError, match="No locks available"), locked(tmp_path / "a.lock"):
        raise OSError(errno.ENOLCK, "No locks available")
    with locked(tmp_path / "a.lock", wait_s=0):
        pass


def test_a_waiting_process_goes_on_when_the_other_is_done(tmp_path):
    """Two processes count to 40 in one file under the lock: no step is lost."""
    code = (
        "import sys; from pathlib import Path; from files import locked\n"
        "count = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with locked(count.with_suffix('.lock')):\n"
        "        count.write_text(str(int(count.read_text()) + 1))"
    )
    count = tmp_path / "count.txt"
    count.write_text("0")
    for process in [python(code, count) for _ in range(2)]:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert count.read_text() == "40"


FULL_DISK = """
import resource, sys
sys.path.insert(0, {repo!r})
import numpy as np, pandas as pd, geopandas, shapely
from pathlib import Path
from cli import run_main
from files import save_array
from user_tables import write_frame

def main():
    points = shapely.points(np.zeros(2000), np.zeros(2000))
    frame = geopandas.GeoDataFrame({{"a": range(2000)}}, geometry=points, crs=4326)
    write_frame(Path("a" + {suffix!r}), frame, np.random.default_rng(0).normal(size=(2000, 64)))

resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
run_main(main)
"""


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".csv", ".geojson", ".gpkg"])
def test_a_full_disk_is_one_message_for_every_format(tmp_path, suffix):
    code = FULL_DISK.format(repo=str(REPO), suffix=suffix)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=script_env(), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert (
        result.stderr.startswith("error: ") and f"a{suffix}" in result.stderr and len(result.stderr.splitlines()) == 1
    )
    assert not (tmp_path / f"a{suffix}").exists()


def test_the_errors_of_libraries_name_the_file(tmp_path, monkeypatch):
    with pytest.raises(WorkError, match=r"a\.gpkg cannot be written: no such field"), named_errors(tmp_path / "a.gpkg"):
        raise RuntimeError("no such field\nand more")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="cannot be written") as caught, named_errors(tmp_path / "a.gpkg"):
        raise RuntimeError("write failed")
    assert caught.value.errno == errno.ENOSPC
