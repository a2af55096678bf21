"""VHAP's documented commands, from videos to a union of ten, on the talking head; only the folder's name differs.

Where weights of a matting network cannot be had, the message names the method that works; it takes their place.
Pictures are few and small, and epochs are cut short by flags that VHAP has too.
"""

import faulthandler
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from flame_fitting.capture.camera import project
from flame_fitting.fit.result import load_fit
from flame_fitting.head.loading import load_head
from tests.conftest import REPOSITORY
from tests.export.sequences import entries_of, exported_pixels

if TYPE_CHECKING:
    from scripts.rig.making import Rig

pytestmark = pytest.mark.slow

SUBJECT, SEQUENCE, VIDEO = "074", "EMO-1", "talking"
TEN = ["EMO-1", "EMO-2", "EMO-3", "EMO-4", "EXP-2", "EXP-3", "EXP-4", "EXP-5", "EXP-8", "EXP-9"]
FRAMES, CAMERAS, SIZE = 8, 4, 256
SHORT = "--pipeline.rgb_init_offset.num_steps 6 --pipeline.rgb_global_tracking.num_epochs 1"
UNION = f"export/nersemble/UNION10_{SUBJECT}_EMO1234EXP234589_v16_DS4_whiteBg_staticOffset_maskBelowLine"


def track_folder(sequence: str, version: str = "nersemble") -> str:
    return f"output/{version}/{SUBJECT}_{sequence}_v16_DS4_wBg_staticOffset"


def export_folder(sequence: str, version: str = "nersemble") -> str:
    return f"export/{version}/{SUBJECT}_{sequence}_v16_DS4_whiteBg_staticOffset_maskBelowLine"


@pytest.fixture(autouse=True)
def no_limit() -> None:
    """Each command has a limit of its own (`User.types`); ten sequences may take longer than pytest grants a test."""
    faulthandler.cancel_dump_traceback_later()


class User:
    """Somebody who works in a folder with `data/` and types VHAP's commands."""

    def __init__(self, folder: Path, rig: "Rig") -> None:
        self.folder, self.rig = folder, rig

    def types(self, command: str, status: int = 0, offline: bool = False) -> str:
        """Runs a command as VHAP documents it; what it says. Offline, nothing was downloaded before and nothing can."""
        words = shlex.split(command.replace("vhap/", f"{REPOSITORY}/flame_fitting/", 1))
        proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        alone = {**proxies, "no_proxy": "", "FLAME_FITTING_CACHE": str(self.folder / "cache")} if offline else {}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | alone,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        assert done.returncode == status, f"{command}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def error_px(self, export: str, clip: str) -> float:
        """Median distance of the exported face from the true one, in px of the full pictures."""
        head, truth = load_head("open"), self.rig.truth(clip)
        face = np.flatnonzero(head.region_mask("face").numpy())[::20]
        names, distances = truth["camera_id"].tolist(), []
        for split in ("train", "val", "test"):
            for entry in entries_of(self.folder / export, split):
                timestep = int(entry["timestep_id"])
                if timestep not in truth["vertices_timestep"] or not truth["present"][timestep]:
                    continue
                camera = names.index(entry["camera_id"]) if len(names) > 1 else 0
                points = truth["vertices"][truth["vertices_timestep"].tolist().index(timestep)][face].astype(np.float64)
                true = project(points, truth["K"][camera], truth["world_to_camera"][camera])[:, :2]
                found = exported_pixels(self.folder / export, entry, head)[face]
                scale = truth["size"][camera][0] / entry["w"]
                distances.append(np.linalg.norm(scale * found - true, axis=1))
        return float(np.median(np.concatenate(distances)))


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    """Raw recordings alone, as they are downloaded."""
    from scripts.rig.making import RigConfig, make_rig

    folder = tmp_path_factory.mktemp("user")
    rig = make_rig(
        RigConfig(folder / "rig", frames=FRAMES, size=SIZE, texture_size=512, images=False, alpha_maps=False)
    )
    for clip in ("nersemble", "nersemble_v2", "monocular"):
        shutil.copytree(rig.data_root(clip), folder / "data" / clip)
    shutil.rmtree(folder / "data" / "monocular" / VIDEO)
    return User(folder, rig)


