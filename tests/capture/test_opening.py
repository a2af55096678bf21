"""Which kind of folder is which, sequences by name, and what options make of a recording."""

import os
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flame_fitting.capture import choosing
from flame_fitting.capture.camera import project
from flame_fitting.capture.choosing import DIVISIONS
from flame_fitting.capture.opening import find_sequence, kind_of, open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.capture.subset import select
from flame_fitting.errors import InputError
from tests.capture.synthetic_folders import disc, gradient, monocular, nersemble, psnr, rig, write_picture

K = np.array([[30.0, 0, 11.0], [0, 30.0, 8.5], [0, 0, 1]])


def recording(top: Path, count: int = 3, steps: int = 4) -> Path:
    cameras = rig(count)
    return nersemble(top, 2, {f"{n:02d}": (K, cameras[n], (24, 16)) for n in range(count)}, steps, suffix=".png")


def test_a_choice_keeps_the_numbers_of_the_whole_recording(tmp_path: Path) -> None:
    root = recording(tmp_path)
    whole = open_capture(root)
    part = open_capture(root, ReadOptions(subset="ti1tj2ci2"))
    assert [view.key for view in part.views] == ["00001_02", "00002_02"]
    assert (part.timesteps, part.cameras) == ([1, 2], [2])
    assert (part.timestep_ids, part.camera_ids) == (whole.timestep_ids, whole.camera_ids)
    for view in part.views:
        (same,) = [other for other in whole.views if other.key == view.key]
        np.testing.assert_array_equal(part.image(view), whole.image(same))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 30),
    cameras=st.integers(1, 16),
    a=st.integers(0, 29),
    b=st.integers(0, 29),
    k=st.integers(1, 20),
)
def test_the_grammar_of_subsets(steps: int, cameras: int, a: int, b: int, k: int) -> None:
    times, rig_ = list(range(steps)), list(range(cameras))

    def chosen(text: str) -> tuple[list[int], list[int]] | None:
        try:
            return select(text, times, rig_)
        except InputError:
            return None

    between = [t for t in times if a <= t <= b]
    assert chosen(f"ti{a}") == (([a], rig_) if a < steps else None)
    assert chosen(f"ti{a}tj{b}") == ((between, rig_) if between else None)
    assert chosen(f"ts{k}") == ([t for t in times if t % k == 0], rig_)
    assert chosen(f"cs{k}") == (times, [c for c in rig_ if c % k == 0])
    spread = chosen(f"tn{k}")
    assert spread is not None and len(spread[0]) == min(k, steps) == len(set(spread[0])) and spread[0][0] == 0
    gaps = np.diff([*spread[0], steps])
    assert gaps.max() - gaps.min() <= 1  # even
    assert chosen(f"ts{k}_cs2") == (chosen(f"ts{k}")[0], chosen("cs2")[1]) == chosen(f"ts{k}cs2")  # type: ignore[index]


@pytest.mark.parametrize("subset", ["t3", "ti9", "ci7", "tn0", "cs0", "ti2tj1"])
def test_wrong_subsets_name_the_flag(tmp_path: Path, subset: str) -> None:
    root = recording(tmp_path)
    with pytest.raises(InputError, match=f"--data.subset {subset}"):
        open_capture(root, ReadOptions(subset=subset))


def test_divisions_are_vhap_s(tmp_path: Path) -> None:
    root = recording(tmp_path, 16, 1)
    parts = {name: open_capture(root, ReadOptions(division=name)).cameras for name in DIVISIONS}
    assert parts["train"] == [0, 1, 2, 4, 5, 7, 8, 9, 10, 12, 13, 14] and parts["val"] == [3, 6, 11, 15]
    assert (parts["front-view"], parts["side-view"]) == ([8], [0]) and parts["six-view"] == [0, 1, 7, 8, 14, 15]
    # a subset counts within its division
    assert open_capture(root, ReadOptions(division="val", subset="ci1")).cameras == [6]
    assert open_capture(root, ReadOptions(division="front_view")).cameras == [8]


