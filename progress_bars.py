"""Progress bars and warnings on stderr, which a viewer can also receive.

Not a command.
"""

import contextlib
import contextvars
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import override

from tqdm import tqdm


def note(message: str) -> None:
    """Print a line on stderr that says what is done; it breaks no progress bar."""
    tqdm.write(message, file=sys.stderr)


def warn(message: str) -> None:
    """Print a message on stderr that the user should know; the work goes on."""
    note(f"warning: {message}")
    if (heard := _warned.get()) is not None:
        heard.append(message)


def progress(items: Iterable | None = None, *, total: int | None = None, desc: str = "", unit: str = "it") -> tqdm:
    """A progress bar on stderr that shows only when the work takes more than a second."""
    options = {
        "disable": _silent.get(),
        "delay": 1,
        "mininterval": 0.2 if sys.stderr.isatty() else 1.5,
        "dynamic_ncols": True,
    }
    return _Bar(items, total=total, desc=desc, unit=unit, file=sys.stderr, **options)


ProgressListener = Callable[[str, int, int | None], None]
_listener: contextvars.ContextVar[ProgressListener | None] = contextvars.ContextVar("progress_listener", default=None)
TELL_EVERY_S = 0.05  # a listener that was told of each of a million items would take most of the time
_silent: contextvars.ContextVar[bool] = contextvars.ContextVar("silent", default=False)
_warned: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("warned", default=None)


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Context in which this thread shows no progress bars and tells no listener."""
    tokens = _silent.set(True), _listener.set(None)
    try:
        yield
    finally:
        _silent.reset(tokens[0])
        _listener.reset(tokens[1])


@contextlib.contextmanager
def progress_listener(listener: ProgressListener) -> Iterator[list[str]]:
    """Context in which every progress bar of this thread also calls `listener(desc, done, total)`.

    An exception from the listener stops the work that updates the bar, so a viewer can also cancel it. Yields a list
    to which `warn` appends its messages, for a viewer whose user does not see stderr.
    """
    warnings: list[str] = []
    tokens = _listener.set(listener), _warned.set(warnings)
    try:
        yield warnings
    finally:
        _listener.reset(tokens[0])
        _warned.reset(tokens[1])


class _Bar(tqdm):
    """A bar that also calls the listener, if there is one."""

    @override
    def __iter__(self) -> Iterator:
        if _listener.get() is None:
            yield from super().__iter__()
            return
        with self:
            done, told = 0, time.monotonic()
            for item in self.iterable:
                yield item
                done += 1
                if time.monotonic() - told > TELL_EVERY_S:
                    self.update(done)
                    done, told = 0, time.monotonic()
            if done:
                self.update(done)

    @override
    def moveto(self, n: int) -> None:
        if self.fp.isatty():  # no cursor movements in a log
            super().moveto(n)

    @override
    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        listener = _listener.get()
        if listener is not None:
            listener(self.desc.removesuffix(": "), int(self.n), self.total)
        return shown
