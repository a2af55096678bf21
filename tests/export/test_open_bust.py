"""Views from below into an open bust: what they show of its inside is cut, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, unproject
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.export import bust_views
from flame_fitting.export.bust_views import left_out, with_rest
from flame_fitting.export.frames import plan_frames
from flame_fitting.export.open_bust import HeadFrame, OpenBust
from flame_fitting.manifest import Manifest, read_manifest
from flame_fitting.maths.normals import vertex_normals
from tests.export.jobs import exported
from tests.synthetic import add_rendered, known_fit, save_case
from tests.toy import toy_head

Mesh = tuple[NDArray[np.float64], NDArray[np.integer]]
HEAD = toy_head()
FLOOR = float(HEAD.v_template[:, 1].min())
FRAME = HeadFrame(np.zeros(3), np.eye(3), FLOOR)
BELOW = 16
"""Cameras from this number on look up."""


def dome(closed: bool) -> Mesh:
    """Shoulders, open or closed below."""
    turn, rise = np.meshgrid(np.linspace(0, 2 * np.pi, 49)[:-1], np.linspace(0, 1, 12))
    wide = 0.2 * np.sqrt(1 - 0.9 * rise**2)
    points = np.stack([wide * np.sin(turn), FLOOR - 0.18 + 0.2 * rise, wide * np.cos(turn)], axis=2).reshape(-1, 3)
    a = (np.arange(11)[:, None] * 48 + np.arange(48)).reshape(-1)
    b = (np.arange(11)[:, None] * 48 + (np.arange(48) + 1) % 48).reshape(-1)
    faces = np.concatenate([np.stack([a, b, a + 48], 1), np.stack([b, b + 48, a + 48], 1)])
    if closed:
        ring = np.arange(48)
        cap = np.stack([np.full(48, len(points)), np.roll(ring, -1), ring], axis=1)
        points, faces = np.concatenate([points, [[0.0, FLOOR - 0.18, 0.0]]]), np.concatenate([faces, cap])
    return points, faces


def captured(folder: Path, body: Mesh, size: int = 128) -> Capture:
    """The toy head on a body, seen from 16 sides level and above and from 8 below."""
    parts = [
        MeshPart(vertices=points, faces=triangles, normals=vertex_normals(points, triangles))
        for points, triangles in ((HEAD.v_template.double().numpy(), HEAD.faces.numpy()), body)
    ]
    avatar = MeshAvatar(parts=parts, path=Path("memory"), file_hash="", format="memory")
    K = intrinsics_from_fov(35.0, size, size)
    eyes = [(2 * np.sin(yaw), y, 2 * np.cos(yaw)) for y in (0.0, 0.9, -0.9) for yaw in np.linspace(0, 5.5, 8)]
    with CaptureWriter(folder, (1.0, 1.0, 1.0), "unlit", AvatarRecord(file="toy.glb")) as writer:
        for camera, eye in enumerate(eyes):
            at = look_at(np.array(eye), [0.0, FLOOR, 0.0], [0.0, 1.0, 0.0])
            add_rendered(writer, avatar, camera, "fit", K, at)
    return writer.capture


@pytest.mark.parametrize("winding", [1, -1])
def test_inside_of_a_shell_is_cut_to_its_rim(tmp_path: Path, winding: int) -> None:
    """Whichever way its triangles turn; a piece that hangs in it, seen by no other view, goes with it."""
    points, faces = dome(closed=False)
    height = FLOOR - 0.13
    stub = np.array([[-0.08, height, -0.05], [0.08, height, -0.05], [0.0, height, 0.09]])
    body = np.concatenate([points, stub]), np.concatenate([faces, [[0, 1, 2]] + np.int64(len(points))])[:, ::winding]
    capture = captured(tmp_path, body)
    bust = OpenBust(capture, capture.views, np.eye(4), FRAME)
    for view in capture.views:
        mask = bust.inside(view, np.ones((view.height, view.width)))
        if view.camera < BELOW:
            assert mask is None
            continue
        assert mask is not None
        depth, normal = capture.geometry(view)
        v, u = np.nonzero(depth)
        at = unproject(np.stack([u + 0.5, v + 0.5], 1), depth[v, u], view.K, view.world_to_camera)
        # outward of the dome is away from its axis: the inside is what faces the axis
        around, low = np.linalg.norm(at[:, [0, 2]], axis=1), at[:, 1] < FLOOR - 0.01
        inward = (at[:, [0, 2]] * normal[v, u][:, [0, 2]].astype(float)).sum(axis=1) < 0
        piece = np.abs(at[:, 1] - height) < 1e-3
        piece &= around < 0.1
        cut = mask[v, u]
        assert piece.sum() > 5 and cut[piece].all()
        assert (low & inward).sum() > 200 and cut[low & inward & ~piece].mean() > 0.99
        assert not cut[low & ~inward & ~piece].any() and not cut[at[:, 1] > FLOOR + 0.02].any()


def test_a_closed_bust_is_not_cut(tmp_path: Path) -> None:
    capture = captured(tmp_path, dome(closed=True))
    bust = OpenBust(capture, capture.views, np.eye(4), FRAME)
    assert not [view.camera for view in capture.views if bust.inside(view, np.ones((128, 128))) is not None]


def test_nothing_is_cut_where_no_other_view_could_tell(tmp_path: Path) -> None:
    capture = captured(tmp_path, dome(closed=False))
    bust = OpenBust(capture, capture.views[BELOW:], np.eye(4), FRAME)
    assert all(bust.inside(view, np.ones((128, 128))) is None for view in capture.views)


def test_what_a_cut_leaves_goes_with_it() -> None:
    shown, cut = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    shown[2:50, 5:55] = True
    cut[40:48, 5:55] = True  # two rows of the rim's outside stay below it
    shown[55:57, 5:8] = True  # small, but no cut is beside it
    wanted = cut.copy()
    wanted[48:50, 5:55] = True
    shown[48:50, 5:55] &= np.arange(50)[None] % 9 != 0  # in pieces
    wanted &= shown | cut
    empty = ~shown
    np.testing.assert_array_equal(with_rest(cut, shown, np.zeros_like(empty)), wanted)
    outline = with_rest(cut, shown, empty) & ~wanted  # one pixel about it, where there is nothing else
    assert not (outline & shown).any() and outline[50, 5:55].all() and outline[41:47, 4].all() and not outline[51].any()


def test_views_that_lose_much_are_left_out_unless_most_do() -> None:
    shown = dict.fromkeys("abcdef", 1000)
    assert left_out({"a": 400, "b": 20, "c": 300}, shown) == {"a", "c"}
    assert left_out(dict.fromkeys("abcd", 400), shown) == set()
    assert left_out({}, {}) == set()


def test_a_dataset_names_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = captured(tmp_path / "render", dome(closed=False), 64)
    fit = known_fit(HEAD, np.eye(4))
    fit.folder = save_case(tmp_path / "fit", fit, capture)
    names = [frame.name for frame in plan_frames(capture)]
    monkeypatch.setattr(bust_views, "left_out", lambda lost, shown: {sorted(shown)[2]})
    manifest = Manifest(stage="export")
    said = exported(fit, capture, HEAD, tmp_path / "out", plans=(manifest, Manifest(stage="export")))
    made = read_manifest(tmp_path / "out")
    assert made is not None and len(made.result["left_out"]) == 1
    name = made.result["left_out"][0]
    assert int(name[6:8]) >= BELOW and [text for text in said.warnings if name in text]
    assert {p.name for p in (tmp_path / "out" / "fg_masks").iterdir()} == set(names) - {name}
    assert name not in (tmp_path / "out" / "transforms.json").read_text()
