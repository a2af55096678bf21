"""Embeddings in another order of landmarks than they were made in."""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.ibug68 import IBUG68_FROM_MEDIAPIPE
from flame_fitting.landmarks.mediapipe_topology import LEFT_IRIS, RIGHT_IRIS

BETWEEN_SCHEMES_MM = 2.0
"""How far a point of iBUG-68 lies from the MediaPipe point of the same meaning: an assumption."""


def for_scheme(embedding: LandmarkEmbedding, scheme: str, head: HeadModel) -> LandmarkEmbedding:
    """The embedding in a detector's order: iBUG's points as a subset of MediaPipe's, and the other way round.

    Points that the embedding does not have are invalid. Pupils become the centres of the irises on their sides. What
    one detector calls a point is not quite where another does: `BETWEEN_SCHEMES_MM` is added to the spread of points
    that were calibrated in the other order.
    """
    if embedding.scheme == scheme:
        return embedding
    if scheme == "mediapipe478":
        target = [*IBUG68_FROM_MEDIAPIPE]
        if embedding.scheme == "ibug70":
            pupils = embedding.points(head.v_template[None], head.faces)[0, 68:, 0]
            target += [LEFT_IRIS[0] if float(x) > 0 else RIGHT_IRIS[0] for x in pupils]
        return _rearranged(embedding, scheme, np.arange(len(target)), np.array(target), 478)
    if scheme == "ibug68":
        if embedding.scheme != "mediapipe478":
            return _rearranged(embedding, scheme, np.arange(68), np.arange(68), 68)
        out = _rearranged(embedding, scheme, IBUG68_FROM_MEDIAPIPE, np.arange(68), 68)
        return replace(out, spread_mm=np.hypot(out.spread_mm, BETWEEN_SCHEMES_MM))
    raise InputError(f"--landmark-embedding: {embedding.scheme} points do not serve a detector of {scheme} points.")


def _rearranged(
    embedding: LandmarkEmbedding, scheme: str, source: ndarray, target: ndarray, count: int
) -> LandmarkEmbedding:
    face_index, barycentric = np.full(count, -1), np.zeros((count, 3))
    face_index[target], barycentric[target] = embedding.face_index[source], embedding.barycentric[source]
    spread, views = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    spread[target], views[target] = embedding.spread_mm[source], embedding.n_views[source]
    return replace(
        embedding, face_index=face_index, barycentric=barycentric, spread_mm=spread, n_views=views, scheme=scheme
    )
