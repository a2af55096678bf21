"""Colour corrections against formulas written out by hand, and the inverse of the sRGB curve."""

import numpy as np
import pytest

from flame_fitting.capture.color_correction import (
    AffineCorrection,
    PolynomialCorrection,
    linear_to_srgb,
    polynomial_terms,
    srgb_to_linear,
)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (4, 5, 3)).astype(np.float32)


def expanded(terms: int, r: float, g: float, b: float) -> list[float]:
    """Cheung's polynomial as colour-science 0.4.7 orders it (matrix_augmented_Cheung2004), written out."""
    rows = {
        3: [r, g, b],
        4: [r, g, b, 1],
        5: [r, g, b, r * g * b, 1],
        7: [r, g, b, r * g, r * b, g * b, 1],
        8: [r, g, b, r * g, r * b, g * b, r * g * b, 1],
        10: [r, g, b, r * g, r * b, g * b, r**2, g**2, b**2, 1],
        11: [r, g, b, r * g, r * b, g * b, r**2, g**2, b**2, r * g * b, 1],
        14: [r, g, b, r * g, r * b, g * b, r**2, g**2, b**2, r * g * b, r**3, g**3, b**3, 1],
    }
    mixed = [r, g, b, r * g, r * b, g * b, r**2, g**2, b**2, r * g * b, r**2 * g, g**2 * b, b**2 * r]
    cubes, others = [r**3, g**3, b**3], [r**2 * b, g**2 * r, b**2 * g]
    rows |= {16: mixed + cubes, 17: [*mixed, *cubes, 1], 19: mixed + others + cubes, 20: [*mixed, *others, *cubes, 1]}
    rows[22] = mixed + others + cubes + [r**2 * g * b, r * g**2 * b, r * g * b**2]
    return rows[terms]


def test_srgb_curve_is_its_own_inverse_and_has_the_standard_s_values() -> None:
    values = np.linspace(0, 1, 257, dtype=np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6)
    np.testing.assert_allclose(srgb_to_linear(np.float32([0.5, 0.02])), [0.21404114, 0.02 / 12.92], rtol=1e-5)


@pytest.mark.parametrize("terms", polynomial_terms())
def test_the_polynomial_is_evaluated_in_linear_light(terms: int) -> None:
    rng, colors = np.random.default_rng(terms), picture()
    matrix = rng.normal(size=(3, terms)) * 0.05
    matrix[:, :3] += np.eye(3) * 0.8
    found = PolynomialCorrection(matrix)(colors)
    for index in np.ndindex(4, 5):
        linear = matrix @ expanded(terms, *srgb_to_linear(colors[index]).astype(np.float64))
        np.testing.assert_allclose(found[index], linear_to_srgb(np.clip(linear, 0, 1).astype(np.float32)), atol=2e-5)


def test_the_identity_leaves_colours_alone_and_values_stay_in_range() -> None:
    matrix = np.zeros((3, 11))
    matrix[:, :3] = np.eye(3)
    np.testing.assert_allclose(PolynomialCorrection(matrix)(picture()), picture(), atol=1e-6)
    bright = PolynomialCorrection(3 * matrix)(picture())
    assert abs(bright.max() - 1.0) < 1e-6


def test_the_affine_correction_takes_colours_for_rows() -> None:
    matrix, offset = np.array([[0.9, 0.1, 0.0], [0.0, 0.8, 0.05], [0.02, 0.0, 1.1]]), np.array([0.01, -0.02, 0.03])
    found = AffineCorrection(matrix, offset)(picture())
    r, g, b = picture()[1, 2]
    expected = [0.9 * r + 0.02 * b + 0.01, 0.1 * r + 0.8 * g - 0.02, 0.05 * g + 1.1 * b + 0.03]
    np.testing.assert_allclose(found[1, 2], np.clip(expected, 0, 1), atol=1e-6)
