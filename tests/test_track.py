"""The talking head of known truth is tracked by its true landmarks: a rig, a single camera, a frame without a face."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flame_fitting import progress
from flame_fitting.capture.similarity import apply_similarity, robust_umeyama
from flame_fitting.fit.command_line import without_effect
from flame_fitting.fit.result import load_fit
from flame_fitting.fit.schedule import effective_pipeline
from flame_fitting.fit.sources import open_fit
from flame_fitting.fit.track_config import TrackConfig, track_preset
from flame_fitting.head.loading import load_head
from flame_fitting.track import track

if TYPE_CHECKING:
    from scripts.rig.making import Rig


def config_of(rig: "Rig", clip: str, output: Path) -> TrackConfig:
    config = track_preset("track", rig.sequence(clip), monocular=clip == "monocular")
    config.output, config.head, config.device = output, "open", "cpu"
    config.data.landmark_source = ("star",)
    config.exp.photometric = config.log.overlays = config.log.tensorboard = False
    config.model.tex_resolution = 64
    return config


@pytest.mark.parametrize(("clip", "most"), [("nersemble", 1.2), ("monocular", 1.6)])
def test_a_talking_head_is_followed(clip: str, most: float, rig: "Rig", tmp_path: Path) -> None:
    with progress.silent():
        track(config_of(rig, clip, tmp_path / "fit"))
    found, _, capture = open_fit(tmp_path / "fit", head_spec="open")
    truth, head = load_fit(rig.fit(clip)), load_head("open").double()
    assert found.timestep_id == truth.timestep_id and len(capture.timesteps) == 16
    np.testing.assert_array_equal(found.head_from_world, np.eye(4))  # rotation and translation carry the motion
    face = head.region_mask("face").numpy()
    ours, true = found.vertices_world(head)[:, face], truth.vertices_world(head)[:, face]
    if clip == "monocular":
        assert found.focal_length is not None and 0.6 < found.focal_length / 2.0 < 1.6  # a face alone tells little
        fits = [robust_umeyama(a, b).matrix for a, b in zip(ours, true, strict=True)]
        ours = np.stack([apply_similarity(matrix, points) for matrix, points in zip(fits, ours, strict=True)])
    error = 1000 * np.median(np.linalg.norm(ours - true, axis=-1), axis=1)
    absent = np.argmax(error) if clip == "nersemble" else -1
    assert np.median(error) < most, error
    # the frame without a face is bridged: worse than the others, and near what its neighbours say
    assert absent == -1 or error[absent] < 15, error
    opened = found.parameters["jaw_pose"][:, 0]
    assert np.corrcoef(opened, truth.parameters["jaw_pose"][:, 0])[0, 1] > 0.9


@pytest.mark.parametrize("monocular", [True, False])
@pytest.mark.parametrize("name", ["track", "vhap"])
def test_presets_have_nothing_without_effect(name: str, monocular: bool) -> None:
    said = without_effect(track_preset(name, Path("capture"), monocular))
    assert [line for line in said if "smooth" not in line and "landmark" not in line and "reg_" not in line] == []


def test_without_offsets_a_rig_is_still_tracked_by_pictures() -> None:
    config = track_preset("track", Path("capture"), monocular=False)
    config.model.use_static_offset = False
    stages = [stage for _, stage in effective_pipeline(config, has_geometry=False) if "pictures" in stage.looks_at]
    assert stages and all("static_offset" not in stage.optimizable_params for stage in stages)
    assert all("hair" in stage.align_texture_except for stage in stages)  # as in VHAP


def test_timesteps_that_are_held_out_are_bridged_and_measured(rig: "Rig", tmp_path: Path) -> None:
    config = config_of(rig, "monocular", tmp_path / "fit")
    config.data.heldout_every, config.log.video = 4, False
    with progress.silent():
        found = track(config)
    over_time, heldout = found.metrics["over_time"], [2, 6, 10, 14]
    assert over_time["heldout_timesteps"] == [found.timestep_id[row] for row in heldout]
    used = found.landmarks3d["used"]
    assert not used[heldout].any() and used[[0, 1, 3, 4, 5]].any(1).all()  # no landmark of theirs was looked at
    apart, fitted = (over_time["heldout"][name]["landmark_px"]["median"] for name in ("views_held_out", "views_fitted"))
    assert fitted < apart < 8  # px of 128: bridged, if not as well as what was looked at
    # the evaluation at the end of the track looks through the cameras that were found
    _, _, capture = open_fit(tmp_path / "fit", head_spec="open")
    assert found.focal_length is not None and capture.views[0].K[0, 0] == pytest.approx(
        128 * found.focal_length, rel=1e-4
    )
    assert found.metrics["landmarks"]["reprojection_px"]["median"] == pytest.approx(fitted, rel=0.02) and fitted < 1.5
