"""The Python interface: an encoder, a city read from its extract, and a transformer for scikit-learn.

Not a command. `from embeddings import LocationEncoder` and `python embed.py --help` are the two ways to use it.
"""

import functools
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import geopandas
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from area_vectors import area_means, h3_cells
from checkpoint import Checkpoint
from cli import UserError
from exports import tile_frame
from files import digest, file_digest
from inference import Embedder
from layers import LAYERS
from pretrained import PRETRAINED, load_model, load_pretrained
from reasons import layer_contributions, place_contributions, place_parts
from render_tiles import parse_box
from similarity import map_link, open_search, similar_places
from streaming import FEW_PLACES, PRELOAD, DrawnCity, embed_city, embed_places, open_drawing
from tile_grid import Box, area_bounds, tile_of_latlon
from tile_images import city_map
from tile_workers import start_workers
from user_tables import Places, add_columns, find_places, find_polygons, number_columns, rows_on_tiles

REASONS, LEAST_REASON = 4, 0.005  # parts named for each similar place, and what they add at least


class LocationEncoder:
    """A trained encoder. `read` applies it to a city."""

    def __init__(self, checkpoint: Checkpoint, device: str = "auto"):
        self.checkpoint, self.device = checkpoint, device

    @classmethod
    def pretrained(cls, device: str = "auto") -> Self:
        """The bundled encoder. Raises `UserError` if it is missing or damaged."""
        return cls(load_pretrained(PRETRAINED), device)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Self:
        """The encoder of a checkpoint, or of a folder that `pretrained.py` wrote."""
        return cls(load_model(path), device)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.checkpoint.encoder_config["embedding_dim"]

    def read(self, extract: Path | str, bbox: Box | str | None = None, *, jobs: int | None = None) -> "EncodedCity":
        """Read an OpenStreetMap extract, draw its tiles and embed them.

        `bbox` is west, south, east, north in degrees; the default is everything in the extract. `jobs` is the number
        of processes that draw, by default one for each core. Raises `UserError` for an extract that cannot be read.
        """
        extract, jobs = Path(extract), jobs or os.cpu_count() or 1
        if not extract.is_file():
            raise UserError(f"no extract at {extract}; name an .osm.pbf file")
        text = bbox if isinstance(bbox, str) or bbox is None else ",".join(map(str, bbox))
        folder = tempfile.TemporaryDirectory(prefix="loc2vec-")
        with start_workers(jobs, PRELOAD) as pool:
            box = parse_box(text) if text else None
            drawing = open_drawing(extract, box, self.checkpoint.zoom, Path(folder.name))
            city = embed_city(drawing, self.checkpoint, pool, jobs, device=self.device)
        return EncodedCity(city, folder, jobs)


