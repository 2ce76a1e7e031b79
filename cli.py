"""The command line that all scripts share: flags, error messages, exit codes, stopping on signals.

Not a command. `python train.py --help` shows what it does.
"""

import argparse
import dataclasses
import difflib
import errno
import io
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, override

from version import VERSION

EXIT_WORK_FAILED = 1
EXIT_WRONG_USE = 2
LARGEST_INT = 2**32 - 1  # the largest seed that all libraries accept
LARGEST_ZOOM = 24


class UserError(Exception):
    """Wrong use or unusable input: shown as one message without a traceback, exit code 2."""

    exit_code = EXIT_WRONG_USE


class WorkError(Exception):
    """The work failed (disk full, non-finite loss): shown as one message without a traceback, exit code 1."""

    exit_code = EXIT_WORK_FAILED


class StopRequested(Exception):
    """Raised after SIGINT or SIGTERM when everything is saved; the exit code is 128 + the signal."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


# --- flags -------------------------------------------------------------------------------------------------


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    return _number(text, int, "a whole number of at least 1", lambda value: 1 <= value <= LARGEST_INT)


def count_int(text: str) -> int:
    """Parse an integer of at least 0."""
    return _number(text, int, "a whole number of at least 0", lambda value: 0 <= value <= LARGEST_INT)


def zoom_level(text: str) -> int:
    """Parse a slippy-map zoom level. At the largest one a tile is less than three metres wide."""
    expected = f"a whole number from 0 to {LARGEST_ZOOM}"
    return _number(text, int, expected, lambda value: 0 <= value <= LARGEST_ZOOM)


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    return _number(text, float, "a number above 0", lambda value: value > 0)


def count_float(text: str) -> float:
    """Parse a finite number of at least 0."""
    return _number(text, float, "a number of at least 0", lambda value: value >= 0)


def fraction(text: str) -> float:
    """Parse a number from 0 (inclusive) to 1 (exclusive)."""
    return _number(text, float, "a number from 0 to just under 1", lambda value: 0 <= value < 1)


def lat_lon(text: str) -> tuple[float, float]:
    """Parse LAT,LON in degrees."""
    try:
        lat, lon = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given, LAT,LON in degrees expected, as 50.4501,30.5234") from None
    return lat, lon


def local_path(text: str) -> Path:
    """Parse the path of a file or folder of this machine; an address such as s3://… is refused."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is read from this machine only; copy it here first")
    return Path(text)


