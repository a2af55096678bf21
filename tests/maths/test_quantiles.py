"""Weighted quantiles by both definitions."""

import numpy as np
import pytest

from flame_fitting.maths.quantiles import interpolated_quantiles, weighted_median, weighted_quantiles


def test_quantiles_are_of_weight() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 8.0])
    assert weighted_quantiles(values, weights, (0.05, 0.5, 0.95, 1.0)).tolist() == [1.0, 2.0, 3.0, 3.0]


def test_whole_weights_count_as_repeated_values() -> None:
    rng = np.random.default_rng(0)
    values, repeats = rng.normal(size=40), rng.integers(1, 5, 40)
    repeated = np.sort(np.repeat(values, repeats))
    for quantile in (0.1, 0.37, 0.5, 0.95):
        expected = repeated[int(np.ceil(quantile * len(repeated))) - 1]
        assert weighted_quantiles(values, repeats.astype(float), (quantile,)) == expected


def test_columns_are_apart() -> None:
    values = np.array([[1.0, 5.0], [2.0, 6.0], [100.0, 7.0]])
    np.testing.assert_array_equal(weighted_median(values, np.array([[1.0, 0], [1, 0], [1, 0]])), [2.0, 0.0])
    np.testing.assert_array_equal(weighted_median(values, np.array([[1.0, 0], [1, 1], [9, 9]])), [100.0, 7.0])
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=(9, 4)), rng.random((9, 4))
    both = weighted_quantiles(values, weights, (0.2, 0.8))
    for column in range(4):
        alone = weighted_quantiles(values[:, column], weights[:, column], (0.2, 0.8))
        np.testing.assert_array_equal(both[:, column], alone)


def test_interpolation_is_hazens_with_equal_weights_and_moves_smoothly() -> None:
    values = np.random.default_rng(2).normal(size=31)
    found = interpolated_quantiles(values, np.full(31, 3.0), (0.05, 0.5, 0.95))
    np.testing.assert_allclose(found, np.quantile(values, (0.05, 0.5, 0.95), method="hazen"), atol=1e-14)
    two = np.array([1.0, 2.0])
    medians = [float(interpolated_quantiles(two, np.array([1.0, w]), (0.5,))[0]) for w in (0.99, 1.0, 1.01)]
    assert medians[0] < medians[1] < medians[2] and medians[1] == pytest.approx(1.5)
