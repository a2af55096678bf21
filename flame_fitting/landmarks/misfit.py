"""How far each detector's points lie from any face that a head model can make, on the very capture.

A detector that agrees with itself over views or frames may still be off, always alike. All detectors' points in space
are fitted together by the head model (similarity, jaw, the first components of shape and expression under their
priors); what is left of each is the part of its error that no face explains.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.similarity import apply_similarity, robust_umeyama
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.schemes import scheme_named

_SHAPE, _EXPR = 40, 25
"""Components that move; later ones hardly show in some landmarks."""
_NOISE_M = 0.0015
"""Standard deviation of a landmark that the fit assumes."""
_STEPS = 4
_JAW_STEP = 0.05


class _Basis(NamedTuple):
    rest: Float[ndarray, "51 3"]
    slope: Float[ndarray, "51 3 P"]
    """By shape, expression and the jaw's angle (rad)."""


def misfits(
    head: HeadModel, embeddings: Sequence[LandmarkEmbedding], points: Sequence[Float[ndarray, "_ 3"]]
) -> list[ndarray]:
    """Distances (51,) of each detector's inner points (world, any unit) from what all of them and the head model make
    together, m of the model; NaN where a point is missing, or fewer than 20 are there in all."""
    bases = [_basis(head, embedding) for embedding in embeddings]
    found = [one[scheme_named(e.scheme).inner] for one, e in zip(points, embeddings, strict=True)]
    rest = np.concatenate([basis.rest for basis in bases])
    slope = np.concatenate([basis.slope for basis in bases])
    world = np.concatenate(found)
    use = np.isfinite(rest + world).all(1)
    if use.sum() < 20:
        return [np.full(51, np.nan) for _ in bases]
    prior = np.r_[np.ones(slope.shape[2] - 1), 1 / 0.15]
    values, model = np.zeros(slope.shape[2]), rest
    for _ in range(_STEPS):
        to_head = robust_umeyama(world[use], model[use], np.ones(int(use.sum()))).matrix
        placed = apply_similarity(to_head, world)
        off = np.where(use[:, None], placed - rest, 0.0)
        size = np.linalg.norm(placed - model, axis=1)
        # robust: one point far off shall not make a face
        weight = np.where(use, 1 / (1 + (np.nan_to_num(size) / (3 * _NOISE_M)) ** 2), 0.0) / _NOISE_M**2
        left = np.einsum("nkp,n,nkq->pq", slope, weight, slope) + np.diag(prior**2)
        values = np.linalg.solve(left, np.einsum("nkp,n,nk->p", slope, weight, off))
        model = rest + slope @ values
    distance = np.where(use, np.linalg.norm(placed - model, axis=1), np.nan)
    return list(distance.reshape(len(bases), 51))


def _basis(head: HeadModel, embedding: LandmarkEmbedding) -> _Basis:
    index = scheme_named(embedding.scheme).inner
    face, weights = np.maximum(embedding.face_index[index], 0), embedding.barycentric[index]
    corners = head.faces.cpu().numpy()[face]

    def at(vertices: ndarray) -> ndarray:
        return np.asarray(np.einsum("nk,nk...->n...", weights, vertices[corners]))

    template = head.v_template.detach().cpu().numpy().astype(np.float64)
    jaw = torch.tensor([[_JAW_STEP, 0.0, 0.0]], dtype=head.v_template.dtype, device=head.v_template.device)
    with torch.no_grad():
        opened = head(jaw_pose=jaw).vertices[0].cpu().numpy().astype(np.float64)
    parts = [head.shapedirs[..., :_SHAPE].cpu().numpy(), head.exprdirs[..., :_EXPR].cpu().numpy()]
    slopes = [at(part.astype(np.float64)) for part in parts]
    slopes.append(at((opened - template) / _JAW_STEP)[..., None])
    rest = at(template)
    rest[embedding.face_index[index] < 0] = np.nan
    return _Basis(rest, np.concatenate(slopes, axis=2))
