"""Similarities: recovered exactly, blind to the frames and units of both sides, and to outliers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flame_fitting.capture.similarity import (
    apply_similarity,
    decompose_similarity,
    invert_similarity,
    robust_umeyama,
    similarity_matrix,
    umeyama,
)

seeds = st.integers(0, 2**32 - 1)


def random_similarity(rng: np.random.Generator) -> np.ndarray:
    rotation = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    return similarity_matrix(10 ** rng.uniform(-3, 3), rotation, rng.normal(size=3) * 100)


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-9) -> bool:
    """Equal up to rounding, each part on its own scale: linear part and translation differ by orders of magnitude."""
    scale = np.linalg.norm(b[:3, :3])
    return bool(
        np.abs(a[:3, :3] - b[:3, :3]).max() <= tolerance * scale
        and np.abs(a[:3, 3] - b[:3, 3]).max() <= tolerance * (scale * 10 + np.abs(b[:3, 3]).max())
    )


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_umeyama_recovers_a_random_similarity(seed):
    rng = np.random.default_rng(seed)
    truth = random_similarity(rng)
    source = rng.normal(size=(12, 3))
    assert close(umeyama(source, apply_similarity(truth, source), rng.uniform(0.1, 2, 12)), truth)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_robust_fit_is_equivariant_and_unit_free(seed):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(30, 3))
    target = apply_similarity(random_similarity(rng), source)
    target += 0.02 * np.std(target) * rng.normal(size=target.shape)
    target[:4] += np.std(target)
    left, right = random_similarity(rng), random_similarity(rng)
    plain = robust_umeyama(source, target).matrix
    moved = robust_umeyama(apply_similarity(right, source), apply_similarity(left, target)).matrix
    assert close(moved @ right, left @ plain, 1e-6)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e3, 1e9])
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_robust_fit_stops_at_the_same_place_in_any_unit_far_from_the_origin(scale, place):
    rng = np.random.default_rng(2)
    source = 0.05 * rng.normal(size=(51, 3))
    target = source + 0.002 * rng.normal(size=source.shape)
    target[:5] += 0.03
    plain = robust_umeyama(source, target)
    far = scale * (source + place * np.array([348211.0, 5412877.0, 112.0]))
    found = robust_umeyama(far, target)
    np.testing.assert_allclose(found.residuals, plain.residuals, rtol=0, atol=1e-13 if not place else 1e-8)
    np.testing.assert_allclose(apply_similarity(found.matrix, far), apply_similarity(plain.matrix, source), atol=2e-8)
    assert scale * found.matrix[0, 0] == pytest.approx(plain.matrix[0, 0], rel=1e-10 if not place else 1e-6)


def test_gross_outliers_hardly_move_the_robust_fit():
    rng = np.random.default_rng(5)
    source = rng.normal(size=(51, 3))
    truth = random_similarity(rng)
    scale = decompose_similarity(truth)[0]
    target = apply_similarity(truth, source) + 0.005 * scale * rng.normal(size=source.shape)
    target[::5] += 2.0 * scale * rng.normal(size=target[::5].shape)
    target[3] = np.nan
    fit = robust_umeyama(source, target)
    clean = np.linalg.norm(apply_similarity(fit.matrix, source) - apply_similarity(truth, source), axis=1) / scale
    plain = umeyama(np.delete(source, 3, 0), np.delete(target, 3, 0))
    off = np.linalg.norm(apply_similarity(plain, source) - apply_similarity(truth, source), axis=1)
    assert clean.max() < 0.01
    assert off.max() > 0.05 * scale
    assert np.isnan(fit.residuals[3]) and fit.weights[3] == 0
    assert fit.weights[::5].max() < 0.05 * np.median(np.delete(fit.weights, np.r_[0:51:5, 3]))


def test_mirroring_is_only_found_when_asked_for():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(20, 3))
    mirrored = source * [-1, 1, 1]
    assert np.linalg.det(umeyama(source, mirrored)[:3, :3]) > 0
    np.testing.assert_allclose(umeyama(source, mirrored, mirrored=True), np.diag([-1.0, 1, 1, 1]), atol=1e-12)


def test_parts_and_inverse():
    rng = np.random.default_rng(2)
    matrix = random_similarity(rng)
    scale, rotation, translation = decompose_similarity(matrix)
    np.testing.assert_allclose(similarity_matrix(scale, rotation, translation), matrix, rtol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(invert_similarity(matrix) @ matrix, np.eye(4), atol=1e-9)


@pytest.mark.parametrize(
    "source",
    [np.zeros((5, 3)), np.outer(np.arange(5.0), [1, 2, 3]), np.random.default_rng(0).normal(size=(2, 3))],
    ids=["one point", "a line", "two points"],
)
def test_undetermined_similarities_are_refused(source):
    with pytest.raises(ValueError):
        umeyama(source, source)
