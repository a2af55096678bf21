"""What the viewer shows and sets, without viser: folders, poses, sliders, colours, cameras, landmarks."""

import io
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.browser_glb import BrowserMesh, browser_glb
from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.shown_avatar import avatar_glb, width_of
from flame_fitting.capture.camera import project, transform_points
from flame_fitting.cli import main
from flame_fitting.errors import InputError
from flame_fitting.export.dialects.registry import read_parameters
from flame_fitting.fit.result import load_fit
from flame_fitting.head.loading import load_head
from flame_fitting.manifest import Manifest, input_record
from flame_fitting.view import fit_of
from flame_fitting.viewer import colors
from flame_fitting.viewer.address import addresses, free_port, named_port
from flame_fitting.viewer.cameras import camera_legend, picture_of, shown_cameras, view_at
from flame_fitting.viewer.controls import FITTED, controls_of
from flame_fitting.viewer.marks import Marks
from flame_fitting.viewer.opening import Viewed, open_viewed
from flame_fitting.viewer.poses import load_pose, next_file, pose_at, save_pose, saved_poses
from flame_fitting.viewer.session import Session
from tests.export.sequences import moving_fit
from tests.head.flame_like import write_npz
from tests.synthetic import known_fit, render_case, save_case, similarity
from tests.toy import toy_head


@pytest.fixture(scope="module")
def moving() -> Viewed:
    head = toy_head()
    return Viewed(moving_fit(head), head)


def control(session: Session, group: str, name: str):
    return next(one for one in session.controls if one.key == (group, name))


