"""The live explorer: a city's embedding space beside its map, similarity search, any place, two checkpoints.

streamlit run streamlit_app.py
streamlit run streamlit_app.py -- --model_path checkpoints/best_model.pth --tiles_root 12_layer_tiles/tiles
streamlit run streamlit_app.py -- --vectors COUNTRY/
python run_interactive_viz.py streamlit
"""

import contextlib
import time
from typing import NoReturn, override

import streamlit as st

from app_address import URL, remember_picks
from app_city import checkpoint_digest
from app_compare import compare_page
from app_controls import AppFlags, choose_source, choose_vectors, source_at_first, view_at_first
from app_first_view import code_digest
from app_jobs import show_error
from app_projector import Frame, projector_page, show_known_city
from app_search import search_page
from app_vectors import vectors_page
from app_view import load_explorer
from cli import DeviceFlags, ModelFlags, Parser, TilesFlags, UserError, VectorFlags, WorkError, add_flags, read_flags
from front_end import WEB

PROJECTOR = "Embedding projector"
OTHER_PAGES = {"Similarity Search (Annoy)": search_page, "Compare checkpoints": compare_page}
# For so long the browser only fetches and draws the first view. What draws the sidebar comes later.
FIRST_VIEW_S, FIRST_VIEW_S_PER_MB = 0.3, 0.25


def main() -> None:
    """Read the flags, let the sidebar choose what is open and how, and draw that page.

    A new visitor sees a city that was open before at once: its dots and its map come before the sidebar.
    """
    st.set_page_config("Loc2Vec explorer", page_icon=str(WEB / "icon.svg"), layout="wide")
    st.html(WEB / "live_app.css")
    load_explorer()
    remember_picks()
    st.sidebar.title("Loc2Vec")  # so that the view does not move when the rest of the sidebar comes
    frame = Frame(st.container(), st.container())
    try:
        tiles, model, device, app, vectors = read_app_flags()
        first = None
        nothing_chosen = st.query_params.to_dict() in ({}, {"mode": PROJECTOR})
        if nothing_chosen and vectors.vectors is None:
            first = show_known_city(source_at_first(tiles, model, device, app), view_at_first(), frame)
            if first is not None:
                time.sleep(FIRST_VIEW_S + FIRST_VIEW_S_PER_MB * len(first.payload) / 1e6)
        modes = st.sidebar.container()
        shown = choose_vectors(vectors, tiles, device, app)
        if shown is not None:
            vectors_page(shown)
            return
        pages = [PROJECTOR, *OTHER_PAGES]
        mode = modes.radio("Mode", pages, key="mode", bind=URL, label_visibility="collapsed")
        source = choose_source(tiles, model, device, app)
        if mode == PROJECTOR:
            projector_page(source, frame, first)
        else:
            OTHER_PAGES[mode](source)
    except (UserError, WorkError, OSError) as error:
        show_error(error)


def prepare(flags: list[str]) -> None:
    """Do before the server answers what the first visitor would wait for. Wrong flags are left to the page."""
    with contextlib.suppress(UserError, OSError):
        _, model, *_ = read_app_flags(flags)
        code_digest()
        checkpoint_digest(model.model_path)


def read_app_flags(
    flags: list[str] | None = None,
) -> tuple[TilesFlags, ModelFlags, DeviceFlags, AppFlags, VectorFlags]:
    """The flags after `--` of `streamlit run streamlit_app.py -- --model_path …`."""

    class AppParser(Parser):
        @override
        def error(self, message: str) -> NoReturn:
            raise UserError(f"{message}. `python streamlit_app.py --help` lists every flag")

    parser = AppParser(__doc__)
    groups = (TilesFlags, ModelFlags, DeviceFlags, AppFlags, VectorFlags)
    for group in groups:
        add_flags(parser, group)
    args = parser.parse_args(flags)
    return tuple(read_flags(group, args) for group in groups)


if __name__ == "__main__":
    main()
