"""A toy head that moves before three cameras, and before one: as captures, as a fit and as runs of VHAP."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from flame_fitting.capture.camera import look_at, project, world_to_camera_from_opengl
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.report.drawing import head_avatar
from tests.synthetic import known_fit
from tests.toy import toy_head_data

STEPS = 5
NECK = {
    "neck_left_point": [0.06, -0.06, 0.0],
    "neck_right_point": [-0.06, -0.06, 0.0],
    "front_middle_bottom_point_boundary": [0.0, -0.06, 0.08],
}
SIZES = ((96, 80), (64, 88), (80, 60))
"""Width and height of the three cameras' pictures."""
FOCAL = 2.3
"""Of the single camera, in units of the longer side of its 72 x 90 pictures."""


def neck_head() -> HeadModel:
    """The toy head with a neck cut that lies high enough to cut something."""
    data = toy_head_data()
    for name, place in NECK.items():
        data.regions[name] = np.array([int(np.argmin(np.linalg.norm(data.v_template - place, axis=1)))])
    return HeadModel(data)


def moving_fit(head: HeadModel, with_dynamic_offset: bool = True) -> FitResult:
    """Five timesteps with every parameter moving, far from the origin."""
    rng, still = np.random.default_rng(4), known_fit(head, np.eye(4))
    parameters = {
        "rotation": rng.normal(size=(STEPS, 3)) * 0.2,
        "translation": np.array([0.05, -0.12, 0.08]) + rng.normal(size=(STEPS, 3)) * 0.01,
        "neck_pose": rng.normal(size=(STEPS, 3)) * 0.1,
        "jaw_pose": np.abs(rng.normal(size=(STEPS, 3))) * 0.1,
        "eyes_pose": rng.normal(size=(STEPS, 6)) * 0.1,
        "shape": still.parameters["shape"],
        "expr": rng.normal(size=(STEPS, head.n_expr)) * 0.5,
        "static_offset": rng.normal(size=(1, head.n_vertices, 3)) * 0.0005,
    }
    if with_dynamic_offset:
        parameters["dynamic_offset"] = rng.normal(size=(STEPS, head.n_vertices, 3)) * 0.001
    return replace(still, parameters=parameters, timestep_id=[f"{t:05d}" for t in range(STEPS)])


