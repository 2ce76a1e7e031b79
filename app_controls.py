"""Sidebar controls that several pages of the live app share: what to open, and how to draw the embedding.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import dataclasses
from pathlib import Path
from typing import Any

import streamlit as st

import colourings
import projections
from app_address import URL
from app_city import Source, VectorSource, View, find_checkpoints, find_tiles, find_vectors
from cli import DeviceFlags, ModelFlags, TilesFlags, VectorFlags, flag, positive_int
from projections import ALGORITHMS, DEFAULT_SETTINGS
from vector_city import OVERVIEW

TILES = "Tiles"  # instead of vectors without tiles


@dataclasses.dataclass(frozen=True)
class AppFlags:
    """App."""

    max_tiles: int | None = flag(None, "show at most this many tiles, spread evenly (default: all)", type=positive_int)


def source_at_first(tiles: TilesFlags, model: ModelFlags, device: DeviceFlags, app: AppFlags) -> Source:
    """What `choose_source` gives a visitor who has not chosen anything yet."""
    return Source(tiles, model.model_path, app.max_tiles, device)


def choose_source(tiles: TilesFlags, model: ModelFlags, device: DeviceFlags, app: AppFlags) -> Source:
    """The checkpoint and the tiles to open."""
    with st.sidebar.expander("Data", expanded=True):
        model_path = choose_path("Checkpoint", "model", find_checkpoints(model.model_path))
        tiles_root = choose_path("Tiles", "tiles", find_tiles(tiles.tiles_root))
        limit = st.number_input(
            "Maximum number of tiles",
            min_value=0,
            value=app.max_tiles or 0,
            step=1000,
            key="max_tiles",
            bind=URL,
            help="Tiles are sampled evenly over the city. 0 shows every tile that is not blank.",
        )
    return Source(dataclasses.replace(tiles, tiles_root=tiles_root), model_path, int(limit) or None, device)


def choose_vectors(flags: VectorFlags, tiles: TilesFlags, device: DeviceFlags, app: AppFlags) -> VectorSource | None:
    """The dataset or file of vectors to show; None to show tiles."""
    first = [] if flags.vectors is None else [str(flags.vectors)]
    options = list(dict.fromkeys([*first, TILES, *find_vectors()]))
    typed = st.session_state.get("vectors") or st.query_params.get("vectors")
    if typed and typed not in options:
        options.append(typed)
    help_text = "Tiles with a checkpoint, or a folder or .parquet file that embed.py wrote: type its path, press Enter."
    chosen = st.sidebar.selectbox("Show", options, key="vectors", bind=URL, accept_new_options=True, help=help_text)
    if chosen in (None, TILES):
        return None
    count = st.sidebar.number_input(
        "Tiles in the overview", 1, 100_000, min(app.max_tiles or OVERVIEW, 100_000), 1000, key="overview", bind=URL,
        help="They stand for the whole area. Where the map is zoomed in, every tile is loaded.",
    )  # fmt: skip
    return VectorSource(Path(chosen), tiles, device, int(count))


def choose_path(label: str, key: str, options: list[str]) -> Path:
    """One of `options`, or another path that is typed in or comes with the address."""
    typed = st.session_state.get(key) or st.query_params.get(key)
    options = list(dict.fromkeys([*options, *([typed] if typed else [])]))
    help_text = "Choose from the list, or type another path and press Enter."
    chosen = st.selectbox(label, options, key=key, bind=URL, accept_new_options=True, help=help_text)
    return Path(chosen or options[0])


def view_at_first() -> View:
    """What `choose_view` gives a visitor who has not chosen anything yet."""
    return View("PCA", 2, dict(DEFAULT_SETTINGS["PCA"]), next(iter(colourings.labels())))


def choose_view(where: Any = st.sidebar) -> View:
    """Algorithm with its main parameters, 2-D or 3-D, and colours."""
    with where:
        algorithm = st.segmented_control(
            "Algorithm",
            ALGORITHMS,
            default="PCA",
            key="algorithm",
            bind=URL,
            format_func=projections.TITLES.__getitem__,
            required=True,
        )
        dimensions = st.segmented_control(
            "Dimensions", [2, 3], default=2, key="dimensions", bind=URL, format_func=lambda d: f"{d}-D", required=True
        )
        labels = colourings.labels()
        colouring = st.selectbox("Colour by", list(labels), key="colour", bind=URL, format_func=labels.__getitem__)
        return View(algorithm, dimensions, choose_settings(algorithm), colouring)


def choose_settings(algorithm: str) -> dict:
    """The main parameters of the algorithm, as sliders."""
    settings = dict(DEFAULT_SETTINGS[algorithm])
    if algorithm == "TSNE":
        settings["perplexity"] = st.slider(
            "Perplexity",
            5.0,
            100.0,
            float(settings["perplexity"]),
            5.0,
            key="perplexity",
            bind=URL,
            help="Roughly the number of neighbours that each point keeps close",
        )
    if algorithm == "UMAP":
        settings["n_neighbors"] = st.slider(
            "Neighbours",
            2,
            100,
            int(settings["n_neighbors"]),
            key="n_neighbors",
            bind=URL,
            help="Few neighbours show fine structure, many show the overall shape",
        )
        settings["min_dist"] = st.slider(
            "Minimum distance",
            0.0,
            0.99,
            float(settings["min_dist"]),
            0.05,
            key="min_dist",
            bind=URL,
            help="How close together points may lie: smaller values give tighter clusters",
        )
    return settings
