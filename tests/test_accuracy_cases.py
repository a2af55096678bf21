"""Cases of the accuracy bench: captures are readable, landmarks are the truth's, occluders hide but do not move."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.opening import open_capture
from flame_fitting.landmarks.files import read_landmarks
from flame_fitting.landmarks.schemes import scheme_named
from flame_fitting.render.shading import sh_shading
from scripts.accuracy import cases
from scripts.accuracy.cases import Case, Places, all_cases
from scripts.accuracy.rig import draw_lights

SIZE, VIEWS = 96, 12


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bare head and the same one with hair, glasses and a body, small."""
    folder = tmp_path_factory.mktemp("cases")
    patch = pytest.MonkeyPatch()
    patch.setattr(cases, "TEXTURE_SIZE", 256)
    patch.setattr(cases, "HELDOUT", 1)
    cases.make_subject.cache_clear()
    try:
        for case in small_cases():
            cases.build(case, folder / case.name, Places(folder))
    finally:
        patch.undo()
    cases.make_subject.cache_clear()
    return {case.name: folder / case.name for case in small_cases()}


def small_cases() -> list[Case]:
    wanted = ("bare_0", "hair_0", "glasses_0", "body_0")
    return [dataclasses.replace(case, size=SIZE, views=VIEWS) for case in all_cases() if case.name in wanted]


def truth(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "avatar" / "ground_truth.npz", allow_pickle=False) as data:
        return dict(data)


def seen_points(folder: Path) -> tuple[Capture, np.ndarray]:
    capture = open_capture(folder / "capture")
    return capture, read_landmarks(capture, "mediapipe").landmarks[0]


def test_landmarks_are_the_truth_with_noise(built: dict[str, Path]) -> None:
    capture, found = seen_points(built["bare_0"])
    points = truth(built["bare_0"])["landmarks"]
    errors = []
    for view in capture.views_of("fit"):
        row = found[capture.cameras.index(view.camera)]
        seen = np.isfinite(row).all(1)
        errors.append(row[seen, :2] - project(points[seen], view.K, view.world_to_camera)[:, :2])
    pooled = np.concatenate(errors)
    assert len(pooled) > 100
    expected = 1.5 * SIZE / 512
    assert 0.85 * expected < pooled.std() < 1.15 * expected
    assert np.abs(pooled).max() < 5 * expected
    assert not read_landmarks(capture, "mediapipe").made_here  # else a fit would detect anew


def test_no_landmarks_in_heldout_views_and_from_behind(built: dict[str, Path]) -> None:
    capture, found = seen_points(built["bare_0"])
    frame = capture.avatar.head_from_world
    for view in capture.views:
        row = found[capture.cameras.index(view.camera)]
        eye = np.linalg.inv(view.world_to_camera)[:3, 3] @ frame[:3, :3].T + frame[:3, 3]
        if view.role == "heldout" or eye[2] < -0.2:
            assert not np.isfinite(row).any()


def test_points_of_the_far_side_are_dropped(built: dict[str, Path]) -> None:
    capture, found = seen_points(built["bare_0"])
    frame = capture.avatar.head_from_world
    points = truth(built["bare_0"])["landmarks"] @ frame[:3, :3].T + frame[:3, 3]
    count = 0
    for view in capture.views_of("fit"):
        eye = np.linalg.inv(view.world_to_camera)[:3, 3] @ frame[:3, :3].T + frame[:3, 3]
        if abs(eye[0]) > 0.8 * np.linalg.norm(eye):
            seen = np.isfinite(found[capture.cameras.index(view.camera)]).all(1)
            count += int(seen.sum())
            assert (np.sign(eye[0]) * points[seen, 0] > -0.015).all()
    assert count > 0


def test_occluders_do_not_move_the_truth(built: dict[str, Path]) -> None:
    bare = truth(built["bare_0"])
    for name, folder in built.items():
        there = truth(folder)
        np.testing.assert_array_equal(there["vertices"], bare["vertices"], err_msg=name)
        np.testing.assert_array_equal(there["landmarks"], bare["landmarks"], err_msg=name)


def test_occluders_hide_points_and_leave_the_rest(built: dict[str, Path]) -> None:
    _, bare = seen_points(built["bare_0"])
    for name in ("hair_0", "glasses_0", "body_0"):
        capture, found = seen_points(built[name])
        there = np.isfinite(found).all(-1)
        both = there & np.isfinite(bare).all(-1)
        assert both.sum() >= 0.99 * there.sum(), name
        np.testing.assert_array_equal(found[both], bare[both], err_msg=name)
        if name == "glasses_0":
            assert there.sum() < np.isfinite(bare).all(-1).sum() - 10
        assert len(capture.views_of("fit")) == VIEWS


