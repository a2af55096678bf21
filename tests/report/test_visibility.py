"""Vertices that a head hides from every camera itself."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.capture import View
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.closest import TriangleTree
from flame_fitting.report.metrics import region_metrics
from flame_fitting.report.surfaces import VisibleSurface
from flame_fitting.report.tables import metrics_table
from flame_fitting.report.visibility import seen_vertices
from tests.toy import toy_head_data

AROUND = [
    (0.9 * np.sin(yaw), height, 0.9 * np.cos(yaw)) for yaw in np.radians(range(0, 360, 45)) for height in (-0.5, 0.5)
]


def views_from(eyes: list[tuple[float, float, float]], scale: float = 1.0) -> list[View]:
    """Cameras that look at the origin; their own pictures are a few pixels wide and show next to nothing."""
    K = intrinsics_from_fov(1.0, 8, 8)
    cameras = [look_at(scale * np.array(eye), [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]) for eye in eyes]
    return [View(0, i, "fit", K, camera, 8, 8, f"{i}.png") for i, camera in enumerate(cameras)]


def head_with_a_core(hole: bool = False) -> HeadModel:
    """The toy head with a small sphere inside, as the region `lips`; with a hole in front of it on demand."""
    data = toy_head_data()
    core = trimesh.creation.icosphere(subdivisions=2, radius=0.02)
    outer, inner = len(data.v_template), len(core.vertices)
    faces = data.faces
    if hole:
        faces = faces[~(data.v_template[faces].mean(1) @ [0, 0, 1.0] > 0.07)]

    def grown(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((inner, *values.shape[1:]))])

    weights = grown(data.weights)
    weights[outer:, 0] = 1.0
    return HeadModel(
        replace(
            data,
            v_template=np.concatenate([data.v_template, np.asarray(core.vertices)]),
            faces=np.concatenate([faces, np.asarray(core.faces) + outer]),
            shapedirs=grown(data.shapedirs),
            exprdirs=grown(data.exprdirs),
            posedirs=grown(data.posedirs),
            J_regressor=np.concatenate([data.J_regressor, np.zeros((5, inner))], axis=1),
            weights=weights,
            uv=None,
            uv_faces=None,
            regions={**data.regions, "lips": np.arange(outer - 20, outer + inner)},
        )
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_what_lies_inside_is_hidden_and_nothing_else(scale: float) -> None:
    head = head_with_a_core()
    vertices = scale * head.v_template.double().numpy()
    seen = seen_vertices(head, vertices, views_from(AROUND, scale))
    np.testing.assert_array_equal(np.flatnonzero(~seen), np.arange(642, head.n_vertices))


def test_only_what_no_view_sees_is_hidden() -> None:
    head = head_with_a_core()
    vertices = head.v_template.double().numpy()
    front = seen_vertices(head, vertices, views_from([(0.0, 0.0, 0.9)]))
    assert front[vertices[:, 2] > 0.05].all() and not front[vertices[:, 2] < -0.03].any()
    both = seen_vertices(head, vertices, views_from([(0.0, 0.0, 0.9), (0.0, 0.0, -0.9)]))
    assert both[:642][np.abs(vertices[:642, 2]) > 0.05].all() and not both[642:].any()


def test_backs_of_triangles_hide_but_are_not_seen() -> None:
    head = head_with_a_core(hole=True)
    vertices = head.v_template.double().numpy()
    seen = seen_vertices(head, vertices, views_from([(0.0, 0.0, 0.9)]))
    core = seen[642:]
    assert core[vertices[642:, 2] > 0.012].all() and not core[vertices[642:, 2] < -0.012].any()
    # through the hole the inner side of the back of the head shows too, which is no part of its surface
    assert not seen[:642][vertices[:642, 2] < -0.03].any()


def test_without_a_view_or_with_one_inside_nothing_is_called_hidden() -> None:
    head = head_with_a_core()
    vertices = head.v_template.double().numpy()
    assert seen_vertices(head, vertices, []).all()
    assert seen_vertices(head, vertices, views_from([(0.0, 0.0, 0.05)])).all()


def test_hidden_vertices_are_counted_and_not_measured() -> None:
    head = head_with_a_core()
    vertices = head.v_template.double().numpy()
    seen = seen_vertices(head, vertices, views_from(AROUND))
    shown = head.faces.numpy()[(head.faces.numpy() < 642).all(1)]
    surface = VisibleSurface(TriangleTree(vertices, shown), vertices[:642])
    moved = vertices.copy()
    moved[:642] *= 1.01  # about 1 mm off: a bad fit is no reason to leave anything out
    all_of_it = region_metrics(head, moved[None], [surface])["lips"]
    lips = region_metrics(head, moved[None], [surface], seen=seen[None])["lips"]
    assert "hidden" not in all_of_it and all_of_it["to_avatar_mm"]["p95"] > 50
    assert lips["vertices"] == 20 + 162 and lips["hidden"] == 162
    assert 0.5 < lips["to_avatar_mm"]["median"] < 1.2 and lips["to_avatar_mm"]["p95"] < 1.2
    assert lips["from_avatar_mm"] == all_of_it["from_avatar_mm"]
    face = region_metrics(head, moved[None], [surface], seen=seen[None])["face"]
    assert face["hidden"] == 0 and face["to_avatar_mm"]["median"] > 0.5
    table = metrics_table({"regions": {"lips": lips, "face": face}})
    assert "hidden from all views, not measured  lips 89%" in table and "face 0" not in table
