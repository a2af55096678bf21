"""How far each detector's points are off on the very capture, always alike, by what a face can look like.

A detector that agrees with itself over views or frames may still be off. All detectors' points in space are fitted
together by the head model (placement, jaw, the first components of shape and expression under their priors), and the
variance of every detector's points on every part of the face is estimated with it (variance components by expectation
maximisation; Dempster, Laird and Rubin, 1977): what a good detector's points say of the face shows how bad another's
are. What was usual when the detectors were calibrated is the prior (inverse gamma). The face that is fitted says, too,
how far apart on it the detectors mean a point.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.similarity import apply_similarity, invert_similarity, robust_umeyama
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.schemes import FACE_PARTS, scheme_named

_SHAPE, _EXPR = 40, 25
"""Components that move; later ones hardly show in some landmarks."""
_JAW, _MOVE_M, _TURN = 0.15, 0.05, 0.3
"""Standard deviations of the jaw's angle (rad), of a translation (m), and of a rotation (rad) and scale: wide."""
_STEPS = 12
_LEAST_POINTS = 20
"""Fewer make no face."""
_JAW_STEP = 0.05
_ASTRAY, _CAP = 3.0, 30.0
"""Points farther than so many standard deviations pull less; a squared error counts so many variances at most."""


class Expected(NamedTuple):
    """What is known of a detector before the capture is looked at."""

    std: Float[ndarray, "51"]
    """Standard deviation of the inner points along one axis, m."""
    worth: float
    """How many observed coordinates of a part of the face that counts for."""


class FaceFit(NamedTuple):
    """What all detectors' points of a moment say together."""

    std: Float[ndarray, "D 51"]
    """Standard deviation of each detector's inner points along one axis, m of the model."""
    places: Float[ndarray, "D 51 3"]
    """Where each detector means its inner points on the face that fits, in the points' own frame; NaN where the
    embedding has none, and where too few points were there for a face."""


class _Basis(NamedTuple):
    rest: Float[ndarray, "51 3"]
    slope: Float[ndarray, "51 3 P"]
    """By shape, expression and the jaw's angle (rad)."""


def fit_faces(
    head: HeadModel,
    embeddings: Sequence[LandmarkEmbedding],
    moments: Sequence[Sequence[Float[ndarray, "_ 3"]]],
    expected: Sequence[Expected],
) -> list[FaceFit]:
    """One fit a moment, of each detector's points in space (world, any unit; NaN where one is missing). Errors are what
    is expected where fewer than 20 are there in all."""
    bases = [_basis(head, embedding) for embedding in embeddings]
    inner = [scheme_named(embedding.scheme).inner for embedding in embeddings]
    return [
        _fit_face(bases, np.array([one[index] for one, index in zip(points, inner, strict=True)]), expected)
        for points in moments
    ]


def _fit_face(bases: Sequence[_Basis], points: Float[ndarray, "D 51 3"], expected: Sequence[Expected]) -> FaceFit:
    world = points.reshape(-1, 3)
    rest = np.concatenate([basis.rest for basis in bases])
    usual = np.concatenate([one.std for one in expected]) ** 2
    use = np.isfinite(rest + world).all(1) & np.isfinite(usual)
    if use.sum() < _LEAST_POINTS:
        return FaceFit(np.array([one.std for one in expected]), np.full(points.shape, np.nan))
    to_head = robust_umeyama(world[use], rest[use], np.ones(int(use.sum()))).matrix
    off = np.where(use[:, None], apply_similarity(to_head, world) - rest, 0.0)
    every = np.concatenate([np.concatenate([basis.slope for basis in bases]), _placing(rest, use)], axis=2)
    slope = np.where(use[:, None, None], every, 0.0)
    flat = slope.reshape(-1, slope.shape[2])
    prior = np.r_[np.ones(bases[0].slope.shape[2] - 1), _JAW, np.full(3, _MOVE_M), np.full(4, _TURN)]
    parts = [51 * k + index for k in range(len(bases)) for index in FACE_PARTS.values()]
    worth = np.repeat([one.worth for one in expected], len(FACE_PARTS))
    variance, trust = usual.copy(), np.ones(len(rest))
    values = np.zeros(flat.shape[1])
    for _ in range(_STEPS):
        weighted = flat * np.repeat(np.where(use, trust / variance, 0.0), 3)[:, None]
        covariance = np.linalg.inv(weighted.T @ flat + np.diag(prior**-2.0))
        values = covariance @ (weighted.T @ off.ravel())
        square = ((off - slope @ values) ** 2).sum(1)
        # robust: one point far off shall not make a face
        trust = np.minimum(1.0, _ASTRAY**2 * variance / np.maximum(square, 1e-30))
        # what the fit does not know of the face belongs to the error that is expected
        square = square + ((flat @ covariance) * flat).sum(1).reshape(-1, 3).sum(1)
        for part, sure in zip(parts, worth, strict=True):
            known = part[use[part]]
            ratio = np.minimum(square[known] / (3 * usual[known]), _CAP).sum()
            variance[part] = usual[part] * (sure + 3 * ratio) / (sure + 3 * len(known))
    places = apply_similarity(invert_similarity(to_head), rest + every @ values)
    return FaceFit(np.sqrt(variance).reshape(len(bases), 51), places.reshape(points.shape))


def _placing(rest: Float[ndarray, "N 3"], use: ndarray) -> Float[ndarray, "N 3 7"]:
    """Slopes of translation, rotation and scale about the points' middle."""
    local = np.where(np.isfinite(rest), rest - rest[use].mean(0), 0.0)
    turned = np.stack([np.cross(axis, local) for axis in np.eye(3)], axis=-1)
    return np.concatenate([np.tile(np.eye(3), (len(rest), 1, 1)), turned, local[..., None]], axis=-1)


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
