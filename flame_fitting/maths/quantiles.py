"""Quantiles of weighted values, by the two definitions that are in use."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def weighted_quantiles(
    values: Float[ndarray, " N *columns"], weights: Float[ndarray, " N *columns"], quantiles: Sequence[float]
) -> Float[ndarray, " Q *columns"]:
    """Along the first axis, the first of the sorted values up to which at least that share of the weight lies.

    It is always one of the values, so an outlier among few has no part in it: for estimates. Where all weights of a
    column are 0, its smallest value.
    """
    order = np.argsort(values, axis=0, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    found = []
    for quantile in quantiles:
        index = (cumulative >= quantile * cumulative[-1]).argmax(axis=0)
        found.append(np.take_along_axis(ordered, index[None], axis=0)[0])
    return np.stack(found)


def weighted_median(
    values: Float[ndarray, " N *columns"], weights: Float[ndarray, " N *columns"]
) -> Float[ndarray, "*columns"]:
    """`weighted_quantiles` of one half; 0 where all weights of a column are 0."""
    return np.where(weights.sum(axis=0) > 0, weighted_quantiles(values, weights, (0.5,))[0], 0.0)


def interpolated_quantiles(
    values: Float[ndarray, " N"], weights: Float[ndarray, " N"], quantiles: Sequence[float]
) -> Float[ndarray, " Q"]:
    """Linear between the values, each at the middle of its own weight: changes smoothly with them, for reports.

    Weights are above 0. Equal ones give the quantiles of Hazen, (i - 0.5) / N.
    """
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    return np.interp(np.asarray(quantiles), (np.cumsum(weights) - 0.5 * weights) / weights.sum(), values)
