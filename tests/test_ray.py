"""block_engine.py on Ray: two machines (raylets) on one, what is lost is done again, and a dataset is the same."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import block_engine
import embed
from block_engine import RayEngine, Task, open_engine
from cli import UserError
from conftest import REPO, script_env
from test_dataset import arguments, content, dataset, ground  # noqa: F401 - fixtures

ray = pytest.importorskip("ray", reason="needs `pip install -r requirements-ray.txt`")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not know the tests
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def piece(number: int, marks: str) -> tuple[int, str, bool]:
    """Says on which node it ran, and whether in an actor.

    4 ends its process the first time, 6 raises, 8 ends its process every time.
    """
    import ray

    mark = Path(marks, str(number))
    with mark.open("a") as file:
        file.write("x")
    time.sleep(0.5)
    if number == 4 and mark.stat().st_size == 1:
        os._exit(9)
    if number == 6:
        raise ValueError("every time")
    if number == 8:
        os._exit(9)
    context = ray.get_runtime_context()
    return number, context.get_node_id(), context.get_actor_id() is not None


def tasks(marks: Path, count: int) -> list[Task]:
    return [Task(str(n), lambda _, n=n: (n, str(marks))) for n in range(count)]


def test_both_machines_work_and_what_is_lost_is_done_again(cluster, tmp_path):
    with open_engine("ray", 2, cluster.address) as engine:
        done = {outcome.name: outcome for outcome in engine.run(piece, (), tasks(tmp_path, 12))}
    assert len(done) == 12 and {name for name, outcome in done.items() if outcome.error} == {"6", "8"}
    assert done["6"].error == "ValueError: every time" and (tmp_path / "6").stat().st_size == block_engine.ATTEMPTS
    values = [outcome.value for outcome in done.values() if not outcome.error]
    assert sorted(number for number, _, _ in values) == [0, 1, 2, 3, 4, 5, 7, 9, 10, 11]
    assert len({node for _, node, _ in values}) == 2


def nap(number: int) -> int:
    time.sleep(1)
    return number


def test_a_machine_that_is_lost_loses_nothing(cluster):
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    threading.Timer(4, lambda: cluster.remove_node(node, allow_graceful=False)).start()
    with open_engine("ray", 2, cluster.address) as engine:
        waiting = [Task(str(n), lambda _, n=n: (n,)) for n in range(24)]
        found = [outcome.value for outcome in engine.run(nap, (), waiting)]
    assert sorted(found) == list(range(24))


def test_actors_share_a_gpu(tmp_path):
    """Ray counts GPUs by name; the work itself runs on the CPU here."""
    ray.init(address="local", num_cpus=3, num_gpus=1, include_dashboard=False)
    try:
        engine = RayEngine.__new__(RayEngine)
        engine.ray = ray
        done = {outcome.name: outcome for outcome in engine.run(piece, (), tasks(tmp_path, 8))}
    finally:
        ray.shutdown()
    assert len(done) == 8 and {name for name, outcome in done.items() if outcome.error} == {"6"}
    assert {outcome.value[2] for outcome in done.values() if not outcome.error} == {True}, "all ran in actors"


def test_a_dataset_is_the_same_and_its_driver_may_be_killed(ground, dataset, tmp_path, cluster):  # noqa: F811
    output = tmp_path / "city"
    more = ("--block_tiles", 4, "--engine", "ray", "--address", cluster.address)
    command = [sys.executable, str(REPO / "embed.py"), *arguments(ground, f"{output}/", *more)]
    process = subprocess.Popen(command, cwd=tmp_path, env=script_env(), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(output.glob("block=*")):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = len(list(output.glob("block=*")))
    result = subprocess.run(command, cwd=tmp_path, env=script_env(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert kept < 9 and f"{9 - kept} of them embedded now" in result.stdout
    assert content(output) == content(dataset)


def test_twenty_kills_lose_nothing_and_double_nothing(ground, tmp_path, cluster):  # noqa: F811
    """Workers, a machine and the driver are killed in turn. A city that is finished is followed by another one."""
    more = ("--block_tiles", 2)
    command = [sys.executable, str(REPO / "embed.py")]
    local = [*command, *arguments(ground, f"{tmp_path}/local/", *more, "--jobs", 2)]
    subprocess.run(local, check=True, capture_output=True, env=script_env(), cwd=tmp_path)
    node = cluster.add_node(num_cpus=1)
    kills: Counter[str] = Counter()
    chance = random.Random(0)
    city = 0
    while kills.total() < 20:
        output = tmp_path / f"city{city}"
        on_ray = [*command, *arguments(ground, f"{output}/", *more, "--engine", "ray", "--address", cluster.address)]
        with (tmp_path / "ray.log").open("w") as log:
            process = subprocess.Popen(on_ray, cwd=tmp_path, env=script_env(), stderr=log)
        for kind in ("worker", "worker", "machine", "worker", "driver"):
            done = len(list(output.glob("block=*")))
            while process.poll() is None and len(list(output.glob("block=*"))) < done + 2:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 0.5))
            if process.poll() is not None or kills.total() == 20:
                break
            if kind == "worker":
                if not (pids := working()):
                    continue
                os.kill(pids[0], signal.SIGKILL)
            elif kind == "machine":
                cluster.remove_node(node, allow_graceful=False)
                node = cluster.add_node(num_cpus=1)
            else:
                process.kill()
            kills[kind] += 1
        if process.wait(300) == 0:
            assert content(output) == content(tmp_path / "local")
            city += 1
        else:
            log = (tmp_path / "ray.log").read_text()
            assert process.returncode in (1, -signal.SIGKILL), log  # 1: blocks were given up
    result = subprocess.run(on_ray, cwd=tmp_path, env=script_env(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert content(output) == content(tmp_path / "local")
    assert min(kills[kind] for kind in ("worker", "machine", "driver")) >= 2, kills


def working() -> list[int]:
    """Workers of Ray that compute a block."""
    found = subprocess.run(["pgrep", "-f", "^ray::embed_block"], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def test_a_cluster_that_is_not_there(ground, tmp_path, monkeypatch):  # noqa: F811
    more = ("--engine", "ray", "--address", "127.0.0.1:1")
    monkeypatch.setattr(sys, "argv", ["embed.py", *arguments(ground, f"{tmp_path}/city/", *more)])
    with pytest.raises(UserError, match=r"no Ray cluster at --address 127\.0\.0\.1:1"):
        embed.main()