def test_divisions_of_another_rig_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="16 cameras"):
        open_capture(recording(tmp_path), ReadOptions(division="train"))
    with pytest.raises(InputError, match="no such division"):
        open_capture(recording(tmp_path), ReadOptions(division="front"))
    with pytest.raises(InputError, match="is none"):
        open_capture(monocular(tmp_path / "obama"), ReadOptions(division="train"))


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(0.2, 1.0), n=st.integers(1, 4))
def test_scaled_cameras_see_the_same_directions(
    tmp_path_factory: pytest.TempPathFactory, factor: float, n: int
) -> None:
    root = tmp_path_factory.getbasetemp() / "scaled"
    if not root.exists():
        recording(root, 1, 1)
    (full,) = open_capture(root / "074" / "sequences" / "EMO-1").views
    options = ReadOptions(n_downsample_rgb=n, scale_factor=factor)
    with mock.patch.object(choosing, "SMALLEST_PICTURE", 1):
        capture = open_capture(root / "074" / "sequences" / "EMO-1", options)
    (view,) = capture.views
    assert view.width == max(1, round(24 // n * factor)) and view.height == max(1, round(16 // n * factor))
    points = np.random.default_rng(0).normal(size=(20, 3)) * 0.1
    before, after = (project(points, one.K, one.world_to_camera)[:, :2] for one in (full, view))
    # borders stay, and with them the half pixel between a corner and its pixel's centre
    np.testing.assert_allclose(after / [view.width, view.height], before / [24, 16], atol=1e-9)
    if view.width >= 8:
        truth = gradient(view.K, view.world_to_camera, view.width, view.height).transpose(2, 0, 1)
        assert psnr(capture.image(view), truth) > 40


def test_a_background_is_put_behind_by_alpha_also_where_alpha_is_not_used(tmp_path: Path) -> None:
    root = recording(tmp_path, 1, 1)
    plain = open_capture(root)
    for color, name in ((1.0, "white"), (0.0, "black")):
        capture = open_capture(root, ReadOptions(background_color=name, use_alpha_map=False))
        (view,) = capture.views
        assert view.mask_path is None and (capture.alpha(view) == 1).all()
        alpha = plain.alpha(plain.views[0])
        expected = plain.image(plain.views[0]) * alpha + color * (1 - alpha)
        np.testing.assert_allclose(capture.image(view), expected, atol=1e-6)
    assert not plain.composited


def test_a_background_without_alpha_is_said(tmp_path: Path) -> None:
    for step in range(2):
        write_picture(tmp_path / "images" / f"{step:06d}.png", np.full((8, 8, 3), 0.3))
    said: list[str] = []
    capture = open_capture(tmp_path, ReadOptions(background_color="white"), notify=said.append)
    assert said == list(capture.notes) and "has no alpha maps" in said[0]
    np.testing.assert_allclose(capture.image(capture.views[0]), 0.3, atol=0.01)


def test_alpha_of_another_shape_is_named(tmp_path: Path) -> None:
    root = monocular(tmp_path / "obama")
    write_picture(root / "alpha_maps" / "000001.jpg", disc(32, 48))
    capture = open_capture(root)
    with pytest.raises(InputError, match=r"alpha_maps/000001\.jpg: is 32 x 48"):
        capture.alpha(capture.views[1])


@pytest.mark.parametrize(
    "options", [{"scale_factor": 1.5}, {"scale_factor": 0.0}, {"n_downsample_rgb": 0}, {"background_color": "pink"}]
)
def test_options_that_mean_nothing(tmp_path: Path, options: dict) -> None:
    root = monocular(tmp_path / "obama")
    with pytest.raises(InputError, match="--data"):
        open_capture(root, ReadOptions(**options))


def test_kinds(tmp_path: Path) -> None:
    assert kind_of(monocular(tmp_path / "obama")) == "monocular"
    assert kind_of(recording(tmp_path / "v2", 1, 1)) == "nersemble-v2"
    assert kind_of(nersemble(tmp_path / "v1", 1, {"1": (K, rig(1)[0], (24, 16))}, 1)) == "nersemble-v1"


def test_a_folder_is_known_from_inside_and_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = recording(tmp_path / "data", 2, 1)
    monkeypatch.chdir(root)
    assert len(open_capture(".").views) == 2
    os.symlink(tmp_path / "data", tmp_path / "linked")
    assert len(open_capture(tmp_path / "linked/074/sequences/EMO-1").views) == 2


def test_what_is_no_capture_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "cam_1.mp4").write_bytes(b"")
    (tmp_path / "talk.mp4").write_bytes(b"")
    write_picture(tmp_path / "bare" / "frame0.png", np.zeros((4, 4, 3)))
    write_picture(tmp_path / "copied" / "images" / "00000_01.png", np.zeros((4, 4, 3)))
    for name, said in (
        ("nowhere", "no such folder"),
        ("empty", "transforms.json"),
        ("raw", "flame-fitting preprocess --input"),
        ("talk.mp4", "flame-fitting preprocess --input"),
        ("bare/frame0.png", "is a file. Give the folder"),
        ("bare", "move them into .*images"),
        ("copied", "no transforms.json"),
    ):
        with pytest.raises(InputError, match=said):
            open_capture(tmp_path / name)


@pytest.mark.parametrize("folder", ["images", "images_4"])
@pytest.mark.parametrize(
    ("held", "said"), [((), "is empty"), (("b.heic", "a.txt"), "holds a.txt, b.heic, no pictures")]
)
def test_a_folder_for_pictures_that_has_none_is_not_called_missing(
    folder: str, held: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    root = tmp_path / "obama"
    (root / folder).mkdir(parents=True)
    for name in (*held, ".DS_Store"):
        (root / folder / name).touch()
    with pytest.raises(InputError) as error:
        open_capture(root)
    assert str(error.value).startswith(f"{root / folder}: {said}. Looked for were .png, .jpg, ")
    assert str(error.value).endswith("preprocess --input VIDEO")
    (tmp_path / "obama.mov").touch()
    with pytest.raises(InputError, match=re.escape(f"preprocess --input {tmp_path / 'obama.mov'}")):
        open_capture(root)


def test_sequences_by_name(tmp_path: Path) -> None:
    for name in ("EMO-1", "EMO-1-shout", "EMO-2-surprise", "EXP-1", "EXP-12"):
        (tmp_path / "074" / name).mkdir(parents=True)
        (tmp_path / "075" / "sequences" / name).mkdir(parents=True)
    (tmp_path / "obama2").mkdir()
    assert find_sequence(tmp_path, "074", "EMO-1") == tmp_path / "074" / "EMO-1"
    assert find_sequence(tmp_path, "074", "EMO-2") == tmp_path / "074" / "EMO-2-surprise"
    assert find_sequence(tmp_path, "075", "EMO-2") == tmp_path / "075" / "sequences" / "EMO-2-surprise"
    assert find_sequence(tmp_path, None, "obama") == tmp_path / "obama2"
    for subject, sequence, said in (
        ("074", "EMO", "EMO-1, EMO-1-shout, EMO-2-surprise"),
        ("074", "SEN", "Sequences there: EMO-1"),
        ("099", "EMO-1", "Subjects there: 074, 075"),
        ("074", "", "--data.sequence"),
    ):
        with pytest.raises(InputError, match=said):
            find_sequence(tmp_path, subject, sequence)


def test_a_scale_that_leaves_next_to_nothing_is_refused(tmp_path: Path) -> None:
    root = monocular(tmp_path / "obama", size=(48, 32))
    assert open_capture(root, ReadOptions(scale_factor=0.5)).views[0].height == 16
    with pytest.raises(InputError, match=r"--data\.scale-factor 0\.45: next to nothing is left of 48 x 32 px"):
        open_capture(root, ReadOptions(scale_factor=0.45))
    with pytest.raises(InputError, match=r"--data\.n-downsample-rgb 40: leaves nothing"):
        open_capture(root, ReadOptions(n_downsample_rgb=40))
