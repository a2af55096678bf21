"""Index tables: mirror symmetry and completeness."""

import numpy as np
import pytest

from flame_fitting.landmarks.calibration import lip_sides
from flame_fitting.landmarks.ibug68 import (
    IBUG68_FROM_MEDIAPIPE,
    IBUG_GROUPS,
    INNER_51,
    MEDIAPIPE_GROUPS,
    ibug_indices,
    inner_weights,
)
from flame_fitting.landmarks.mediapipe_topology import MIDLINE, OUTLINE, mirror_permutation, triangles

# Left and right exchanged, as iBUG-68 is flipped with its picture.
IBUG_MIRROR = np.r_[
    16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, [47, 46], 39:35:-1, [41, 40], 54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1
]


def test_mirror_is_an_involution_with_the_midline_fixed():
    mirror = mirror_permutation()
    np.testing.assert_array_equal(mirror[mirror], np.arange(478))
    np.testing.assert_array_equal(np.flatnonzero(mirror == np.arange(478)), MIDLINE)


def test_mirror_maps_the_mesh_onto_itself():
    def edges(faces):
        return {tuple(sorted(edge)) for face in faces.tolist() for edge in (face[:2], face[1:], face[::2])}

    straight, mirrored = edges(triangles()), edges(mirror_permutation()[triangles()])
    # Three pairs of quads are split along different diagonals on the two sides.
    assert len(straight) == 1322 and len(straight & mirrored) == 1316


def test_every_edge_runs_once_in_each_direction():
    faces = triangles()
    directed = [tuple(face[[k, (k + 1) % 3]]) for face in faces for k in range(3)]
    assert len(set(directed)) == len(directed) and len(faces) == 852


def test_subset_is_mirror_symmetric_and_without_repeats():
    assert len(set(IBUG68_FROM_MEDIAPIPE.tolist())) == 68
    np.testing.assert_array_equal(mirror_permutation()[IBUG68_FROM_MEDIAPIPE], IBUG68_FROM_MEDIAPIPE[IBUG_MIRROR])


@pytest.mark.parametrize("side, other", [("left", "right")])
@pytest.mark.parametrize("part", ["brow", "eye", "iris"])
def test_groups_of_the_two_sides_are_twins(side, other, part):
    left, right = MEDIAPIPE_GROUPS[f"{side}_{part}"], MEDIAPIPE_GROUPS[f"{other}_{part}"]
    assert set(mirror_permutation()[left].tolist()) == set(right.tolist())


def test_outline_is_a_closed_ring_of_the_mesh():
    edges = {tuple(sorted(face[[a, b]].tolist())) for face in triangles() for a, b in ((0, 1), (1, 2), (0, 2))}
    ring = list(zip(OUTLINE, OUTLINE[1:] + OUTLINE[:1], strict=True))
    assert len(set(OUTLINE)) == 36 and all(tuple(sorted(edge)) in edges for edge in ring)


def test_inner_points_leave_out_the_jaw_line():
    assert len(INNER_51) == 51 and not set(INNER_51) & set(IBUG_GROUPS["jawline"])
    assert inner_weights().shape == (51,) and inner_weights().min() == 0.5


@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
def test_lip_halves_are_disjoint_and_leave_out_the_corners(scheme):
    upper, lower = lip_sides(scheme)
    corners = set(ibug_indices(scheme)[[48, 54, 60, 64]].tolist())
    assert not set(upper) & set(lower) and not (set(upper) | set(lower)) & corners
    assert set(ibug_indices(scheme)[[51, 62]]) <= set(upper) and set(ibug_indices(scheme)[[57, 66]]) <= set(lower)


def test_unknown_schemes_have_no_subset():
    with pytest.raises(ValueError):
        ibug_indices("other")
