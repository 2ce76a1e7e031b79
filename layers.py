"""The 12 layers and how their tiles lie in folders: what everything that reads or writes tiles agrees on.

Not a command itself; `python data_loader.py` shows it at work. Apart, so that drawing needs no PyTorch.
"""

import re

LAYERS = (
    "natural-features",
    "boundaries",
    "landcover",
    "buildings",
    "amenities",
    "railways",
    "aeroways",
    "leisure",
    "places",
    "water",
    "roads",
    "power",
)
MANIFEST_NAME = "manifest.json"  # written by render_tiles.py; its tiles are known to have a black background
MAX_TILE_PX = 2048  # anything larger is not a tile
COORDINATE = re.compile("0|[1-9][0-9]{0,8}")  # as it is written in a path: no leading zeros, no other digits
