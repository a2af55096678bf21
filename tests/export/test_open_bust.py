"""Views from below into an open bust: what they show of its inside is cut, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.export.frames import plan_frames
from flame_fitting.export.neck_surface import NeckPlane
from flame_fitting.export.open_bust import OpenBust
from flame_fitting.maths.normals import vertex_normals
from tests.synthetic import add_rendered
from tests.toy import toy_head


@pytest.mark.parametrize("winding", [1, -1])
def test_inside_of_a_shell_from_below(tmp_path: Path, winding: int) -> None:
    """A dome that is open below, under a head; whichever way its triangles turn."""
    head = toy_head()
    vertices = head.v_template.double().numpy()
    floor = float(vertices[:, 1].min())
    turn, rise = np.meshgrid(np.linspace(0, 2 * np.pi, 49)[:-1], np.linspace(0, 1, 12))
    wide = 0.2 * np.sqrt(1 - 0.9 * rise**2)
    dome = np.stack([wide * np.sin(turn), floor - 0.18 + 0.2 * rise, wide * np.cos(turn)], axis=2).reshape(-1, 3)
    a = (np.arange(11)[:, None] * 48 + np.arange(48)).reshape(-1)
    b = (np.arange(11)[:, None] * 48 + (np.arange(48) + 1) % 48).reshape(-1)
    faces = np.concatenate([np.stack([a, b, a + 48], 1), np.stack([b, b + 48, a + 48], 1)])[:, ::winding]
    parts = [
        MeshPart(vertices=points, faces=triangles, normals=vertex_normals(points, triangles))
        for points, triangles in ((vertices, head.faces.numpy()), (dome, faces))
    ]
    avatar = MeshAvatar(parts=parts, path=Path("memory"), file_hash="", format="memory")
    K = intrinsics_from_fov(35.0, 128, 128)
    eyes = [(2 * np.sin(yaw), y, 2 * np.cos(yaw)) for y in (0.0, 0.9, -0.9) for yaw in np.linspace(0, 5.5, 8)]
    with CaptureWriter(tmp_path, (1.0, 1.0, 1.0), "unlit", AvatarRecord(file="toy.glb")) as writer:
        for camera, eye in enumerate(eyes):
            at = look_at(np.array(eye), [0.0, floor, 0.0], [0.0, 1.0, 0.0])
            add_rendered(writer, avatar, camera, "fit", K, at)
    capture = writer.capture
    frames = plan_frames(capture)
    plane = NeckPlane(np.array([0.0, floor, 0.0]), np.array([0.0, 1.0, 0.0]))
    bust = OpenBust(capture, frames, np.eye(4), head, vertices, plane)
    for frame in frames:
        keep = bust.keep(frame)
        if frame.view.camera < 16:
            assert keep is None
            continue
        assert keep is not None
        # outward of the dome is away from its axis: the inside is what faces the axis
        depth, normal = capture.geometry(frame.view)
        v, u = np.nonzero(depth)
        rays = np.stack([u + 0.5, v + 0.5, np.ones(len(u))], 1) @ np.linalg.inv(K).T * depth[v, u, None]
        w2c = frame.view.world_to_camera
        points = (rays - w2c[:3, 3]) @ w2c[:3, :3]
        low = points[:, 1] < floor - 0.02
        inward = (points[:, [0, 2]] * normal[v, u][:, [0, 2]]).sum(axis=1) < 0
        cut = keep[v, u] < 0.5
        assert cut[low & inward].mean() > 0.9
        assert cut[points[:, 1] > floor + 0.02].mean() < 0.01
        assert cut[low & ~inward].mean() < 0.2  # pixels beside the rim
