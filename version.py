"""The version of this project.

Not a command. Every script prints it with `--version`; checkpoints, exports, tile folders and pages carry it.
"""

VERSION = "2.0.0"