def test_the_shown_frame_is_head_space_at_the_first_timestep(viewed: Viewed, moving: Viewed) -> None:
    np.testing.assert_allclose(viewed.shown_from_head, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(Session(viewed).vertices(), viewed.fit.vertices_head(viewed.head)[0], atol=1e-6)
    # there the head has no turn and no shift of its own but about its root joint
    still = {key: np.zeros_like(value) for key, value in pose_at(moving.fit, 0).items() if key != "expr"}
    turned = moving.shown_from_head[:3, :3] @ Rotation.from_rotvec(moving.fit.parameters["rotation"][0]).as_matrix()
    np.testing.assert_allclose(turned, np.eye(3), atol=1e-6)
    assert {"rotation", "translation"} <= still.keys()


def test_time_moves_what_no_slider_has_moved(moving: Viewed) -> None:
    session = Session(moving)
    own = transform_points(moving.shown_from_head, moving.fit.vertices_head(moving.head))
    for row in (3, 1):
        session.go_to(row)
        np.testing.assert_allclose(session.vertices(), own[row], atol=1e-6)
    jaw, neck = control(session, "Jaw", "open"), control(session, "Neck", "nod")
    session.move(jaw, 12.0)
    session.go_to(4)
    assert session.value(jaw) == 12.0
    assert session.value(neck) == pytest.approx(np.degrees(moving.fit.parameters["neck_pose"][4, 0]), abs=0.051)
    np.testing.assert_allclose(session.pose["jaw_pose"], [np.radians(12), *moving.fit.parameters["jaw_pose"][4, 1:]])
    np.testing.assert_array_equal(session.pose["neck_pose"], moving.fit.parameters["neck_pose"][4])  # not rounded
    assert np.abs(session.vertices() - own[4]).max() > 1e-3
    session.as_fitted()
    np.testing.assert_allclose(session.vertices(), own[4], atol=1e-6)
    session.at_rest()
    assert not any(session.pose[key].any() for key in ("expr", "neck_pose", "jaw_pose", "eyes_pose"))
    np.testing.assert_array_equal(session.pose["rotation"], moving.fit.parameters["rotation"][0])


def test_ranges_hold_what_the_fit_has(moving: Viewed) -> None:
    fit = replace(moving.fit, parameters=dict(moving.fit.parameters))
    fit.parameters["translation"] = fit.parameters["translation"] + [0.0, 1.5, 0.0]
    controls = controls_of(moving.head, [pose_at(fit, row) for row in range(fit.timesteps)])
    assert len({one.key for one in controls}) == len(controls)
    up = next(one for one in controls if (one.parameter, one.index) == ("translation", 1))
    assert up.high > 1200 and up.low == -200.0
    assert [one.name for one in controls if one.parameter == "expr"] == [f"expr_{k}" for k in range(moving.head.n_expr)]


def test_the_open_head_has_its_actions_by_name() -> None:
    head = load_head("open")
    session = Session(Viewed(known_fit(head, np.eye(4)), head))
    smile, fitted = control(session, "Mouth", "mouthSmileLeft"), control(session, "Expression", FITTED)
    own = session.pose["expr"].copy()
    assert smile.action is not None and session.value(fitted) == 1.0 and session.value(smile) == 0.0
    session.move(smile, 0.5)
    session.move(fitted, 0.0)
    np.testing.assert_allclose(session.pose["expr"], 0.5 * smile.action)
    session.move(fitted, 1.0)
    np.testing.assert_allclose(session.pose["expr"], own + 0.5 * smile.action)
    lips = head.region_mask("lips").numpy()
    moved = np.linalg.norm(session.vertices() - session.fitted_vertices(0), axis=1)
    assert moved[lips].max() > 0.002


def test_a_pose_that_is_saved_opens_as_a_fit_and_again_here(moving: Viewed, tmp_path: Path) -> None:
    session = Session(moving)
    session.go_to(2)
    session.move(control(session, "Jaw", "open"), 9.0)
    path = next_file(tmp_path, "pose", "npz")
    save_pose(path, moving.fit, session.pose, 2)
    assert path.name == "pose_0001.npz" and next_file(tmp_path, "pose", "npz").name == "pose_0002.npz"
    assert saved_poses(tmp_path) == ["pose_0001.npz"] and saved_poses(tmp_path / "none") == []
    (tmp_path / "fit").mkdir()
    shutil.copy(path, tmp_path / "fit" / "tracked_flame_params.npz")
    vertices = load_fit(tmp_path / "fit").vertices_head(moving.head)
    shown = transform_points(np.linalg.inv(moving.shown_from_head), session.vertices())
    np.testing.assert_allclose(vertices, shown[None], atol=1e-6)
    params, dialect = read_parameters(path, None, None)  # what `convert` reads
    assert dialect.name == "vhap" and params.count == 1
    other = Session(moving)
    other.show(load_pose(path, moving.head, other.base))
    np.testing.assert_allclose(other.pose["jaw_pose"], session.pose["jaw_pose"], atol=1e-7)
    other.go_to(2)  # time leaves it
    np.testing.assert_array_equal(other.pose["jaw_pose"], moving.fit.parameters["jaw_pose"][2])


def test_poses_of_another_head_model_are_refused(moving: Viewed, tmp_path: Path) -> None:
    like = pose_at(moving.fit, 0)
    save_pose(tmp_path / "a.npz", replace(moving.fit, head_name="flame", head_hash="x"), like, 0)
    with pytest.raises(InputError, match=r"a\.npz: is a pose of the head model flame, and this fit's is toy"):
        load_pose(tmp_path / "a.npz", moving.head, like)
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"b\.npz: lacks .*Parameters of another program"):
        load_pose(tmp_path / "b.npz", moving.head, like)


def test_regions_are_highlighted(viewed: Viewed) -> None:
    assert colors.regions_of(viewed.head) == ["face", "neck", "scalp"]  # single points are none
    one = colors.region_colors(viewed.head, "neck")
    other = ~np.isclose(one, colors.GREY).all(axis=1)
    np.testing.assert_array_equal(other, viewed.head.region_mask("neck").numpy())
    assert colors.region_legend(viewed.head, "neck")[0][1] == "neck"
    every = {name: color for color, name in colors.region_legend(viewed.head)}
    assert len(set(every.values())) == 3
    neck = colors.region_colors(viewed.head)[viewed.head.region_mask("neck").numpy()]
    assert "#" + "".join(f"{round(255 * value):02x}" for value in neck[0]) == every["neck"]


