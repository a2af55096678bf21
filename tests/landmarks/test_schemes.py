"""Index tables: mirror symmetry and completeness."""

import numpy as np
import pytest

from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.mediapipe_topology import triangles
from flame_fitting.landmarks.registry import DETECTORS, is_ready, make_detector
from flame_fitting.landmarks.schemes import EYE_CORNERS, INNER_51, LIP_CORNERS, SCHEMES, inner_weights, scheme_named

MEDIAPIPE, IBUG = SCHEMES["mediapipe478"], SCHEMES["ibug68"]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_every_scheme_is_whole(scheme):
    assert SCHEMES[scheme.name] is scheme and scheme_named(scheme.name) is scheme
    for index in (scheme.mirror, scheme.ibug68, *scheme.groups.values(), np.array(scheme.pupils or (), dtype=int)):
        assert index.min(initial=0) >= 0 and index.max(initial=0) < scheme.n_points
        assert len(set(index.tolist())) == len(index)
    assert (
        scheme.mirror.shape == (scheme.n_points,) and scheme.ibug68.shape == (68,) and scheme.contour in scheme.groups
    )
    np.testing.assert_array_equal(scheme.mirror[scheme.mirror], np.arange(scheme.n_points))
    # the mirror twin of an iBUG point is an iBUG point: the one of the other side
    np.testing.assert_array_equal(scheme.mirror[scheme.ibug68], scheme.ibug68[IBUG.mirror])
    if scheme.pupils is not None:
        assert scheme.mirror[list(scheme.pupils)].tolist() == list(scheme.pupils)[::-1]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("part", ["brow", "eye", "iris"])
def test_groups_of_the_two_sides_are_twins(scheme, part):
    if f"left_{part}" in scheme.groups:
        left, right = scheme.groups[f"left_{part}"], scheme.groups[f"right_{part}"]
        assert set(scheme.mirror[left].tolist()) == set(right.tolist()) and not set(left) & set(right)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_lip_halves_are_disjoint_and_leave_out_the_corners(scheme):
    upper, lower = scheme.lips
    corners = set(scheme.ibug68[list(LIP_CORNERS)].tolist())
    assert not set(upper) & set(lower) and not (set(upper) | set(lower)) & corners
    assert set(scheme.ibug68[[51, 62]]) <= set(upper) and set(scheme.ibug68[[57, 66]]) <= set(lower)
    assert set(upper) | set(lower) | corners == set(scheme.groups["lips"])


def test_eye_corners_are_the_outer_ones():
    assert MEDIAPIPE.ibug68[list(EYE_CORNERS)].tolist() == [33, 263]
    assert set(MEDIAPIPE.ibug68[36:42]) <= set(MEDIAPIPE.groups["right_eye"])
    assert set(MEDIAPIPE.ibug68[42:48]) <= set(MEDIAPIPE.groups["left_eye"])


def test_what_a_detector_gives_is_in_the_table():
    for name in filter(is_ready, DETECTORS):
        detector = make_detector(name)
        assert SCHEMES[detector.scheme].of_detectors and detector.n_points == SCHEMES[detector.scheme].n_points
        assert detector.name == name
        points = np.zeros((1, 1, detector.n_points, 3), np.float32)
        assert Landmarks2D(points, detector.scheme, name, detector.version).made_here


def test_mediapipes_twins_are_all_there():
    assert len(np.flatnonzero(MEDIAPIPE.mirror == np.arange(478))) == 28  # the mid-line
    assert len(set(MEDIAPIPE.ibug68.tolist())) == 68


def test_mirror_maps_the_mesh_onto_itself():
    def edges(faces):
        return {tuple(sorted(edge)) for face in faces.tolist() for edge in (face[:2], face[1:], face[::2])}

    straight, mirrored = edges(triangles()), edges(MEDIAPIPE.mirror[triangles()])
    # Three pairs of quads are split along different diagonals on the two sides.
    assert len(straight) == 1322 and len(straight & mirrored) == 1316


def test_every_edge_runs_once_in_each_direction():
    faces = triangles()
    directed = [tuple(face[[k, (k + 1) % 3]]) for face in faces for k in range(3)]
    assert len(set(directed)) == len(directed) and len(faces) == 852


def test_outline_is_a_closed_ring_of_the_mesh():
    edges = {tuple(sorted(face[[a, b]].tolist())) for face in triangles() for a, b in ((0, 1), (1, 2), (0, 2))}
    outline = MEDIAPIPE.groups["outline"].tolist()
    ring = list(zip(outline, outline[1:] + outline[:1], strict=True))
    assert len(set(outline)) == 36 and all(tuple(sorted(edge)) in edges for edge in ring)


def test_inner_points_leave_out_the_jaw_line():
    assert len(INNER_51) == 51 and not set(INNER_51) & set(IBUG.groups["jawline"])
    assert inner_weights().shape == (51,) and inner_weights().min() == 0.5


def test_unknown_schemes_have_no_subset():
    with pytest.raises(ValueError):
        scheme_named("other")
