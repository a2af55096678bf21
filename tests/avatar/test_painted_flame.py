"""A FLAME head has no texture: painted by region, it is found and measured like a face."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.head_calibration import painted_colors, render_head
from flame_fitting.head.completion import complete_flame
from flame_fitting.head.flame_files import read_flame
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.calibration import CalibrationConfig, calibrate
from flame_fitting.landmarks.mediapipe_detector import MediaPipeConfig, MediaPipeDetector
from flame_fitting.landmarks.schemes import scheme_named


def test_a_painted_head_is_found_from_all_sides(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = test_data / "standin" / "flame2023_standin.pkl"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path))
    head = HeadModel(complete_flame(read_flame(path), add_teeth=True))
    detector = MediaPipeDetector(config=MediaPipeConfig(jitter=0))
    once = CalibrationConfig(identities=0, drawn=0)
    clay = calibrate(head, detector, "clay", render_head(head, "clay"), once)
    colors = painted_colors(head, clay)

    red = colors[head.regions["lips_tight"].numpy()]
    assert (red[:, 0] > red[:, 1] + 0.25).all()
    assert np.ptp(colors[head.regions["irises"].numpy()], axis=0).max() == 0
    assert colors[head.regions["sclerae"].numpy()].min() > 0.85 and colors[head.regions["teeth"].numpy()].min() > 0.7
    dark = colors[head.regions["hair"].numpy()].mean()
    assert dark < 0.3 < 0.5 < colors[head.regions["left_cheek"].numpy()].mean()

    shown = render_head(head, "textured", colors)
    views = shown(head.v_template.numpy().astype(np.float64), None)
    found = detector.detect(views.images)
    assert np.isfinite(found[..., 0]).all(), "no face in some view"

    painted = calibrate(head, detector, "textured", shown, once)
    inner = scheme_named("mediapipe478").inner
    assert painted.valid[inner].all() and np.median(painted.spread_mm[inner]) < 2.0
    # The outer contour of the lips is found where the paint ends: on the contour of the mesh.
    vertices = head.v_template.numpy()
    contour = np.concatenate(
        [vertices[head.regions[f"lip_outside_ring_{part}"].numpy()] for part in ("upper", "lower")]
    )
    outer_lip = painted.points(head.v_template[None], head.faces)[0].numpy()[scheme_named("mediapipe478").ibug68[49:54]]
    distance = np.linalg.norm(outer_lip[:, None] - contour[None], axis=-1).min(1)
    assert np.median(distance) < 0.004
    # No point lies on teeth.
    teeth = head.face_mask("teeth").numpy()
    assert not teeth[painted.face_index[painted.valid]].any()
