"""Embeddings in another order of landmarks than they were made in."""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.schemes import SCHEMES, Scheme

BETWEEN_SCHEMES_MM = 2.0
"""How far a point of iBUG-68 lies from the MediaPipe point of the same meaning: an assumption."""


def for_scheme(embedding: LandmarkEmbedding, scheme: str, head: HeadModel) -> LandmarkEmbedding:
    """The embedding in a detector's order, by the points of iBUG-68 that both have, and the pupils.

    Points that the embedding does not have are invalid. Pupils go to those on their sides. What one detector calls a
    point is not quite where another does: `BETWEEN_SCHEMES_MM` is added to the spread of points that were calibrated in
    the other order; those of iBUG's own orders were placed by hand, and their spread says so.
    """
    if embedding.scheme == scheme:
        return embedding
    old, new = SCHEMES.get(embedding.scheme), SCHEMES.get(scheme)
    if old is None or new is None or not new.of_detectors:
        raise InputError(f"--landmark-embedding: {embedding.scheme} points do not serve a detector of {scheme} points.")
    source, target = old.ibug68, new.ibug68
    if old.pupils is not None and new.pupils is not None:
        right, left = new.pupils
        places = embedding.points(head.v_template[None], head.faces)[0, list(old.pupils), 0]
        source = np.append(source, old.pupils)
        target = np.append(target, [left if float(x) > 0 else right for x in places])
    out = _rearranged(embedding, new, source, target)
    by_hand = np.array_equal(old.ibug68, np.arange(68))
    return out if by_hand else replace(out, spread_mm=np.hypot(out.spread_mm, BETWEEN_SCHEMES_MM))


def _rearranged(embedding: LandmarkEmbedding, scheme: Scheme, source: ndarray, target: ndarray) -> LandmarkEmbedding:
    count = scheme.n_points
    face_index, barycentric = np.full(count, -1), np.zeros((count, 3))
    face_index[target], barycentric[target] = embedding.face_index[source], embedding.barycentric[source]
    spread, views = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    spread[target], views[target] = embedding.spread_mm[source], embedding.n_views[source]
    return replace(
        embedding,
        face_index=face_index,
        barycentric=barycentric,
        spread_mm=spread,
        n_views=views,
        scheme=scheme.name,
        residual_mm=None,  # of another detector
        picture_mm=None,
        picture_yaw=None,
    )