class EncodedCity:
    """A city that an encoder has read: vectors for its tiles, for any place on them, and for areas."""

    def __init__(self, city: DrawnCity, folder: tempfile.TemporaryDirectory, jobs: int):
        self.city, self.jobs = city, jobs
        self._folder = folder  # holds the index from which places are drawn; removed with this object
        self._known: dict[tuple[float, float], np.ndarray] = {}

    @property
    def box(self) -> Box:
        """West, south, east, north of the tiles in degrees."""
        return area_bounds(self.city.store.tile_xy, self.city.store.zoom)

    @cached_property
    def tiles(self) -> geopandas.GeoDataFrame:
        """The tiles: number, centre, facts, outline, and `embedding`, a list of numbers."""
        embeddings = self.city.embeddings
        return tile_frame(embeddings).assign(embedding=list(embeddings.vectors))

    def embed(self, lat: Any, lon: Any) -> np.ndarray:
        """The vectors `(n, D) float32` of places given by latitude and longitude in degrees, numbers or arrays `(n,)`.

        Each is that of the window around the place. A place outside the map gives NaN. Raises `UserError` if all are.
        """
        lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
        frame = pd.DataFrame({"lat": lat, "lon": lon})
        return self._embed(find_places(frame, "the places"))

    def embed_frame(
        self, frame: pd.DataFrame, *, lat: str | None = None, lon: str | None = None, crs: str | None = None
    ) -> pd.DataFrame:
        """A copy of `frame` with the columns e0, e1, …: the vector of each row's place, NaN outside the map.

        A GeoDataFrame stays one; its points, or the centroids of other geometries, count. Otherwise the coordinate
        columns are recognised, or named by `lat` and `lon`. `crs` replaces the coordinate system.
        """
        vectors = self._embed(find_places(frame, lat=lat, lon=lon, crs=crs))
        return add_columns(frame, number_columns(vectors))

    def embed_areas(self, polygons: pd.DataFrame, *, crs: str | None = None) -> geopandas.GeoDataFrame:
        """A copy of `polygons` in degrees with `tiles`, `share_covered` and the mean vector e0, e1, … of each area."""
        frame = find_polygons(polygons, crs=crs)
        found = area_means(frame.geometry.to_numpy(), self.city.embeddings)
        return add_columns(frame, found.facts | number_columns(found.vectors))

    def embed_h3(self, resolution: int) -> geopandas.GeoDataFrame:
        """The H3 cells of a resolution from 0 to 15 that share ground with the tiles, in degrees.

        Columns: `h3`, and those of `embed_areas`. Raises `UserError` for a resolution with millions of cells.
        """
        frame = self.embed_areas(h3_cells(self.city.store.tile_xy, self.city.store.zoom, resolution))
        return frame[frame["tiles"] > 0].reset_index(drop=True)

    def picture(self, px_per_tile: int = 16) -> Image.Image:
        """The map as the encoder sees it, drawn from the tiles; it fills `box`."""
        return city_map(self.city.pictures, px_per_tile)[0]

    def similar(self, lat: float, lon: float, k: int = 10, min_km: float = 0.0) -> pd.DataFrame:
        """The `k` tiles most like a place and at least `min_km` kilometres away from it, nearest first.

        Columns: tile `x` and `y`, `lat` and `lon` of its centre, cosine `distance`, `km`, the most prominent `layer`,
        `reasons` (the parts that add most to the similarity to the place's tile), and a `link` to openstreetmap.org.
        """
        city, embeddings, zoom = self.city, self.city.embeddings, self.city.store.zoom
        place = np.array([lat, lon], dtype=np.float64)
        vector = city.embedder.embed_places(place)
        own = int(embeddings.rows(np.floor(tile_of_latlon(place[0], place[1], zoom)).astype(np.int64)))
        search, allowed = open_search(embeddings.vectors, metric="dot", exact=True), ~embeddings.blank
        allowed[own] = False
        answer = similar_places(search, vector, k, embeddings.latlon, place, min_km=min_km, allowed=allowed)
        found = answer.rows
        reasons = [_reason_text(city.embedder, own, row) for row in found]
        centre = embeddings.latlon[found]
        return pd.DataFrame(
            {
                "x": embeddings.tile_xy[found, 0],
                "y": embeddings.tile_xy[found, 1],
                "lat": centre[:, 0],
                "lon": centre[:, 1],
                "distance": answer.distances,
                "km": answer.km,
                "layer": np.array(LAYERS)[embeddings.dominant_layer[found]],
                "reasons": reasons,
                "link": [map_link(a, b, zoom) for a, b in centre],
            }
        )

    def _embed(self, places: Places, *, none_is_error: bool = True) -> np.ndarray:
        """Vectors of places, NaN outside the map; those that were asked for before are remembered."""
        store = self.city.store
        known, _ = rows_on_tiles(places, store.grid, store.zoom, none_is_error=none_is_error)
        keys = list(zip(places.lat[known].tolist(), places.lon[known].tolist(), strict=True))
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if len(new) > FEW_PLACES and self.jobs > 1:
            with start_workers(self.jobs, PRELOAD) as pool:
                found = embed_places(self.city, np.array(new), pool, self.jobs)
        else:
            found = self.city.embedder.embed_places(np.array(new).reshape(-1, 2))
        self._known |= dict(zip(new, found, strict=True))
        vectors = np.full((len(places), self.city.embedder.dimension), np.nan, dtype=np.float32)
        if keys:
            vectors[known] = np.stack([self._known[key] for key in keys])
        return vectors


def _reason_text(embedder: Embedder, own: int, other: int) -> str:
    """The parts of two tiles that add most to their similarity, and by how much."""
    names, parts = list(LAYERS), [layer_contributions(embedder, own, other)]
    if place_parts(embedder):
        names += place_parts(embedder)
        parts.append(place_contributions(embedder, own, other))
    added = np.concatenate(parts)
    best = [i for i in np.argsort(-added, kind="stable")[:REASONS] if added[i] >= LEAST_REASON]
    return ", ".join(f"{names[i]} +{added[i]:.2f}" for i in best)


