"""Pieces of work that fail in all ways, for the tests of block_engine.py; quick to import in its processes."""

import os
import time
from pathlib import Path


def broken_piece(name: str, marks: str) -> str:
    """End the process, raise, or work, by name; each time leaves a mark."""
    with open(Path(marks) / name, "a") as file:
        file.write("x")
    if name == "kills":
        time.sleep(0.5)
        os._exit(9)
    if name == "once" and (Path(marks) / name).stat().st_size == 1:
        raise OSError("the first time")
    if name == "raises":
        raise ValueError("every time")
    return name.upper()
