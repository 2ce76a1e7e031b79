"""The version of this project, as `pyproject.toml` states it.

Not a command. Every script prints it with `--version`; checkpoints, exports, tile folders and pages carry it.
"""

import tomllib
from pathlib import Path

with Path(__file__).with_name("pyproject.toml").open("rb") as file:
    VERSION: str = tomllib.load(file)["project"]["version"]
