"""Measurements of datasets for bench.py: the engines against plain embed.py and against each other.

Not a command; `python bench.py dataset` uses it.
"""

import heapq
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench_setup import HERE, Bench, Figure
from cli import UserError

SAMPLE_S = 0.25
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def bench_dataset(bench: Bench) -> Iterator[Figure]:
    """Embed the extract as one file and as datasets.

    Figures are in processor seconds, which other work on the machine hardly changes. Memory is that of all processes
    together, shared pages counted once.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise UserError("`bench.py dataset` reads /proc, which only Linux has")
    extract, jobs = bench.flags.extract, str(os.cpu_count() or 1)
    runs = {
        "plain": [extract, "-o", bench.scratch / "plain.parquet"],
        "local": [extract, "-o", f"{bench.scratch}/local/", "--engine", "local"],
        "ray": [extract, "-o", f"{bench.scratch}/ray/", "--engine", "ray"],
    }
    found = {}
    for name, args in runs.items():
        if name == "ray" and subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode:
            continue
        command = [sys.executable, HERE / "embed.py", *args, "--jobs", jobs, "--device", "cpu"]
        found[name] = measured(list(map(str, command)))
    yield schedule(bench)
    manifest = json.loads((bench.scratch / "local" / "_manifest.json").read_text(encoding="utf-8"))
    tiles = sum(manifest["parts"].values())
    for name, floor in (("local", "plain"), ("ray", "local")):
        if name not in found:
            continue
        for i, (what, unit, scale) in enumerate((("processor", "ms/tile", 1000 / tiles), ("memory", "GB", 1e-9))):
            value, base = found[name][i] * scale, found[floor][i] * scale
            note = f"against {floor}; {found[name][2]:.0f} s and {found[floor][2]:.0f} s by the clock"
            yield Figure(f"dataset {name} {what}", value, unit, base, value / base, bench.hardware, tiles, note)


def schedule(bench: Bench) -> Figure:
    """How busy 32 workers are with made-up blocks: many empty ones, and a heavy tail, the longest handed out first."""
    rng, workers = np.random.default_rng(0), 32
    costs = np.where(rng.random(2000) < 0.4, 0.2, np.minimum(5 * (1 + rng.pareto(1.5, 2000)), 600))
    guess = costs * rng.uniform(0.5, 2, len(costs))  # the size of a block tells its time only roughly
    free = [0.0] * workers
    for cost in costs[np.argsort(-guess)].tolist():
        heapq.heapreplace(free, free[0] + cost)
    floor = float(costs.sum()) / workers
    note = f"simulated; the longest block takes {costs.max():.0f} s, the median {np.median(costs):.1f} s"
    return Figure("dataset schedule, 32 workers", max(free), "s", floor, max(free) / floor, bench.hardware, 0, note)


def measured(command: list[str]) -> tuple[float, float, float]:
    """Processor seconds and the most memory in bytes of a command and all its processes, and seconds by the clock."""
    started, seconds, peak = time.perf_counter(), dict[int, float](), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None:
            memory = 0
            for pid in _tree(process.pid):
                used = _usage(pid)
                if used is not None:
                    seconds[pid], memory = max(used[0], seconds.get(pid, 0)), memory + used[1]
            peak = max(peak, memory)
            time.sleep(SAMPLE_S)
    finally:
        process.kill()
        said = process.communicate()[1]
    if process.returncode:
        raise UserError(
            f"`{' '.join(command)}` failed: {said.strip().splitlines()[-1] if said.strip() else '(silent)'}"
        )
    return sum(seconds.values()), peak, time.perf_counter() - started


def _tree(root: int) -> list[int]:
    """A process and all processes under it."""
    parent = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it has ended
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += [pid for pid, above in parent.items() if above == found[-1]]
    return found


def _usage(pid: int) -> tuple[float, int] | None:
    """Processor seconds and memory in bytes of a process; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    memory = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return (int(fields[11]) + int(fields[12])) / TICKS, memory
