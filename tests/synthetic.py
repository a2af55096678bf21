"""A toy head rendered as a capture, with the fit that it was rendered from: everything about it is known."""

from pathlib import Path

import numpy as np

from flame_fitting.avatar.interface import Avatar
from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, move_camera
from flame_fitting.capture.capture import Capture, Role
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.fit.result import FitResult, save_parameters
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import Manifest, input_record
from flame_fitting.report.drawing import head_avatar


def similarity(scale: float = 0.02, seed: int = 3) -> np.ndarray:
    """A head_from_world with a turn, a shift and a scale."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    out = np.eye(4)
    out[:3, :3] = scale * q * np.sign(np.linalg.det(q))
    out[:3, 3] = [0.02, -0.01, 0.03]
    return out


def known_fit(head: HeadModel, head_from_world: np.ndarray, seed: int = 0) -> FitResult:
    """A fit with every parameter set, a chequered texture and no offsets."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((64, 64)) // 8
    texture = np.full((64, 64, 3), (200, 150, 120), dtype=np.uint8)
    texture[(rows + columns) % 2 == 0] = (120, 160, 210)
    return FitResult(
        head_name=head.name,
        head_hash=head.file_hash,
        parameters={
            "rotation": np.zeros((1, 3)),
            "translation": np.zeros((1, 3)),
            "neck_pose": np.zeros((1, 3)),
            "jaw_pose": np.array([[0.1, 0.0, 0.0]]),
            "eyes_pose": np.zeros((1, 6)),
            "shape": rng.normal(size=head.n_shape),
            "expr": rng.normal(size=(1, head.n_expr)) * 0.5,
            "static_offset": np.zeros((1, head.n_vertices, 3)),
        },
        head_from_world=head_from_world,
        image_size=(128, 128),
        timestep_id=["00000"],
        texture=texture,
    )


def add_rendered(
    writer: CaptureWriter,
    avatar: Avatar,
    camera: int,
    role: Role,
    K: np.ndarray,
    world_to_camera: np.ndarray,
    timestep: int = 0,
    name: str = "",
    shading: str = "unlit",
) -> None:
    """Draws one view of an avatar, its principal point in the middle, and adds it to a timestep of a capture."""
    width, height = (round(2 * length) for length in K[:2, 2])
    out = avatar.draw(K[None], world_to_camera[None], width, height, shading)
    assert out.image is not None and out.alpha is not None and out.depth is not None and out.normal is not None
    writer.add(
        timestep=timestep,
        timestep_id=name,
        camera=camera,
        role=role,
        K=K,
        world_to_camera=world_to_camera,
        image=out.image[0],
        alpha=out.alpha[0],
        depth=out.depth[0],
        normal=out.normal[0],
    )


def render_case(
    folder: Path, head: HeadModel, fit: FitResult, n_fit: int = 10, n_heldout: int = 3, size: int = 128
) -> Capture:
    """Renders the fit itself as the avatar into `folder`/render, all around, level and from above and below."""
    avatar = head_avatar(head, fit.vertices_world(head)[0], fit.texture)
    count = n_fit + n_heldout + 1
    with CaptureWriter(folder / "render", (1.0, 1.0, 1.0), "unlit", AvatarRecord(file="toy.glb")) as writer:
        for camera in range(count):
            role: Role = "fit" if camera < n_fit else "heldout" if camera < n_fit + n_heldout else "landmark"
            number = camera if role == "fit" else camera - n_fit + 0.5
            yaw = 2 * np.pi * number / (n_fit if role == "fit" else n_heldout)
            yaw = 0.0 if role == "landmark" else yaw
            height = 0.0 if camera % 2 == 0 else 0.25 * (-1) ** (camera // 2)
            in_head = look_at([0.9 * np.sin(yaw), height, 0.9 * np.cos(yaw)], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
            K = intrinsics_from_fov(22.0, size, size)
            camera_matrix = move_camera(in_head, np.linalg.inv(fit.head_from_world))
            add_rendered(writer, avatar, camera, role, K, camera_matrix)
    return writer.capture


def save_case(folder: Path, fit: FitResult, capture: Capture) -> Path:
    """Writes the parts of a fit folder that other stages read."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    save_parameters(folder / "tracked_flame_params.npz", fit)
    if fit.texture is not None:
        Image.fromarray(fit.texture).save(folder / "texture.png")
    head = {"name": fit.head_name, "sha256": fit.head_hash}
    inputs = {"capture": input_record(capture.root, folder)}
    Manifest(stage="fit", inputs=inputs, head=head, detector="mediapipe", finished=True).write(folder)
    return folder
