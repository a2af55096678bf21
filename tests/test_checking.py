"""The tests' own type checks: on from the start of each test, and of a function's first calls alone."""

from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from numpy import ndarray

from flame_fitting.render.culling import shared_triangle_ids
from tests import checked, checking

decorated = jaxtyping.jaxtyped(typechecker=checked)


@decorated
def doubled(rows: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
    return 2 * rows


@decorated
@dataclass
class Rows:
    rows: Float[ndarray, "N 3"]

    @decorated
    def first(self, count: int) -> ndarray:
        return self.rows[:count]


@pytest.mark.parametrize("test", [1, 2])
def test_in_every_test_anew(test: int) -> None:
    with pytest.raises(TypeCheckError):
        doubled(np.zeros((2, 4)))
    with pytest.raises(TypeCheckError):
        Rows(np.zeros((2, 4)))
    with pytest.raises(TypeCheckError):
        Rows(np.zeros((2, 3))).first("all")  # type: ignore[arg-type]


def test_of_the_first_calls() -> None:
    for _ in range(checking.CHECKED_CALLS):
        doubled(np.zeros((2, 3)))
    assert doubled(np.zeros((2, 4))).shape == (2, 4)
    checking.start()
    with pytest.raises(TypeCheckError):
        doubled(np.zeros((2, 4)))


def test_the_projects_functions_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        shared_triangle_ids(torch.zeros(1, 2, 4), 5)