def rig_cameras() -> list[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """K, world_to_camera and size of three cameras, principal points off the centre."""
    found = []
    for index, (yaw, height) in enumerate(((-0.5, 0.1), (0.1, 0.3), (0.7, -0.3))):
        width, tall = SIZES[index]
        K = np.array([[210.0 + 9 * index, 0, width / 2 + 3], [0, 205.0, tall / 2 - 2], [0, 0, 1]])
        eye = [0.9 * np.sin(yaw) + 0.05, height - 0.1, 0.9 * np.cos(yaw)]
        found.append((K, look_at(eye, [0.05, -0.12, 0.08], [0.03, 1.0, 0.02]), (width, tall)))
    return found


def single_camera() -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The camera of a monocular capture: at (0, 0, 1), looking down -z."""
    w2c = np.diag([1.0, -1.0, -1.0, 1.0])
    w2c[2, 3] = 1.0
    return np.array([[FOCAL * 90, 0, 36.0], [0, FOCAL * 90, 45.0], [0, 0, 1]]), w2c, (72, 90)


def drawn(head: HeadModel, vertices: np.ndarray, camera: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Picture (3, H, W) on white and alpha (H, W) of the head in grey."""
    K, w2c, (width, height) = camera
    out = head_avatar(head, vertices).draw(K[None], w2c[None], width, height, outputs=("image", "alpha"))
    assert out.image is not None and out.alpha is not None
    return out.image[0], out.alpha[0]


def rig_capture(folder: Path, head: HeadModel, fit: FitResult) -> Capture:
    """A capture of the moving head without geometry."""
    world = fit.vertices_world(head)
    with CaptureWriter(folder) as writer:
        for t in range(STEPS):
            for index, camera in enumerate(rig_cameras()):
                image, alpha = drawn(head, world[t], camera)
                placed = {"K": camera[0], "world_to_camera": camera[1], "image": image, "alpha": alpha}
                writer.add(timestep=t, camera=index, role="fit", **placed)
    return writer.capture


def monocular_folder(folder: Path, head: HeadModel, fit: FitResult) -> Path:
    """VHAP's folder of one video: pictures with a real (green) background, alpha maps."""
    world, camera = fit.vertices_world(head), single_camera()
    for name in ("images", "alpha_maps"):
        (folder / name).mkdir(parents=True)
    for t in range(STEPS):
        image, alpha = drawn(head, world[t], camera)
        image = image * alpha + (1 - alpha) * np.array([0.0, 0.8, 0.0])[:, None, None]
        Image.fromarray((image.transpose(1, 2, 0) * 255).astype(np.uint8)).save(
            folder / f"images/{t:06d}.jpg", quality=95, subsampling=0
        )
        Image.fromarray((alpha * 255).astype(np.uint8)).save(folder / f"alpha_maps/{t:06d}.png")
    return folder


def turned(fit: FitResult, head: HeadModel, turn: np.ndarray) -> FitResult:
    """The same head in a world turned about the origin by (3, 3): the head's own rotation pivots at its root joint."""
    from scipy.spatial.transform import Rotation

    p = fit.parameters
    offset = p["static_offset"] + p.get("dynamic_offset", np.zeros(3))
    rest = {"shape": p["shape"], "expr": p["expr"], "static_offset": offset}
    with torch.no_grad():
        root = (
            head(**{k: torch.as_tensor(v).to(head.v_template) for k, v in rest.items()}).joints[:, 0].double().numpy()
        )
    rotation = rotation_matrix(torch.as_tensor(p["rotation"])).numpy()
    moved = {
        "rotation": Rotation.from_matrix(turn @ rotation).as_rotvec(),
        "translation": (root + p["translation"]) @ turn.T - root,
    }
    return replace(fit, parameters=p | moved)


def write_run(folder: Path, fit: FitResult, data: dict, epochs: tuple[int, ...] = (0, 30), **more: np.ndarray) -> Path:
    """What VHAP leaves: config.yml with Python's tags and a file for each epoch, whose translations differ."""
    folder.mkdir(parents=True)
    lines = ["!!python/object:vhap.config.base.TrackingConfig", "data: !!python/object:vhap.config.base.DataConfig"]
    for key, value in data.items():
        if isinstance(value, Path):
            lines += [f"  {key}: !!python/object/apply:pathlib.PosixPath", *(f"  - {part}" for part in value.parts)]
        else:
            lines.append(f"  {key}: {yaml.safe_dump(value).splitlines()[0]}")
    lines += ["  _target: !!python/name:vhap.data.video_dataset.VideoDataset ''", "  box: !!python/tuple", "  - 1"]
    (folder / "config.yml").write_text("\n".join(lines) + "\n")
    arrays = {key: value.astype(np.float32) for key, value in fit.parameters.items()}
    arrays |= {"timestep_id": np.array(fit.timestep_id), "n_processed_frames": np.array(0), **more}
    for epoch in epochs:
        shift = 0.0 if epoch == epochs[-1] else 0.01
        np.savez(
            folder / f"tracked_flame_params_{epoch}.npz", **arrays | {"translation": arrays["translation"] + shift}
        )
    return folder


def entries_of(folder: Path, split: str | None = None) -> list[dict]:
    """Frames of transforms.json, or of a split's file."""
    name = f"transforms_{split}.json" if split else "transforms.json"
    return json.loads((folder / name).read_text())["frames"]


def exported_pixels(folder: Path, entry: dict, head: HeadModel) -> np.ndarray:
    """(V, 2) px of the exported head by the exported camera of a frame."""
    with np.load(folder / entry["flame_param_path"]) as data:
        p = {key: torch.as_tensor(data[key]) for key in data.files}
    p["static_offset"] = p["static_offset"] + p.pop("dynamic_offset", torch.zeros(3))
    vertices = head(**{k: v.to(head.v_template) for k, v in p.items()}).vertices[0].double().numpy()
    K = np.array([[entry["fl_x"], 0, entry["cx"]], [0, entry["fl_y"], entry["cy"]], [0, 0, 1]])
    return project(vertices, K, world_to_camera_from_opengl(np.array(entry["transform_matrix"])))[:, :2]