def check_dataset(folder: Path, size: tuple[int, int], cameras: int) -> None:
    """Every file that an entry names is there, pictures have their size, and a timestep is in one split of time."""
    seen = {}
    for split in ("train", "val", "test"):
        for entry in entries_of(folder, split):
            seen[entry["file_path"]] = split
            for key in ("file_path", "fg_mask_path", "flame_param_path"):
                assert (folder / entry[key]).is_file(), entry[key]
            with Image.open(folder / entry["file_path"]) as picture:
                assert picture.size == (entry["w"], entry["h"]) and picture.width in (size[0], size[0] // 2)
    assert len(seen) == FRAMES * cameras
    assert set(seen.values()) == ({"train", "test"} if cameras == 1 else {"train", "val", "test"})
    assert (folder / "canonical_flame_param.npz").is_file()


def white_corners(folder: Path, split: str = "train") -> float:
    """Share of white pixels in the upper corners of a split's pictures."""
    corners = []
    for entry in entries_of(folder, split):
        picture = np.asarray(Image.open(folder / entry["file_path"]).convert("RGB"))
        corners.append(np.concatenate([picture[:4, :4], picture[:4, -4:]]).reshape(-1, 3))
    return float((np.concatenate(corners) > 250).all(1).mean())


def without_weights(user: User, command: str) -> str:
    """A command whose matting network cannot be had ends clearly; the command that its message leads to."""
    method = re.search(r"--matting_method (\S+)", command)
    assert method is not None
    said = user.types(command, status=2, offline=True)
    assert "its weights cannot be downloaded here" in said and "--matting-method selfie" in said
    return command.replace(method.group(0), "--matting_method selfie")


def test_a_rig(user: User) -> None:
    command = f"vhap/preprocess_video.py --input data/nersemble/{SUBJECT}/{SEQUENCE} --downsample_scales 2 4"
    user.types(without_weights(user, f"{command} --matting_method background_matting_v2"))
    folder = user.folder / "data" / "nersemble" / SUBJECT / SEQUENCE
    for name in ("images", "images_2", "images_4", "alpha_maps"):
        assert len(list((folder / name).iterdir())) == FRAMES * CAMERAS
    track, export = track_folder(SEQUENCE), export_folder(SEQUENCE)
    user.types(
        f'vhap/track_nersemble.py --data.root_folder "data/nersemble" --exp.output_folder {track} '
        f"--data.subject {SUBJECT} --data.sequence {SEQUENCE} --data.n_downsample_rgb 4 {SHORT}"
    )
    assert (user.folder / track / "overlay.mp4").is_file() and (user.folder / track / "report.html").is_file()
    user.types(f"vhap/export_as_nerf_dataset.py --src_folder {track} --tgt_folder {export} --background-color white")
    check_dataset(user.folder / export, (SIZE * 11 // 16 // 4, SIZE // 4), CAMERAS)
    assert white_corners(user.folder / export) > 0.9
    assert user.error_px(export, "nersemble") < 3.0


def test_a_rig_of_the_second_version(user: User) -> None:
    folder = f"data/nersemble_v2/{SUBJECT}/sequences/{SEQUENCE}"
    user.types(f"vhap/preprocess_video.py --input {folder} --downsample_scales 2 4 --matting_method selfie")
    track, export = track_folder(SEQUENCE, "nersemble_v2"), export_folder(SEQUENCE, "nersemble_v2")
    user.types(
        f'vhap/track_nersemble_v2.py --data.root_folder "data/nersemble_v2" --exp.output_folder {track} '
        f"--data.subject {SUBJECT} --data.sequence {SEQUENCE} --data.n_downsample_rgb 4 {SHORT}"
    )
    user.types(f"vhap/export_as_nerf_dataset.py --src_folder {track} --tgt_folder {export} --background-color white")
    check_dataset(user.folder / export, (SIZE * 11 // 16 // 4, SIZE // 4), CAMERAS)
    assert user.error_px(export, "nersemble_v2") < 3.0


@pytest.mark.parametrize("options", ["", "--data.landmark_source both --exp.no_photometric"])
def test_a_video(user: User, options: str) -> None:
    # VHAP's document names the video here, or what its name is without an ending
    command = "vhap/preprocess_video.py --input data/monocular/{} --downsample_scales 2 --matting_method {}"
    user.types(without_weights(user, command.format(f"{VIDEO}.mp4", "robust_video_matting")))
    assert "all there already" in user.types(command.format(VIDEO, "selfie"))
    kind = "staticOffset_both" if options else "staticOffset"
    track = f"output/monocular/{VIDEO}_whiteBg_{kind}"
    export = f"export/monocular/{VIDEO}_whiteBg_{kind}_maskBelowLine"
    said = user.types(
        f'vhap/track.py --data.root_folder "data/monocular" --exp.output_folder {track} --data.sequence {VIDEO} '
        f"--data.n_downsample_rgb 2 {options or SHORT}"
    )
    assert not options or "landmarks merged: " in said
    user.types(f"vhap/export_as_nerf_dataset.py --src_folder {track} --tgt_folder {export} --background-color white")
    check_dataset(user.folder / export, (SIZE // 2, SIZE // 2), 1)
    assert white_corners(user.folder / export) > 0.9
    assert user.error_px(export, "monocular") < 3.0


def test_without_offsets_hair_is_occluded(user: User) -> None:
    folder = f"data/nersemble/{SUBJECT}/{SEQUENCE}"
    user.types(f"vhap/preprocess_video.py --input {folder} --downsample_scales 2 4 --matting_method selfie")
    track = track_folder(SEQUENCE).replace("staticOffset", "noOffset")
    user.types(
        f'vhap/track_nersemble.py --data.root_folder "data/nersemble" --exp.output_folder {track} '
        f"--data.subject {SUBJECT} --data.sequence {SEQUENCE} --data.n_downsample_rgb 4 "
        f"--model.no_use_static_offset {SHORT}"
    )
    assert not load_fit(user.folder / track).parameters["static_offset"].any()
    stages = json.loads((user.folder / track / "metrics.json").read_text())["stages"]
    assert "rgb_init_offset" in json.dumps(stages)


def test_ten_sequences_become_a_union(user: User) -> None:
    root = user.folder / "data" / "nersemble" / SUBJECT
    folder = f"data/nersemble/{SUBJECT}/{SEQUENCE}"
    user.types(f"vhap/preprocess_video.py --input {folder} --downsample_scales 2 4 --matting_method selfie")
    for sequence in TEN:
        if sequence != SEQUENCE:
            shutil.copytree(root / SEQUENCE, root / sequence)
        track = track_folder(sequence) + "_landmarks"
        user.types(
            f'vhap/track_nersemble.py --data.root_folder "data/nersemble" --exp.output_folder {track} '
            f"--data.subject {SUBJECT} --data.sequence {sequence} --data.n_downsample_rgb 4 --exp.no_photometric"
        )
        user.types(
            f"vhap/export_as_nerf_dataset.py --src_folder {track} --tgt_folder {export_folder(sequence)} "
            "--background-color white --force"
        )
    sources = " ".join(export_folder(sequence) for sequence in TEN)
    user.types(f"vhap/combine_nerf_datasets.py --src_folders {sources} --tgt_folder {UNION}")
    union = user.folder / UNION
    entries = [entry for split in ("train", "val", "test") for entry in entries_of(union, split)]
    assert len(entries) == len({entry["file_path"] for entry in entries}) == 10 * FRAMES * CAMERAS
    assert all((union / entry["file_path"]).is_file() for entry in entries)
    assert {entry["timestep_index"] for entry in entries} == set(range(10 * FRAMES))
    tested = {name.strip() for name in (union / "sequences_test.txt").read_text().split()}
    assert len(tested) == 1
    assert user.error_px(UNION, "nersemble") < 3.0
