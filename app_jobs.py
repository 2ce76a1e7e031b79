"""Work of the live app that takes a while: one background thread, shared by all sessions, with progress and cancel.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import streamlit as st

from app_address import rerun_page
from cli import UserError, WorkError, explain_os_error
from progress_bars import progress_listener

PROGRESS_S = 1  # seconds between two updates of a progress bar; each update takes time from the work itself
GONE_S = 180  # without an update, after which a session no longer counts; a hidden page updates once a minute


class Cancelled(Exception):
    """Raised inside the work once somebody cancelled it and no session waits for it."""


class NotReady(Exception):
    """A result is not cached, and computing it takes a while. `str()` names the first step."""


class Job:
    """One piece of background work: its progress, and the sessions that wait for it."""

    def __init__(self, title: str, pool: ThreadPoolExecutor, work: Callable[[], Any], session: str):
        self.title, self.step, self.share = title, "waiting for its turn", 0.0
        self.waiting = {session: time.monotonic()}  # when each session was last seen
        self.cancelled = False  # by some session; nobody has to watch work that goes on
        self.warnings: list[str] = []
        self.future: Future = pool.submit(self._run, work)

    def _run(self, work: Callable[[], Any]) -> None:
        with progress_listener(self._on_progress) as self.warnings:
            self.step = "starting"
            work()

    def _on_progress(self, step: str, done: float, total: float | None) -> None:
        if self.is_abandoned():
            raise Cancelled
        self.step, self.share = step, min(1.0, done / total) if total else 0.0

    def is_abandoned(self) -> bool:
        """Whether a session cancelled the job and no other one still waits for it."""
        now = time.monotonic()
        return self.cancelled and all(now - seen > GONE_S for seen in list(self.waiting.values()))


class Jobs:
    """All background work of this server, one job at a time. Sessions that need the same result share its job."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="work")
        self._by_key: dict[str, Job] = {}
        self._lock = threading.Lock()

    def join(self, key: str, title: str, work: Callable[[], Any], session: str) -> Job:
        """The job `key`, started if no session did so before; `session` waits for it from now on."""
        with self._lock:
            if not self.pending(key):
                self._by_key[key] = Job(title, self._pool, work, session)
            self._by_key[key].waiting[session] = time.monotonic()
            return self._by_key[key]

    def leave(self, key: str, session: str) -> None:
        """`session` cancels the job; it ends when no other session waits for it."""
        with self._lock:
            job = self._by_key.get(key)
            if job is not None:
                job.waiting.pop(session, None)
                job.cancelled = True
                if job.is_abandoned():
                    job.future.cancel()
                    del self._by_key[key]

    def pending(self, key: str) -> bool:
        """Whether the job `key` is queued or running."""
        job = self._by_key.get(key)
        return job is not None and not job.future.done()

    def error_of(self, key: str) -> BaseException | None:
        """The exception that ended the job `key`, kept until the job is started again."""
        job = self._by_key.get(key)
        error = job.future.exception() if job and job.future.done() and not job.future.cancelled() else None
        return None if isinstance(error, Cancelled) else error


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The one `Jobs` of this server."""
    return Jobs()


def session_id() -> str:
    """An identifier of this browser session."""
    return st.session_state.setdefault("session", uuid.uuid4().hex)


def run_job(place: Any, key: str, title: str, work: Callable[[], Any], offer: str | None = None) -> None:
    """Show the job `key` in `place`: a start button, progress with a cancel button, or the error that ended it.

    Without an `offer`, a text that explains what the button starts, the job starts at once unless this session
    cancelled it before. The page reruns when the job is done. `place` must be a container that every run of the page
    creates at the same point: otherwise the browser cannot match it with the previous run.
    """

    def start() -> Any:
        st.session_state.pop(f"cancelled {key}", None)
        return jobs().join(key, title, work, session_id())

    cancelled = f"cancelled {key}" in st.session_state
    with place:
        if cancelled or not jobs().pending(key):
            if error := jobs().error_of(key):
                show_error(error)
                st.button("Try again", key=f"start {key}", on_click=start)
                return
            if offer or cancelled:
                if offer:
                    st.info(offer, icon=":material/hourglass_empty:")
                st.button(title, key=f"start {key}", type="primary", on_click=start)
                return
        st.fragment(_show_progress, run_every=PROGRESS_S)(key, start())


def _show_progress(key: str, job: Job) -> None:
    if job.future.done():
        st.session_state["warnings"] = job.warnings
        rerun_page()
    job.waiting[session_id()] = time.monotonic()
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    left.progress(job.share, text=f"{job.title}: {job.step}, {job.share:.0%}")
    if right.button("Cancel", key=f"cancel {key}", width="stretch"):
        jobs().leave(key, session_id())
        st.session_state[f"cancelled {key}"] = True
        rerun_page()


# --- what the user reads -----------------------------------------------------------------------------------


def show_error(error: BaseException) -> None:
    """Show an error that the user can fix; raise any other, since it is a defect of the program."""
    if isinstance(error, OSError):
        error = WorkError(explain_os_error(error))
    if not isinstance(error, UserError | WorkError):
        raise error
    st.error(escape_message(str(error)), icon=":material/error:")


def show_warnings() -> None:
    """Show, once, the warnings of the last job of this session."""
    for warning in st.session_state.pop("warnings", []):
        st.warning(escape_message(warning), icon=":material/warning:")


def escape(text: str) -> str:
    """`text` as Markdown that shows it unchanged: a path may hold `*`, `_`, `$` or `[`, which would count as markup."""
    return re.sub(r"[\\`*_\[\]$~<&]|:(?=\w)", r"\\\g<0>", text)


def escape_message(text: str) -> str:
    """As `escape`, but commands between backticks stay code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return escape(text)
    parts[::2] = map(escape, parts[::2])
    return "`".join(parts)
