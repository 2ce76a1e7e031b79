"""The style table: which objects each layer shows, how they are drawn, how bright.

Not a command.
"""

import dataclasses
import tomllib
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from cli import UserError
from files import digest
from layers import APPEARANCE_FIELDS, LAYERS, STYLE_PATH

POINT, LINE, FILL = 0, 1, 2  # how an object is drawn


# --- the style table ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StyleClass:
    """One row of the style table: which objects, how drawn, how bright."""

    layer: int
    name: str
    tags: dict[str, list[str]]
    where: dict[str, list[str]]
    gray: int
    fill: bool | str = False
    fill_gray: int = 0
    line: dict[str, float] | None = None
    point: dict[str, float] | None = None
    poi: str | None = None

    def matches(self, tags: dict[str, str]) -> bool:
        """Whether an object with these tags belongs to the class."""
        return any(_value_matches(tags.get(key), values) for key, values in self.tags.items()) and all(
            _value_matches(tags.get(key), values) for key, values in self.where.items()
        )

    def draws(self, kind: int, area_tag: str | None = None, closed: bool = False) -> bool:
        """Whether an object is drawn as `kind`; a closed way is either a surface or a line, never both."""
        if kind == POINT:
            return self.point is not None
        surface = self.fill is True or (self.fill == "area=yes" and area_tag == "yes")
        return surface if kind == FILL else self.line is not None and not (closed and surface)


def _value_matches(value: str | None, accepted: list[str]) -> bool:
    if value is None or value == "no":
        return False
    return "*" in accepted or any(part.strip() in accepted for part in value.split(";"))


@dataclasses.dataclass(frozen=True)
class Style:
    """The style table, read and checked."""

    version: int
    classes: tuple[StyleClass, ...]
    digest: str

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Every tag key that the table asks for."""
        return tuple(sorted({key for row in self.classes for key in (*row.tags, *row.where)} | {"area"}))

    @cached_property
    def member_keys(self) -> tuple[str, ...]:
        """The tag keys of which one at least makes an object a member of some class."""
        return tuple(sorted({key for row in self.classes for key in row.tags}))

    def classes_of(self, tags: dict[str, str]) -> tuple[int, ...]:
        """Return the first class that matches in each layer, as indices into `classes`."""
        found: dict[int, int] = {}
        for number, row in enumerate(self.classes):
            if row.layer not in found and row.matches(tags):
                found[row.layer] = number
        return tuple(found.values())


_CLASS_KEYS = {"name", "tags", "where", "gray", "fill", "fill_gray", "line", "point", "poi"}


def load_style(path: Path | str = STYLE_PATH) -> Style:
    """Read the style table. Raises `UserError` that names the layer, the class and the field at fault."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no style table at {path}; `git checkout map_style.toml` brings the original back") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as TOML: {error}") from None
    layers = table.get("layer", [])
    classes = [layer.get("class", []) if isinstance(layer, dict) else layer for layer in layers]
    if not all(isinstance(part, list) and all(isinstance(row, dict) for row in part) for part in (layers, *classes)):
        raise UserError(f"{path}: a layer and its classes are lists; write [[layer]] and [[layer.class]]")
    names = tuple(layer.get("name") for layer in layers)
    if names != LAYERS:
        raise UserError(
            f"{path}: layers are {', '.join(map(str, names))}; expected, in this order: {', '.join(LAYERS)}"
        )
    rows = [_style_class(path, number, row) for number, part in enumerate(classes) for row in part]
    for (layer, name), count in Counter((row.layer, row.name) for row in rows).items():
        if count > 1:
            raise UserError(f"{path}: layer {LAYERS[layer]} has {count} classes named {name!r}; names must differ")
    version = table.get("version")
    if not isinstance(version, int):
        raise UserError(f"{path}: version is {version!r}; expected a whole number, such as `version = 1`")
    content = [{name: value for name, value in layer.items() if name not in APPEARANCE_FIELDS} for layer in layers]
    return Style(version, tuple(rows), digest(table | {"layer": content}))


def _style_class(path: Path, layer: int, row: dict[str, Any]) -> StyleClass:
    where = f"{path}: layer {LAYERS[layer]}, class {row.get('name', '(without a name)')}"

    def need(good: bool, what: str) -> None:
        if not good:
            raise UserError(f"{where}: {what}")

    unknown = set(row) - _CLASS_KEYS
    need(not unknown, f"unknown field {', '.join(sorted(unknown))}; known are {', '.join(sorted(_CLASS_KEYS))}")
    need(isinstance(row.get("name"), str), "a class needs a name")
    need(_is_tag_table(row.get("tags")) and bool(row["tags"]), 'tags must look like { highway = ["primary"] }')
    need(_is_tag_table(row.get("where", {})), 'where must look like { admin_level = ["4"] }')
    for field in ("gray", "fill_gray"):
        value = row.get(field, 1 if field == "fill_gray" else None)
        need(type(value) is int and 1 <= value <= 255, f"{field} is {value!r}; expected a whole number from 1 to 255")
    need(row.get("fill", False) in (True, False, "area=yes"), 'fill must be true, false or "area=yes"')
    need(_is_measure(row.get("line"), {"width_m", "min_px"}), "line must look like { width_m = 8, min_px = 4 }")
    need(_is_measure(row.get("point"), {"radius_px"}), "point must look like { radius_px = 12 }")
    need(any(row.get(field) for field in ("fill", "line", "point")), "nothing to draw: give fill, line or point")
    need(isinstance(row.get("poi", ""), str), "poi must be a word")
    return StyleClass(layer=layer, **({"where": {}, "fill_gray": row["gray"]} | row))


def _is_tag_table(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(words, list) and words and all(isinstance(word, str) for word in words) for words in value.values()
    )


def _is_measure(value: Any, fields: set[str]) -> bool:
    return value is None or (
        isinstance(value, dict)
        and set(value) == fields
        and all(type(number) in (int, float) and 0 < number <= 1000 for number in value.values())
    )