def test_hair_covers_the_scalp_and_not_the_face(built: dict[str, Path]) -> None:
    from flame_fitting.head.loading import load_head

    head, there = load_head("open"), truth(built["hair_0"])
    with (
        np.load(built["hair_0"] / "avatar" / "mesh.npz") as mesh,
        np.load(built["bare_0"] / "avatar" / "mesh.npz") as bare,
    ):
        shell = mesh["vertices"][len(bare["vertices"]) :]
    frame = there["head_from_world"]
    shell, vertices = (points @ frame[:3, :3].T + frame[:3, 3] for points in (shell, there["vertices"]))
    lips = vertices[head.regions["lips"].numpy()]
    scalp = vertices[head.regions["scalp"].numpy()]
    assert shell[:, 1].max() > scalp[:, 1].max() + 0.006
    assert shell[:, 1].max() < scalp[:, 1].max() + 0.035
    front = shell[shell[:, 2] > np.median(lips[:, 2]) - 0.03]
    assert front[:, 1].min() > vertices[head.regions["eyes"].numpy()][:, 1].max()


def test_a_rig_is_metric_sees_all_points_and_its_offsets_are_outside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flame_fitting.head.loading import load_head

    monkeypatch.setattr(cases, "TEXTURE_SIZE", 128)
    monkeypatch.setattr(cases, "HELDOUT", 1)
    case = Case("rig", "rig", 3, views=16, size=SIZE, landmarks="whole", rig=True)
    cases.build(case, tmp_path, Places(tmp_path))
    capture, found = seen_points(tmp_path)
    there = truth(tmp_path)
    assert there["mm_per_unit"] == 1000 and np.linalg.det(there["head_from_world"][:3, :3]) == pytest.approx(1)
    assert capture.shading == "lit"
    centre = there["head_from_world"][:3, 3]
    assert np.linalg.norm(centre) < 0.06

    rows = np.isfinite(found).all(-1)
    assert rows.any(1).sum() == 11 and not rows[[c.camera for c in capture.views_of("heldout")]].any()
    valid = np.isfinite(there["landmarks"]).all(1)
    inner = np.isin(np.arange(len(valid)), scheme_named("mediapipe478").inner) & valid
    assert rows[rows.any(1)][:, inner].all(), "hidden ones, too"
    error = [
        found[view.camera, inner, :2] - project(there["landmarks"][inner], view.K, view.world_to_camera)[:, :2]
        for view in capture.views_of("fit")
        if rows[view.camera].any()
    ]
    assert np.std(error) == pytest.approx(1.5 * SIZE / 512, rel=0.1)

    head = load_head("open", add_teeth=False)
    basis = np.concatenate([head.shapedirs.numpy(), head.exprdirs.numpy()], axis=2).astype(np.float64)
    basis = basis.reshape(-1, basis.shape[2])
    offset = there["static_offset"].reshape(-1)
    expressed = basis @ np.linalg.lstsq(basis, offset, rcond=None)[0]
    assert np.linalg.norm(expressed) < 1e-6 * np.linalg.norm(offset)
    face = head.regions["face"].numpy()
    assert np.sqrt((there["static_offset"][0, face] ** 2).sum(1).mean()) == pytest.approx(0.002)


def test_light_of_a_rig_is_nearly_white_and_at_most_one() -> None:
    for seed in range(5):
        lights = torch.as_tensor(draw_lights(np.random.default_rng(seed)))
        normals = torch.nn.functional.normalize(torch.randn(2000, 3, dtype=torch.float64), dim=1)
        shading = sh_shading(normals, lights)
        assert 0.9 < shading.max() < 1.02 and shading.min() > 0.2
        assert (shading.std(1) / shading.mean(1)).max() < 0.06
        assert shading.mean(1).std() > 0.05, "no light without direction"


def test_cases_without_their_files_are_named(tmp_path: Path) -> None:
    by_name = {case.name: case for case in all_cases()}
    assert len(by_name) == len(all_cases())
    places = Places(tmp_path, landmarks=tmp_path)
    assert not places.missing(by_name["bare_0"])
    assert "flame2023_standin.pkl" in places.missing(by_name["standin_0"])
    assert "detected_0.npz" in places.missing(by_name["detected_0"])
    for case in all_cases():
        assert not case.like or by_name[case.like].kind.startswith("bare")
