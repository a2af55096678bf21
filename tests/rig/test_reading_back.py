"""The rig's folders through the readers: cameras and times equal, pictures true, before and after preprocessing."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.opening import find_sequence, open_capture
from flame_fitting.capture.read_options import ReadOptions
from scripts.rig.making import CLIPS, MONOCULAR_FOCAL, SEQUENCE, SUBJECT, Rig
from tests.rig.comparing import decibels

CALIBRATED = ("nersemble", "nersemble_v2")


def check_cameras_and_times(capture: Capture, rig: Rig, clip: str) -> None:
    truth = rig.truth(clip)
    cameras, ids = truth["camera_id"].tolist(), truth["timestep_id"].tolist()
    assert len(capture.views) == len(ids) * len(cameras)
    assert [int(t) for t in capture.timesteps] == list(range(len(ids)))
    for view in capture.views:
        index = view.camera
        assert view.timestep_id == ids[view.timestep]
        assert [view.width, view.height] == truth["size"][index].tolist()
        if clip == "monocular":
            continue
        assert view.camera_id == cameras[index]
        assert np.allclose(view.K, truth["K"][index], atol=1e-6)
        assert np.allclose(view.world_to_camera, truth["world_to_camera"][index], atol=1e-9)


def worst_decibels(capture: Capture, rig: Rig, clip: str) -> float:
    """Of all pictures whose true colours are kept."""
    truth = rig.truth(clip)
    kept = set(truth["vertices_timestep"].tolist())
    views = [view for view in capture.views if view.timestep in kept]
    assert len(views) == len(kept) * len(truth["camera_id"])
    names = truth["camera_id"].tolist()
    return min(
        decibels(image_of(capture, view), rig.true_picture(clip, view.timestep, names[view.camera])) for view in views
    )


def image_of(capture: Capture, view: View) -> np.ndarray:
    """(H, W, 3)."""
    return np.moveaxis(capture.image(view), 0, -1)


@pytest.mark.parametrize("clip", CLIPS)
def test_read_back(clip: str, rig: Rig) -> None:
    capture = open_capture(rig.sequence(clip))
    check_cameras_and_times(capture, rig, clip)
    assert capture.calibrated == (clip != "monocular")
    assert worst_decibels(capture, rig, clip) > 35


@pytest.mark.parametrize("clip", CALIBRATED)
def test_colours_are_wrong_without_their_correction(clip: str, rig: Rig) -> None:
    capture = open_capture(rig.sequence(clip), ReadOptions(use_color_correction=False))
    assert worst_decibels(capture, rig, clip) < 30


@pytest.mark.parametrize("clip", CLIPS)
def test_alpha_is_the_heads(clip: str, rig: Rig) -> None:
    """With alpha and another background, the head stays and what is behind it goes."""
    plain, white = (
        open_capture(rig.sequence(clip)),
        open_capture(rig.sequence(clip), ReadOptions(background_color="white")),
    )
    view, same = plain.views[0], white.views[0]
    alpha = plain.alpha(view)
    assert 0.1 < alpha.mean() < 0.6
    inside, outside = alpha > 0.999, alpha < 0.001
    one, other = image_of(plain, view), image_of(white, same)
    assert np.abs(one - other)[inside].max() < 1e-3
    assert (other[outside] > 0.999).all() and (one[outside] < 0.95).any()


def test_monocular_camera_stands_where_the_truth_has_it(rig: Rig) -> None:
    """VHAP's guess of the focal length is another one than the truth's: a tracker has to find it."""
    truth, view = rig.truth("monocular"), open_capture(rig.sequence("monocular")).views[0]
    assert np.allclose(view.world_to_camera, truth["world_to_camera"][0])
    assert np.allclose(view.K[:2, 2], truth["K"][0][:2, 2])
    assert np.isclose(truth["K"][0][0, 0], MONOCULAR_FOCAL * max(view.width, view.height))


@pytest.mark.parametrize("clip", CALIBRATED)
def test_subjects_and_sequences_are_found(clip: str, rig: Rig) -> None:
    for name in (SEQUENCE, SEQUENCE[:3]):
        assert find_sequence(rig.data_root(clip), SUBJECT, name) == rig.sequence(clip)


@pytest.mark.parametrize("clip", CLIPS)
def test_subsets_keep_the_numbers_of_the_whole(clip: str, rig: Rig) -> None:
    capture = open_capture(rig.sequence(clip), ReadOptions(subset="ti4tj6"))
    assert capture.timesteps == [4, 5, 6]
    assert {view.timestep_id for view in capture.views} == {f"{t:06d}" for t in (4, 5, 6)}
    whole = {(v.timestep, v.camera): v for v in open_capture(rig.sequence(clip)).views}
    for view in capture.views:
        assert view.file_path == whole[view.timestep, view.camera].file_path


# Tracks


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("kind", ["fit", "run"])
def test_true_tracks_open_with_their_captures(kind: str, clip: str, rig: Rig) -> None:
    """Both forms give the truth's vertices in the captures' world, and the video's true focal length."""
    pytest.importorskip("flame_fitting.fit.vhap_runs")
    from flame_fitting.fit.sources import open_fit

    truth = rig.truth(clip)
    fit, head, capture = open_fit(rig.fit(clip) if kind == "fit" else rig.run(clip), head_spec="open")
    check_cameras_and_times(capture, rig, clip)
    assert np.abs(fit.vertices_world(head)[truth["vertices_timestep"]] - truth["vertices"]).max() < 1e-6
    assert np.allclose(capture.views[0].K, truth["K"][0], atol=1e-6)


# After preprocessing


def raw_copy(rig: Rig, clip: str, folder: Path) -> tuple[Path, Path]:
    """The recording as it is downloaded, without pictures: what preprocess takes, and the sequence's folder."""
    source, target = rig.data_root(clip), folder / clip
    shutil.copytree(source, target, ignore=lambda _, names: [n for n in names if n.endswith((".jpg", ".png", ".npz"))])
    if clip == "monocular":
        shutil.rmtree(target / rig.sequence(clip).name)
        return target / rig.video.name, target / rig.sequence(clip).name
    sequence = target / rig.sequence(clip).relative_to(source)
    for name in ("alpha_maps", "landmark2d"):
        shutil.rmtree(sequence / name)
    return sequence, sequence


@pytest.mark.parametrize("clip", CLIPS)
def test_read_back_after_preprocessing(clip: str, rig: Rig, tmp_path: Path) -> None:
    preprocessing = pytest.importorskip("flame_fitting.preprocess_video")
    given, sequence = raw_copy(rig, clip, tmp_path)
    preprocessing.preprocess(preprocessing.PreprocessConfig(input=str(given), downsample_scales=(2,)))
    capture = open_capture(sequence)
    check_cameras_and_times(capture, rig, clip)
    assert worst_decibels(capture, rig, clip) > 35
    half = open_capture(sequence, ReadOptions(n_downsample_rgb=2))
    view, large = half.views[0], capture.views[0]
    assert (view.width, view.height) == (large.width // 2, large.height // 2)
    assert np.allclose(view.K[:2], 0.5 * large.K[:2])