def test_cameras_see_the_shown_head_where_their_pictures_have_it(viewed: Viewed) -> None:
    cameras = shown_cameras(viewed)
    assert len(cameras) == 8 and len(shown_cameras(viewed, 3)) == 3
    assert [one.name for one in cameras[-2:]] == ["camera 06 (held out)", "camera 07 (landmarks)"]
    vertices, camera = Session(viewed).vertices(), cameras[0]
    axes = Rotation.from_quat(np.roll(camera.wxyz, -1)).as_matrix()
    local = (vertices - camera.position) @ axes
    in_world = transform_points(np.linalg.inv(viewed.shown_from_world), vertices)
    expected = project(in_world, camera.view.K, camera.view.world_to_camera)
    pixels = local @ camera.view.K.T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], expected[:, :2], atol=1e-3)
    middle, width, height = camera.plane(2.0)
    corner = (middle - camera.position) @ axes + [-width / 2, -height / 2, 0]
    pixel = corner @ camera.view.K.T
    np.testing.assert_allclose(pixel[:2] / pixel[2], [0, 0], atol=1e-9)
    view = view_at(viewed, camera, 0)
    assert view is camera.view and picture_of(viewed, view, 64).shape == (64, 64, 3)
    assert shown_cameras(Viewed(viewed.fit, viewed.head)) == []
    assert [role for _, role in camera_legend(cameras)] == ["of the fit", "for landmarks", "held out"]


