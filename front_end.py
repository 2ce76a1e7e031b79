"""The front end in `web/`: its ES modules as one script, and its style sheet, for the page and for the app.

Not a command. A browser could load the modules as they are, but not from a file opened without a server.
"""

import re
from pathlib import Path

WEB = Path(__file__).parent / "web"

_IMPORT = re.compile(r'import \{ ([\w, ]+) \} from "\./(\w+\.js)";')
_EXPORT = re.compile(r"export ((?:async )?function|class|const) (\w+)")


def style_sheet(name: str = "explorer.css") -> str:
    """The explorer's styles. Every rule applies inside `.loc2vec` only."""
    return (WEB / name).read_text(encoding="utf-8")


def plotly_script() -> str:
    """The part of Plotly that draws 3-D plots, as a script that sets `window.Plotly`."""
    return (WEB / "plotly_3d.js").read_text(encoding="utf-8")


def bundle(entry: str, folder: Path = WEB) -> str:
    """The module `entry` and all that it imports as one script, for strict mode.

    Each imported module becomes a block, so that its names stay its own, and an object that holds what it exports. The
    entry comes last, outside any block, and may have a default export. Modules import and export in one way only:
    `import { a, b } from "./module.js";` on one line, and `export` before a function, class or constant. Raises
    `ValueError` for anything else, for a name that a module does not export, and for modules that import each other.
    """
    blocks: dict[str, str] = {}  # by module, in an order in which each comes after those it imports
    exports: dict[str, list[str]] = {}

    def add(module: str, importers: tuple[str, ...]) -> str:
        """Add a module's imports to `blocks`; return its text with both kinds of statements replaced."""
        if module in importers:
            raise ValueError(f"web/ modules import each other: {' -> '.join([*importers, module])}")
        lines, exports[module] = [], []
        for number, line in enumerate((folder / module).read_text(encoding="utf-8").splitlines(), 1):
            where = f"web/{module}, line {number}"
            if line.startswith("import"):
                if not (found := _IMPORT.fullmatch(line)):
                    raise ValueError(f'{where}: expected import {{ name }} from "./module.js"; found {line}')
                names, source = found[1].split(", "), found[2]
                if source not in blocks:
                    text, holder = add(source, (*importers, module)), _holder(source)
                    share = f"Object.assign({holder}, {{ {', '.join(exports[source])} }});"
                    blocks[source] = f"const {holder} = {{}};\n{{\n{text}\n{share}\n}}\n"
                if missing := set(names) - set(exports[source]):
                    raise ValueError(f"{where}: web/{source} does not export {', '.join(sorted(missing))}")
                line = f"const {{ {found[1]} }} = {_holder(source)};"
            elif line.startswith("export") and not (line.startswith("export default ") and not importers):
                if not (found := _EXPORT.match(line)):
                    raise ValueError(f"{where}: expected export before a function, class or constant; found {line}")
                exports[module].append(found[2])
                line = line.removeprefix("export ")
            lines.append(line)
        return "\n".join(lines)

    last = add(entry, ())
    return "".join(blocks.values()) + last + "\n"


def _holder(module: str) -> str:
    return "module_" + module.removesuffix(".js")
