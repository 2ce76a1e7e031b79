"""Draw the picture of the rooms for docs/architecture.md, from that page and from the imports in the code.

python docs/make_rooms.py
"""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch  # noqa: E402

from cli import Parser, run_main  # noqa: E402

PAGE = REPO / "docs" / "architecture.md"
PICTURE = REPO / "docs" / "pictures" / "rooms.png"
# The rooms of each column, from left to right; a room uses rooms to its left.
COLUMNS = (("Foundation",), ("Map", "Tiles"), ("Training", "Vectors"), ("Viewers", "Quality"), ("Runners",))
COLOURS = ("#e8eef7", "#e9f5ec", "#fdf3e1", "#fbe9e7", "#efe9f7", "#e6f4f7", "#f9ebf3", "#eeeeee")
WIDTH, LINE, GAP = 3.0, 0.21, 0.8  # inches


def rooms() -> dict[str, list[str]]:
    """The modules of each room, as the page lists them."""
    text = PAGE.read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        found[section.splitlines()[0]] = re.findall(r"^\| `(\w+)\.py` \|", section, flags=re.MULTILINE)
    return found


def imports(module: str) -> set[str]:
    """The project's modules that a module imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse((REPO / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if (REPO / f"{name}.py").is_file()}


def main() -> None:
    """Draw every room as a box with its modules, and an arrow from each room to the rooms that it uses."""
    Parser(__doc__).parse_args()
    modules = rooms()
    home = {module: room for room, inside in modules.items() for module in inside}
    arrows = Counter(
        (home[module], home[used])
        for module in home
        for used in imports(module)
        if used in home and home[used] != home[module]
    )
    heights = {room: LINE * (len(inside) + 2) for room, inside in modules.items()}
    tall = max(sum(heights[room] + GAP for room in column) for column in COLUMNS) + GAP
    wide = len(COLUMNS) * (WIDTH + GAP) + GAP
    figure = Figure(figsize=(wide, tall), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, wide), ylim=(tall, 0))
    axes.set_axis_off()
    boxes, colours = {}, iter(COLOURS)
    for i, column in enumerate(COLUMNS):
        x = GAP + i * (WIDTH + GAP)
        y = (tall - sum(heights[room] + GAP for room in column) + GAP) / 2
        for room in column:
            style = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": next(colours), "edgecolor": "#666666"}
            boxes[room] = axes.add_patch(FancyBboxPatch((x, y), WIDTH, heights[room], zorder=2, **style))
            axes.text(x + 0.15, y + LINE, room, fontsize=13, fontweight="bold", va="center", zorder=3)
            for k, module in enumerate(modules[room], start=2):
                lines = len((REPO / f"{module}.py").read_text(encoding="utf-8").splitlines())
                at = y + LINE * k
                axes.text(x + 0.15, at, f"{module}.py", fontsize=9.5, family="monospace", va="center", zorder=3)
                axes.text(x + WIDTH - 0.12, at, lines, fontsize=8.5, ha="right", va="center", color="#777777", zorder=3)
            y += heights[room] + GAP
    for (start, end), count in arrows.items():
        if end == "Foundation" and start not in COLUMNS[1]:
            continue  # every room uses it
        ends = [box.get_x() + WIDTH / 2 for box in (boxes[start], boxes[end])]
        heights_at = [box.get_y() + box.get_height() / 2 for box in (boxes[start], boxes[end])]
        look = {"arrowstyle": "-|>", "mutation_scale": 14, "linewidth": 0.6 + 0.12 * count, "color": "#7d8b9d"}
        arrow = FancyArrowPatch(
            *zip(ends, heights_at, strict=True),
            patchA=boxes[start],
            patchB=boxes[end],
            shrinkA=1,
            shrinkB=3,
            zorder=1,
            **look,
        )
        axes.add_patch(arrow)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE)
    print(PICTURE.relative_to(REPO))


if __name__ == "__main__":
    run_main(main)