# --- scikit-learn ------------------------------------------------------------------------------------------


class LocationEmbedder(TransformerMixin, BaseEstimator):
    """A transformer that turns places into vectors: `make_pipeline(LocationEmbedder("CITY.osm.pbf"), Ridge())`.

    It takes a frame with coordinate columns, a GeoDataFrame, or an array `(n, 2)` of latitude and longitude in degrees.
    There is nothing to fit: the encoder is trained already. The city is read once per process, however many clones
    there are, and vectors are remembered.

    `extract` is an OpenStreetMap extract; `model` a checkpoint, by default the bundled encoder; `bbox` as in
    `LocationEncoder.read`; `lat` and `lon` name the columns, `crs` their coordinate system. `outside` says what becomes
    of a place off the map: "error" raises `ValueError`, "nan" gives NaN.
    """

    def __init__(
        self,
        extract: Path | str = "CITY.osm.pbf",
        *,
        model: Path | str | None = None,
        bbox: Box | str | None = None,
        lat: str | None = None,
        lon: str | None = None,
        crs: str | None = None,
        outside: str = "error",
        jobs: int | None = None,
        device: str = "auto",
    ):
        self.extract, self.model, self.bbox = extract, model, bbox
        self.lat, self.lon, self.crs = lat, lon, crs
        self.outside, self.jobs, self.device = outside, jobs, device

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Check the places and read the city."""
        if self.outside not in ("error", "nan"):
            raise ValueError(f"outside={self.outside!r}; expected 'error' or 'nan'")
        self._places(X)
        self.n_features_in_ = np.shape(X)[1]
        if isinstance(X, pd.DataFrame) and all(isinstance(name, str) for name in X.columns):
            self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.dimension_ = self._city().city.embedder.dimension
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The vectors `(n, D) float32` of places."""
        check_is_fitted(self)
        city, places = self._city(), self._places(X)
        try:
            vectors = city._embed(places, none_is_error=self.outside == "error")
        except UserError as error:  # not one place is on the map; it says why
            raise ValueError(str(error)) from None
        lost = int(np.isnan(vectors).any(axis=1).sum())
        if lost and self.outside == "error":
            raise ValueError(f"{lost:,} of {len(vectors):,} places are not on the map; drop them, or use outside='nan'")
        return vectors

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002
        """Names of the numbers: e0, e1, …"""
        check_is_fitted(self)
        return np.array([f"e{i}" for i in range(self.dimension_)], dtype=object)

    def _places(self, X: Any) -> Places:
        if isinstance(X, pd.DataFrame):
            return find_places(X, "X", lat=self.lat, lon=self.lon, crs=self.crs)
        values = np.asarray(X, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != 2:
            raise ValueError(f"X has shape {values.shape}; expected (n, 2): latitude and longitude, or a frame")
        return find_places(pd.DataFrame(values, columns=["lat", "lon"]), "X", crs=self.crs)

    def _city(self) -> EncodedCity:
        extract = Path(self.extract).resolve()
        if not extract.is_file():
            raise UserError(f"no extract at {self.extract}; name an .osm.pbf file")
        model = None if self.model is None else str(Path(self.model).resolve())
        bbox = self.bbox if self.bbox is None or isinstance(self.bbox, str) else tuple(self.bbox)
        return _open_city(str(extract), _content(extract), model, _content(model), bbox, self.jobs, self.device)


def _content(path: Path | str | None) -> str:
    """A digest of a file, or of the files of a folder; "" if there is nothing at `path`."""
    files = [] if path is None else [Path(path), *sorted(Path(path).glob("*"))]
    return digest(*(file_digest(file) for file in files if file.is_file()))


@functools.lru_cache(maxsize=2)
def _open_city(
    extract: str,
    _extract_content: str,
    model: str | None,
    _model_content: str,
    bbox: Any,
    jobs: int | None,
    device: str,
) -> EncodedCity:
    """The city that all estimators with these settings share in this process."""
    encoder = LocationEncoder.pretrained(device) if model is None else LocationEncoder.load(model, device)
    return encoder.read(extract, bbox, jobs=jobs)
