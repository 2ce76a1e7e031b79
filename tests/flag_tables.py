"""Write docs/flags.md from the scripts' own parsers: every flag, its default and what it does.

python tests/flag_tables.py
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import cli  # noqa: E402

PAGE = REPO / "docs" / "flags.md"
SCRIPTS: dict[str, str] = {
    "render_tiles.py": "main",
    "data_loader.py": "main",
    "train.py": "main",
    "embed.py": "main",
    "precompute_embeddings.py": "main",
    "visualize.py": "main",
    "interactive_visualizer.py": "main",
    "run_interactive_viz.py": "main",
    "streamlit_app.py": "read_app_flags",
    "evaluate.py": "main",
    "pretrained.py": "main",
    "run_example.py": "main",
    "bench.py": "main",
    "gpu_check.py": "main",
}

HIDDEN = (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)  # the same in every script
PER_CORE = {"num_workers", "jobs"}  # their defaults are the machine's cores


class _Parsed(Exception):
    """Carries the parser out of a script before it does anything."""


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that a script builds."""

    def stop(self: cli.Parser, *_: object) -> None:
        raise _Parsed(self)

    original, cli.Parser.parse_args = cli.Parser.parse_args, stop
    try:
        entry: Callable = getattr(importlib.import_module(script.removesuffix(".py")), SCRIPTS[script])
        entry()
    except _Parsed as parsed:
        return parsed.args[0]
    finally:
        cli.Parser.parse_args = original
    raise AssertionError(f"{script} parsed no flags")


def flag_rows(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, str]]:
    """`(name, default, help)` of each flag, in the order of `--help`."""
    for action in parser._actions:
        if isinstance(action, HIDDEN) or action.help == argparse.SUPPRESS:
            continue
        name = next((text for text in action.option_strings if text.startswith("--")), action.metavar or action.dest)
        choices = f" ({', '.join(map(str, filter(None, action.choices)))})" if action.choices else ""
        default = "cores" if action.dest in PER_CORE else default_text(action.default)
        text = f"{action.help}{choices}".replace("%%", "%").replace("|", "\\|").replace("<", "\\<")
        yield str(name), default, text


def default_text(default: object) -> str:
    """A default as one would type it; paths inside the project by their name there."""
    if default is None or default == argparse.SUPPRESS or default == "":
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, list | tuple):
        return " ".join(map(str, default))
    return str(default).replace(f"{REPO}/", "")


def section(title: str, parser: argparse.ArgumentParser) -> list[str]:
    """One script's heading and table."""
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in flag_rows(parser)]
    return [f"## {title}", "", "| flag | default | what it does |", "|---|---|---|", *rows, ""]


def page() -> str:
    """The whole page."""
    lines = ["# Every flag of every script", ""]
    lines += [
        "Written by `python tests/flag_tables.py`. `--max_tiles` and `--max-tiles` are the same everywhere. A flag that"
    ]
    lines += [
        "is on is turned off with `--no_…`, such as `--no_compile`. Every script has `--help` and `--version`.",
        "",
    ]
    for script in SCRIPTS:
        parser = parser_of(script)
        modes = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if modes:
            for mode, inner in modes[0].choices.items():
                lines += section(f"{script} {mode}", inner)
        else:
            lines += section(script, parser)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
