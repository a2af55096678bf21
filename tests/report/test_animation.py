"""The sheet that shows how a fitted head moves, and its numbers."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import project
from flame_fitting.fit.result import FitResult
from flame_fitting.head.eyelids import with_eyelids
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.report.animation import Animation, animate
from flame_fitting.report.animation_sheet import animation_sheet, sheet_cameras
from tests.synthetic import known_fit, similarity
from tests.toy import toy_head

NAMES = [
    *("fit", "neutral", "jaw_open", "lids_closed", "gaze_left", "gaze_right", "gaze_up", "gaze_down"),
    *(f"expression_{k}_{sign}" for k in (1, 2, 3) for sign in ("plus", "minus")),
]


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


@pytest.fixture(scope="module")
def fit(head: HeadModel) -> FitResult:
    """A smile with the jaw open and turned eyes, before a head that is turned itself, with offsets."""
    fit = known_fit(head, similarity())
    fit.parameters["shape"] *= 0.5
    moved = {"rotation": [[0.3, 0.5, 0.0]], "neck_pose": [[0.1, 0.2, 0.0]], "eyes_pose": [[0.1, 0.2, 0.0] * 2]}
    offset = 0.0005 * np.sin(40 * head.v_template.double().numpy())[None]
    return replace(
        fit, parameters=fit.parameters | {k: np.array(v) for k, v in moved.items()} | {"static_offset": offset}
    )


@pytest.fixture(scope="module")
def animation(fit: FitResult, head: HeadModel) -> Animation:
    return animate(fit, head)


@pytest.fixture(scope="module")
def poses(animation: Animation) -> dict[str, np.ndarray]:
    return {pose.name: pose.vertices for pose in animation.poses}


def posed(fit: FitResult, head: HeadModel, **parameters: np.ndarray) -> np.ndarray:
    kept = {key: fit.parameters[key] for key in ("shape", "static_offset")}
    with torch.no_grad():
        found = head(**{key: torch.as_tensor(value).float() for key, value in (kept | parameters).items()})
    return found.vertices[0].double().numpy()


def test_every_pose_is_there_and_stands_still(
    fit: FitResult, head: HeadModel, animation: Animation, poses: dict[str, np.ndarray]
) -> None:
    assert [pose.name for pose in animation.poses] == NAMES and all(len(row) == 2 for row in animation.rows)
    assert list(animation.as_metrics()["poses"]) == NAMES
    own = {key: fit.parameters[key] for key in ("expr", "jaw_pose", "eyes_pose")}
    np.testing.assert_allclose(poses["neutral"], posed(fit, head), atol=1e-7)
    np.testing.assert_allclose(poses["fit"], posed(fit, head, **own), atol=1e-7)
    back = head.region_mask("scalp").numpy()  # the skull, which nothing but a turned head moves
    for name in NAMES:
        assert np.linalg.norm(poses[name] - poses["neutral"], axis=1)[back].mean() < 0.001
        assert (np.abs(poses[name] - poses["neutral"]).max() > 0.001) == (name != "neutral")
    for k in (1, 2, 3):
        both = poses[f"expression_{k}_plus"] + poses[f"expression_{k}_minus"]
        np.testing.assert_allclose(0.5 * both, poses["neutral"], atol=1e-6)
        size = np.linalg.norm(2 * head.exprdirs[..., k - 1].double().numpy(), axis=-1)
        moved = np.linalg.norm(poses[f"expression_{k}_plus"] - poses["neutral"], axis=1)
        np.testing.assert_allclose(moved, size, atol=1e-6)


def test_a_fit_without_expression_is_neutral(fit: FitResult, head: HeadModel) -> None:
    still = {key: np.zeros_like(fit.parameters[key]) for key in ("expr", "jaw_pose", "eyes_pose")}
    found = {pose.name: pose.vertices for pose in animate(replace(fit, parameters=fit.parameters | still), head).poses}
    np.testing.assert_array_equal(found["fit"], found["neutral"])


def test_the_jaw_turns_the_chin_about_its_joint(fit: FitResult, head: HeadModel, animation: Animation) -> None:
    plain = copy.deepcopy(head)
    plain.posedirs.zero_()
    poses = {pose.name: pose.vertices for pose in animate(fit, plain).poses}
    weight = head.weights[:, 2].double().numpy()
    chin = weight > 0.95
    joint = head.J_regressor[2].double().numpy() @ poses["neutral"]
    arm = poses["neutral"][chin] - joint
    lower = arm[:, 1] * (np.cos(0.25) - 1) - arm[:, 2] * np.sin(0.25)
    assert len(lower) > 5 and lower.max() < -0.01
    np.testing.assert_allclose((poses["jaw_open"] - poses["neutral"])[chin, 1], weight[chin] * lower, atol=1e-6)
    gaps = {name: animation.numbers[name]["lip_gap_mm"] for name in ("neutral", "jaw_open")}
    assert gaps["jaw_open"] > gaps["neutral"] + 15


def test_lids_close_by_eyelids_where_the_head_has_some(fit: FitResult, head: HeadModel) -> None:
    shut = with_eyelids(copy.deepcopy(head))
    own = replace(fit, parameters=fit.parameters | {"eyelids": np.array([[1.0, 0.0]])})
    animation = animate(own, shut)
    poses, numbers = {pose.name: pose for pose in animation.poses}, animation.numbers
    assert poses["lids_closed"].title.startswith("lids closed, by eyelids at ")
    assert numbers["lids_closed"]["expression_max"] == 0.0
    for side in range(2):
        assert abs(numbers["lids_closed"]["lid_gap_mm"][side]) < 0.05 * numbers["neutral"]["lid_gap_mm"][side]
    moved = np.linalg.norm(poses["lids_closed"].vertices - poses["neutral"].vertices, axis=1)
    assert moved[head.region_mask("lips", "nose", "chin").numpy()].max() < 1e-6
    # the fit's own are those of the fit, the neutral head's eyes are open
    right, left = numbers["fit"]["lid_gap_mm"]
    assert left < right - 4 and min(numbers["neutral"]["lid_gap_mm"]) > 5


def test_lids_close_and_eyes_turn(head: HeadModel, animation: Animation, poses: dict[str, np.ndarray]) -> None:
    numbers = animation.numbers
    assert min(numbers["neutral"]["lid_gap_mm"]) > 5
    for side in range(2):
        assert abs(numbers["lids_closed"]["lid_gap_mm"][side]) < 0.05 * numbers["neutral"]["lid_gap_mm"][side]
    assert abs(numbers["lids_closed"]["lip_gap_mm"] - numbers["neutral"]["lip_gap_mm"]) < 0.1
    assert 1 < numbers["lids_closed"]["expression_max"] < 5
    for side in ("left", "right"):
        ball, iris = (head.region_mask(f"{side}_{part}").numpy() for part in ("eyeball", "iris"))

        def axis(vertices: np.ndarray, iris: np.ndarray = iris, ball: np.ndarray = ball) -> np.ndarray:
            direction = vertices[iris].mean(0) - vertices[ball].mean(0)
            return direction / np.linalg.norm(direction)

        ahead = axis(poses["neutral"])
        for name, (component, sign) in {"left": (0, 1), "right": (0, -1), "up": (1, 1), "down": (1, -1)}.items():
            looking = axis(poses[f"gaze_{name}"])
            assert np.degrees(np.arccos(ahead @ looking)) == pytest.approx(20, abs=0.5)
            assert sign * (looking - ahead)[component] > 0.3


def test_lips_that_pass_each_other_are_counted_and_measured(fit: FitResult, head: HeadModel) -> None:
    found = []
    for angle in (0.1, -0.01, -0.03):
        parameters = {"jaw_pose": np.array([[angle, 0.0, 0.0]]), "expr": np.zeros_like(fit.parameters["expr"])}
        found.append(animate(replace(fit, parameters=fit.parameters | parameters), head).numbers["fit"])
    assert found[0]["lips_crossing"] == 0 == found[0]["lips_depth_mm"]
    assert 0 < found[1]["lips_crossing"] < found[2]["lips_crossing"]
    # both rims have gone past each other by the gap
    assert 0.3 < found[2]["lips_depth_mm"] < 1.1 * -found[2]["lip_gap_mm"]
    assert found[1]["lips_depth_mm"] < found[2]["lips_depth_mm"]


def test_an_eyeball_that_bulges_through_its_lids_is_measured(fit: FitResult, head: HeadModel) -> None:
    balls = head.region_mask("eyeballs").numpy()
    offset = fit.parameters["static_offset"].copy()
    offset[0, balls, 2] += 0.002
    depth = [
        animate(replace(fit, parameters=fit.parameters | {"static_offset": each}), head).numbers["neutral"][
            "lids_depth_mm"
        ]
        for each in (fit.parameters["static_offset"], offset)
    ]
    assert depth[0] < 0.5 and depth[0] + 0.5 < depth[1] < 2.1


def test_the_sheet(fit: FitResult, head: HeadModel, animation: Animation, poses: dict[str, np.ndarray]) -> None:
    face, eyes, lips = (head.region_mask(name).numpy() for name in ("face", "eyes", "lips"))
    cameras = sheet_cameras(head, animation)
    (details,) = cameras.details
    for seen, number, vertices in (
        (cameras.front, 0, poses["jaw_open"][face]),
        (cameras.turned, 0, poses["jaw_open"][face]),
        (details, 0, poses["neutral"][eyes]),
        (details, 1, poses["jaw_open"][lips]),
    ):
        K, camera, (width, height) = seen.K[number], seen.head_to_camera[number], seen.size
        x, y, z = project(vertices, K, camera).T
        assert z.min() > 0 and x.min() > 0 and x.max() < width and y.min() > 0 and y.max() < height
    sheet = animation_sheet(fit, head, animation)
    high, wide = sheet.shape[0] // 7, sheet.shape[1] // 2
    panels = [[sheet[row * high : (row + 1) * high, k * wide : (k + 1) * wide] for k in range(2)] for row in range(7)]
    skin = np.abs(sheet.astype(int) - 255).max(axis=-1) > 40
    for row in range(7):
        for k in range(2):
            below = skin[row * high + 80 : (row + 1) * high, k * wide : (k + 1) * wide]
            assert below.mean() > 0.4
    for picture in (panels[0][0], panels[1][0], panels[1][1], panels[2][0]):
        assert np.abs(picture[80:].astype(int) - panels[0][1][80:]).max() > 100, "not the neutral head"


def test_a_head_without_lids_lips_and_texture_shows_what_it_can() -> None:
    toy = toy_head()
    fit = replace(known_fit(toy, similarity()), texture=None)
    animation = animate(fit, toy)
    assert animation.apertures is None
    assert [pose.name for pose in animation.poses] == [name for name in NAMES if name != "lids_closed"]
    assert all(numbers.keys() == {"expression_max"} for numbers in animation.numbers.values())
    sheet = animation_sheet(fit, toy, animation)
    assert len(np.unique(sheet[100:300, 60:160])) > 50, "shaded, not flat"
