"""metrical-tracker's folder of a fit: plain readers of torch files, PLY and PNG are shown the same head."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import trimesh

from flame_fitting.capture.camera import move_camera, project
from flame_fitting.capture.capture import Capture
from flame_fitting.export.dialects.rotations import matrix_from_6d
from flame_fitting.export.tracker_folder import write_tracker_folder
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from tests.export.sequences import STEPS, moving_fit, neck_head, rig_capture
from tests.synthetic import similarity

CAMERA = 2


def written(folder: Path) -> tuple[FitResult, Capture, HeadModel, Path]:
    head = neck_head()
    fit = replace(moving_fit(head), head_from_world=similarity())  # the world in another unit, turned
    capture = rig_capture(folder / "render", head, moving_fit(head))
    world_from_head = np.linalg.inv(fit.head_from_world)
    views = [replace(v, world_to_camera=move_camera(v.world_to_camera, world_from_head)) for v in capture.views]
    capture, out = replace(capture, views=views), folder / "out"
    out.mkdir()
    done: list[None] = []
    count = write_tracker_folder(out, fit, head, capture, CAMERA, lambda: done.append(None))
    assert count == len(done) == STEPS
    return fit, capture, head, out


def test_meshes_and_cameras_show_the_fit(tmp_path: Path) -> None:
    fit, capture, head, out = written(tmp_path)
    names = [f"{t:05d}" for t in range(STEPS)]
    for t, name in enumerate(names):
        content = torch.load(out / "checkpoint" / f"{name}.frame", weights_only=False)
        assert content["frame_id"] == name and set(content) >= {"flame", "opencv", "camera", "img_size", "global_step"}
        flame, seen = content["flame"], content["opencv"]
        sizes = {"exp": (1, 100), "shape": (1, 300), "eyes": (1, 12), "eyelids": (1, 2), "jaw": (1, 6)}
        assert {key: flame[key].shape for key in sizes} == sizes
        np.testing.assert_allclose(flame["exp"][0, : head.n_expr], fit.parameters["expr"][t], atol=1e-6)
        mesh = trimesh.load(out / "mesh" / f"{name}.ply", process=False)
        camera = np.eye(4)
        camera[:3, :3], camera[:3, 3] = seen["R"][0], seen["t"][0]
        view = next(v for v in capture.views_of("fit", timestep=t) if v.camera == CAMERA)
        wanted = project(fit.vertices_world(head, [t])[0], view.K, view.world_to_camera)
        got = project(mesh.vertices, seen["K"][0], camera)
        np.testing.assert_allclose(got[:, :2], wanted[:, :2], atol=2e-3)
        scale = np.cbrt(np.linalg.det(fit.head_from_world[:3, :3]))
        np.testing.assert_allclose(got[:, 2], wanted[:, 2] * scale, rtol=1e-4)  # metres
        # PyTorch3D: row vectors, x left, y up, normalised by half the shorter side
        other, (height, width) = content["camera"], content["img_size"]
        local = mesh.vertices @ matrix_from_6d(other["R"])[0] + other["t"]
        ndc = other["fl"] * local[:, :2] / local[:, 2:] + other["pp"]
        half = min(height, width) / 2
        x, y = ([width / 2, height / 2] - half * ndc).T
        np.testing.assert_allclose(x, wanted[:, 0], atol=2e-3)
        K = seen["K"][0].astype(np.float64)  # one focal length is all that this camera has
        np.testing.assert_allclose((y - K[1, 2]) * K[1, 1] / K[0, 0] + K[1, 2], wanted[:, 1], atol=2e-3)
        depth = cv2.imread(str(out / "depth" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16 and depth.shape == (height, width)
        assert abs(depth[depth > 0].min() - 1000 * got[:, 2].min()) < 3  # mm
        picture = cv2.imread(str(out / "input" / f"{name}.png"))
        np.testing.assert_array_equal(picture[..., ::-1], np.round(255 * capture.image(view)).transpose(1, 2, 0))


def test_canonical_is_the_person_at_rest(tmp_path: Path) -> None:
    fit, _, head, out = written(tmp_path)
    rest = trimesh.load(out / "canonical.obj", process=False)
    offset = torch.as_tensor(fit.parameters["static_offset"], dtype=head.v_template.dtype)
    jaw = torch.tensor([[np.radians(12.0), 0, 0]], dtype=head.v_template.dtype)
    shape = torch.as_tensor(fit.parameters["shape"], dtype=head.v_template.dtype)
    wanted = head(shape=shape, static_offset=offset, jaw_pose=jaw).vertices[0].numpy()
    np.testing.assert_allclose(rest.vertices, wanted, atol=1e-5)