def _number(text: str, kind: type, expected: str, accepts: Callable[[Any], bool]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not (accepts(value) and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} given, {expected} expected")
    return value


def flag(default: Any, help: str, *, type: Callable | None = None, aliases: Iterable[str] = (), **options: Any) -> Any:
    """Declare a dataclass field that is also a command-line flag; `add_flags` reads it.

    A boolean becomes `--name` / `--no_name`; a list takes the type of its first element. `aliases` are earlier names of
    the flag: they keep working, and `--help` does not show them. `options` go to `add_argument` (choices, metavar,
    nargs).
    """
    metadata = {"help": help, "type": type, "aliases": tuple(aliases), "options": options}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def add_flags(parser: argparse.ArgumentParser, config: type, only: Iterable[str] | None = None) -> None:
    """Add one flag for each field of the dataclass `config` that `flag` declared, as a titled group."""
    title = (config.__doc__ or config.__name__).splitlines()[0].rstrip(".")
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(config):
        if field.metadata.get("help") and (only is None or field.name in only):
            _add_flag(group, field)


def _add_flag(group: Any, field: dataclasses.Field) -> None:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    text = field.metadata["help"].replace("%", "%%")  # argparse expands %-formats in help texts
    options = dict(field.metadata["options"], help=text, default=default)
    if isinstance(default, bool):
        options["action"] = _Switch
    else:
        example = next(iter(default), None) if isinstance(default, list) else default
        options["type"] = field.metadata["type"] or (str if example is None else type(example))
    group.add_argument(f"--{field.name.rstrip('_')}", dest=field.name, **options)  # `in_` is --in
    hidden = {"dest": field.name, "help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    for alias in field.metadata["aliases"]:
        group.add_argument(f"--{alias}", **(options | hidden))


class _Switch(argparse.BooleanOptionalAction):
    """`--name` / `--no_name`; the action of argparse would spell it `--no-name`."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any):
        super().__init__(option_strings, dest, **options)
        self.option_strings = [name.replace("--no-", "--no_") for name in self.option_strings]

    @override
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def read_flags(config: type, args: argparse.Namespace, **overrides: Any) -> Any:
    """Build the dataclass `config` from parsed arguments; fields without a flag keep their default."""
    names = {field.name for field in dataclasses.fields(config)}
    values = {name: value for name, value in vars(args).items() if name in names}
    return config(**(values | overrides))


def as_arguments(config: Any) -> list[str]:
    """The flags of a dataclass instance as a command line: `["--zoom", "17", "--no_tms"]`. Leaves out None."""
    arguments: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not field.metadata.get("help") or value is None:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{field.name}" if value else f"--no_{field.name}")
        else:
            arguments += [f"--{field.name.rstrip('_')}", *map(str, value if isinstance(value, list) else [value])]
    return arguments


@dataclasses.dataclass(frozen=True)
class TilesFlags:
    """Tiles."""

    tiles_root: Path = flag(Path("12_layer_tiles/tiles"), "folder that holds <layer>/<zoom>/<x>/<y>.png")
    zoom: int = flag(17, "slippy-map zoom level of the tiles", type=zoom_level)
    cache_dir: Path = flag(Path("cache"), "folder for packed tiles, vectors, projections and indices")
    tms: bool = flag(False, "y in the file names counts from the south, as in TMS")


@dataclasses.dataclass(frozen=True)
class ModelFlags:
    """Model."""

    model_path: Path = flag(
        Path("checkpoints/best_model.pth"),
        "checkpoint of train.py or folder of pretrained.py; without a file at the default path: the bundled encoder",
    )


@dataclasses.dataclass(frozen=True)
class VectorFlags:
    """Vectors without tiles."""

    vectors: Path | None = flag(
        None,
        "show the vectors that embed.py wrote, a dataset folder or a .parquet file, instead of tiles",
        type=local_path,
    )


@dataclasses.dataclass(frozen=True)
class DeviceFlags:
    """Device."""

    device: str = flag("auto", "where the network runs", choices=["auto", "cpu", "cuda", "mps"])
    seed: int = flag(42, "seed of everything random", type=count_int)


class Parser(argparse.ArgumentParser):
    """An argument parser that accepts `--max_tiles` and `--max-tiles` and suggests corrections of misspelled words.

    `doc` is the script's docstring: its first line becomes the description, the rest the examples after the flags.
    """

    def __init__(self, doc: str | None, **options: Any):
        summary, _, rest = (doc or "").partition("\n")
        super().__init__(
            description=summary,
            epilog=rest.strip() or None,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **options,
        )
        self.add_argument(
            "--version", action="version", version=f"Loc2Vec {VERSION}", help="print the version of Loc2Vec and exit"
        )

    @override
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}{self._hint(unknown[0], self._option_names())}")
        return parsed

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._one_spelling(args), namespace)

    @override
    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            message += self._hint(choice[1], [word.strip("' ") for word in choice[2].split(",")])
        command = f"{self.prog} --help"
        print(f"error: {message}\n  `{command}` lists every flag", file=sys.stderr)
        sys.exit(EXIT_WRONG_USE)

    def _option_names(self) -> list[str]:
        """Every flag that `--help` shows, those of sub-commands included."""
        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        parsers = [self, *(parser for choices in commands for parser in choices.values())]
        actions = [action for parser in parsers for action in parser._actions if action.help != argparse.SUPPRESS]
        return [name for action in actions for name in action.option_strings if name.startswith("--")]

    def _one_spelling(self, args: list[str]) -> list[str]:
        """Spell flags with underscores; join a value such as -123.3,49.2 to its flag, since it looks like a flag."""
        result: list[str] = []
        for arg in args:
            name, equals, value = arg.partition("=")
            underscored = "--" + name[2:].replace("-", "_")
            if name.startswith("--") and underscored in self._option_string_actions:
                arg = underscored + equals + value
            if result and result[-1] in self._option_string_actions and re.match(r"-[\d.]", arg):
                arg = f"{result.pop()}={arg}"
            result.append(arg)
        return result

    @staticmethod
    def _hint(word: str, candidates: list[str]) -> str:
        bare = {name.removeprefix("--"): name for name in candidates}  # the dashes would make all flags look similar
        typed = word.split("=")[0].removeprefix("--")
        close = [name for way in (typed.replace("-", "_"), typed) for name in difflib.get_close_matches(way, bare, n=1)]
        return f"; did you mean {bare[close[0]]!r}?" if close else ""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults as they are typed and keeps the line breaks of the examples."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None:
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


# --- running -----------------------------------------------------------------------------------------------


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit; a user's mistake ends in one message, never in a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not know all letters of a file name
    try:
        code = main() or 0
        sys.stdout.flush()
    except (UserError, WorkError) as error:
        code = _complain(str(error), error.exit_code)
    except StopRequested as stop:
        code = stop.exit_code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_WORK_FAILED
    except MemoryError as error:
        code = _complain(f"not enough memory: {error or 'close other programs'}", EXIT_WORK_FAILED)
    except OSError as error:
        code = _complain(explain_os_error(error), EXIT_WORK_FAILED)
    sys.exit(code)


def explain_os_error(error: OSError) -> str:
    """One sentence for an operating-system error that a user can fix; other errors are raised again."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{where}; finished files are complete: free some space, then run again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}{where}; change its permissions or name another path"
    if error.errno in (errno.EFBIG, errno.EIO, errno.EMFILE, errno.ESTALE):
        return f"{error.strerror}{where}; finished files are complete: name a path on another disk, then run again"
    if error.filename and error.errno is not None:
        return f"{error.strerror}{where}; name another path"
    raise error


def _complain(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


class StopSignal:
    """Context in which the first SIGINT or SIGTERM only sets `requested`; a second one quits at once.

    The loop inside checks `requested` after each step, saves, and calls `raise_if_requested`. Outside the main thread,
    the only one that receives signals, the context does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signum is not None

    def raise_if_requested(self) -> None:
        """Raise `StopRequested` if a signal has arrived."""
        if self.signum is not None:
            raise StopRequested(self.signum)

    def _handle(self, signum: int, _frame: object) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        os.write(2, b"\nstopping after this step (once more to quit at once)\n")
