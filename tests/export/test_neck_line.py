"""The neck line: VHAP's in frontal views, sound at exact profile and from behind."""

import dataclasses

import numpy as np
import pytest

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.export.neck_line import neck_cut
from flame_fitting.head.model import HeadModel
from tests.toy import toy_head, toy_head_data

SIZE = 200
K = intrinsics_from_fov(25.0, SIZE, SIZE)


def view_from(yaw: float, pitch: float = 0.0, distance: float = 1.0) -> np.ndarray:
    yaw_, pitch_ = np.radians(yaw), np.radians(pitch)
    eye = distance * np.array([np.sin(yaw_) * np.cos(pitch_), np.sin(pitch_), np.cos(yaw_) * np.cos(pitch_)])
    return look_at(eye, [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])


def posed() -> tuple[HeadModel, np.ndarray]:
    head = toy_head()
    return head, head.v_template.double().numpy()


def test_frontal_line_goes_through_the_front_vertex_with_the_neck_points_slope() -> None:
    head, vertices = posed()
    turn = np.radians(8)  # the head tilts to its left: the line does too
    roll = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    vertices = vertices @ roll.T
    cut = neck_cut(head, vertices)
    assert cut is not None
    keep = cut.keep(K, view_from(0), SIZE, SIZE)
    names = ("neck_left_point", "neck_right_point", "front_middle_bottom_point_boundary")
    left, right, front = (project(vertices[head.regions[n].numpy()], K, view_from(0))[0, :2] for n in names)
    slope = (left[1] - right[1]) / (left[0] - right[0])
    assert abs(slope) > 0.05
    for x in (20, 100, 180):
        y = front[1] + slope * (x - front[0])
        crossing = np.interp(0.5, 1 - keep[:, x], np.arange(SIZE) + 0.5)
        assert crossing == pytest.approx(y, abs=1.5)
    assert keep[0].min() == 1 and keep[-1].max() == 0


@pytest.mark.parametrize("yaw", [-90.0, -89.9999, 90.0, 180.0, 37.0])
@pytest.mark.parametrize("pitch", [-25.0, 0.0, 25.0])
def test_every_view_keeps_the_top_and_cuts_the_bottom(yaw: float, pitch: float) -> None:
    head, vertices = posed()
    cut = neck_cut(head, vertices)
    assert cut is not None
    keep = cut.keep(K, view_from(yaw, pitch), SIZE, SIZE)
    assert np.isfinite(keep).all() and keep[0].min() == 1 and keep[-1].max() == 0
    crossing = [np.interp(0.5, 1 - keep[:, x], np.arange(SIZE)) for x in (0, SIZE - 1)]
    assert abs(crossing[0] - crossing[1]) < 12  # an untilted head: level in every view, also at profile


def test_line_changes_continuously_through_profile() -> None:
    head, vertices = posed()
    cut = neck_cut(head, vertices)
    assert cut is not None
    one, two = (cut.keep(K, view_from(yaw, 10.0), SIZE, SIZE) for yaw in (89.9, 90.1))
    assert np.abs(one - two).max() < 0.05


def test_camera_on_the_axis_keeps_everything() -> None:
    head, vertices = posed()
    cut = neck_cut(head, vertices)
    assert cut is not None
    straight_up = look_at(cut.center + [0, 1, 0], cut.center, [0.0, 0.0, 1.0])
    assert cut.keep(K, straight_up, SIZE, SIZE).min() == 1


def test_edge_is_soft() -> None:
    head, vertices = posed()
    cut = neck_cut(head, vertices)
    assert cut is not None
    column = cut.keep(K, view_from(0), SIZE, SIZE)[:, SIZE // 2]
    between = ((column > 0) & (column < 1)).sum()
    assert 4 <= between <= 7  # 3 % of 200 px


def test_head_without_neck_points_has_no_line() -> None:
    data = toy_head_data()
    del data.regions["neck_left_point"]
    head = HeadModel(dataclasses.replace(data))
    assert neck_cut(head, data.v_template) is None