def test_landmarks_go_with_the_head(viewed: Viewed) -> None:
    faces = viewed.head.faces.numpy()[[5, 900]]
    world = viewed.fit.vertices_world(viewed.head)[0][faces].mean(axis=1)
    lost = np.array([[np.nan] * 3, world[1]])
    marks = {"points": lost[None], "model": world[None], "used": np.array([[True, True]])}
    one = Viewed(replace(viewed.fit, landmarks3d=marks), viewed.head)
    session = Session(one)
    found = Marks(one, session.vertices())
    assert found.count == 2 and len(found.detected(0)) == 1
    session.move(control(session, "Root: turn", "turn to its left"), 40.0)
    np.testing.assert_allclose(found.on_head(session.vertices()), session.vertices()[faces].mean(axis=1), atol=1e-6)
    assert Marks(viewed, session.vertices()).count == 0


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Folder of a fit and head file of a model that is read from a file."""
    spec = write_npz(tmp_path / "model.npz")
    head = load_head(str(spec))
    fit = replace(known_fit(head, similarity()), head_identity=dict(head.identity))
    yield save_case(tmp_path / "out" / "fit", fit, render_case(tmp_path / "out", head, fit, 2, 1, 64)), spec


def test_what_is_not_there_is_said(saved: tuple[Path, Path]) -> None:
    folder, spec = saved
    whole = open_viewed(folder, head_spec=str(spec))
    assert whole.capture is not None and whole.avatar is None and whole.has_geometry
    assert len(whole.notes) == 1 and "toy.glb: the avatar is not there" in whole.notes[0]
    points = whole.surface_points()
    assert points is not None and np.abs(points - Session(whole).vertices().mean(0)).max() < 0.2
    (folder.parent / "toy.glb").write_bytes(
        browser_glb([BrowserMesh(whole.fit.vertices_world(whole.head)[0], whole.head.faces.numpy())])
    )
    assert (beside := open_viewed(folder, head_spec=str(spec))).avatar is not None and not beside.notes
    shutil.rmtree(folder.parent / "render")
    bare = open_viewed(folder, head_spec=str(spec))
    assert bare.capture is None and "No cameras, pictures and distances" in bare.notes[0]
    assert colors.modes_of(bare) == ("texture", "plain", "regions")
    with pytest.raises(InputError, match="none"):
        open_viewed(folder, folder / "none", head_spec=str(spec))


def test_an_export_leads_to_its_fit(saved: tuple[Path, Path]) -> None:
    folder, _ = saved
    export = folder.parent / "export"
    export.mkdir()
    Manifest("export", inputs={"fit": input_record(folder, export)}, finished=True).write(export)
    assert fit_of(export) == fit_of(folder) == fit_of(folder.parent) == folder
    shutil.move(folder, folder.parent / "elsewhere")
    with pytest.raises(InputError, match="is an export, and the fit that it was made of is not there"):
        fit_of(export)


def test_the_glb_is_read_as_it_was_written(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.tile(np.array([[[200, 10, 10]], [[10, 10, 200]]], dtype=np.uint8), (8, 16, 1))).save(
        stream, "PNG"
    )
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    faces, uv = np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.25]])
    shades = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5], [0, 0, 1.0]])
    path = tmp_path / "a.glb"
    textured = BrowserMesh(vertices, faces, uv, stream.getvalue(), wrap=("clamp", "mirror"), unlit=True)
    path.write_bytes(browser_glb([textured, BrowserMesh(vertices + 2, faces, vertex_colors=shades)]))
    scene = trimesh.load(path, process=False)
    assert sorted(len(mesh.vertices) for mesh in scene.geometry.values()) == [4, 4]
    one, two = load_avatar(path).parts  # this program's own reader
    np.testing.assert_allclose(one.vertices, vertices)
    np.testing.assert_allclose(one.uv, uv, atol=1e-6)
    assert one.wrap == ("clamp", "mirror") and one.texture.shape == (16, 16, 4)
    np.testing.assert_array_equal(two.faces, faces)
    np.testing.assert_allclose(two.vertex_colors[:, :3], shades, atol=1e-6)  # linear in the file


def test_avatars_without_colours_are_one_surface(tmp_path: Path, viewed: Viewed) -> None:
    corners = viewed.head.v_template.numpy()[viewed.head.faces.numpy()]
    trimesh.Trimesh(corners.reshape(-1, 3), np.arange(corners.size // 3).reshape(-1, 3), process=False).export(
        tmp_path / "soup.stl"
    )
    avatar, twice = load_avatar(tmp_path / "soup.stl"), np.diag([2.0, 2.0, 2.0, 1.0])
    content = avatar_glb(avatar, twice)
    assert content is not None
    (tmp_path / "shown.glb").write_bytes(content)
    (part,) = load_avatar(tmp_path / "shown.glb").parts
    assert len(part.vertices) == viewed.head.n_vertices and part.normals is not None
    assert width_of(avatar, twice) == pytest.approx(2 * np.ptp(corners[..., 0]), rel=1e-5)


def test_addresses_work_over_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 5000 10.0.0.2 22")
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    url, tunnel = addresses("127.0.0.1", 8123)
    assert url == "http://localhost:8123" and "ssh -L 8123:localhost:8123 me@10.0.0.2 " in tunnel
    url, warning = addresses("0.0.0.0", 8123)
    assert url == "http://10.0.0.2:8123" and "no password" in warning


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_taken_port_is_passed_over_unless_it_was_named(taken_port: int) -> None:
    free = free_port("127.0.0.1", taken_port)
    assert free > taken_port and named_port("127.0.0.1", free) == free
    with pytest.raises(InputError, match=f"--port {taken_port}: is taken by another program at 127.0.0.1"):
        named_port("127.0.0.1", taken_port)
    with pytest.raises(InputError, match=r"--host 203\.0\.113\.9: neither port 8080 nor the 49 ports after it"):
        free_port("203.0.113.9", 8080)
    with pytest.raises(InputError, match=r"--host 203\.0\.113\.9 --port 8080: cannot be listened at"):
        named_port("203.0.113.9", 8080)
    with pytest.raises(InputError, match="--host no such host: is no address"):
        free_port("no such host", 8080)


@pytest.mark.parametrize("named", [False, True])
def test_which_port_it_is_is_said(
    named: bool,
    taken_port: int,
    saved: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("viser")
    from flame_fitting import view
    from flame_fitting.viewer.page import Page

    folder, spec = saved
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    monkeypatch.setattr(view, "FIRST_PORT", taken_port)
    monkeypatch.setattr(Page, "run", lambda page: None)
    port = ["--port", str(taken_port)] if named else []
    assert main(["view", str(folder), "--head", str(spec), *port]) == (2 if named else 0)
    said = capsys.readouterr().err
    if named:
        assert f"--port {taken_port}: is taken by another program" in said and "leave --port out" in said
    else:
        assert f"port {taken_port} is taken by another program, port " in said and "http://localhost:" in said
    assert {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()} == before  # no log, either


def test_without_viser_there_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    (tmp_path / "tracked_flame_params.npz").touch()
    assert main(["view", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "needs the package viser" in said and "pip install 'flame-fitting[view]'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("given", "text"), [(["nowhere"], "nowhere: no such folder"), ([".", "--port", "0"], "--port 0")]
)
def test_wrong_input_is_one_message(
    given: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("viser")
    monkeypatch.chdir(tmp_path)
    assert main(["view", *given]) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
