"""Splats on the skin and the eyeballs of a fitted head, so that where they have to go is known."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.splat_moving import placed
from flame_fitting.avatar.splat_ply import splat_ply
from flame_fitting.avatar.splats import Splats
from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.files import write_npz
from flame_fitting.errors import InputError
from flame_fitting.export.driving import at_parameters, shown_at
from flame_fitting.export.gaussian_avatars import check_topology
from flame_fitting.export.rigged_splats import BoundAvatar, bound_avatar, cloud_of
from flame_fitting.export.rigging.avatar_file import avatar_of
from flame_fitting.export.rigging.fitted_head import fitted_head
from flame_fitting.export.rigging.parts import Role
from flame_fitting.export.rigging.splat_binding import Binding, binding_arrays
from flame_fitting.export.rigging.splat_correspondence import Eye
from flame_fitting.fit.result import FitResult, save_parameters
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from tests.avatar.mesh_splats import joined, splats_on
from tests.avatar.splat_writers import write_splat
from tests.export.jobs import exported
from tests.export.rigging.avatars import fit_of

JAW, GAZE, TURN = 0.25, 0.3, 0.5


@dataclass
class Known:
    """An avatar of splats on a fitted head."""

    fit: FitResult
    head: HeadModel
    path: Path
    made: BoundAvatar
    face: np.ndarray
    """Of the head model, of each splat of skin and eyeballs, in the file's order."""
    weights: np.ndarray
    """Barycentric."""
    count: int
    """Of these; after them come hair, then shoulders."""

    def place(self, **changes: np.ndarray) -> np.ndarray:
        """Where the head's own triangles have those splats; head space."""
        parameters = self.fit.parameters | {k: np.atleast_2d(v).astype(np.float32) for k, v in changes.items()}
        vertices = replace(self.fit, parameters=parameters).vertices_head(self.head)[0]
        return np.einsum("nk,nkc->nc", self.weights, vertices[self.head.faces.numpy()[self.face]])

    def posed(self, **changes: np.ndarray) -> Splats:
        """What the binding makes of it; head space."""
        parameters = self.fit.parameters | {k: np.atleast_2d(v).astype(np.float32) for k, v in changes.items()}
        return self.whole().posed(self.made.head, fitted_head(replace(self.fit, parameters=parameters), self.head))

    def whole(self) -> Binding:
        """Without smaller splats in place of large ones."""
        return replace(self.made.binding, finer=None)

    def plus(self, name: str, *change: float) -> dict[str, np.ndarray]:
        return {name: self.fit.parameters[name] + np.array([change])}


def ball(center: np.ndarray, radius: float) -> Splats:
    mesh = trimesh.creation.icosphere(3, radius)
    return splats_on(mesh.vertices + center, mesh.faces, np.full((len(mesh.vertices), 3), 0.2), 2000)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    head = load_head("open")
    fit = fit_of(head)
    vertices, faces = fit.vertices_head(head)[0], head.faces.numpy()
    outside = ~head.region_mask("lip_inside", "eye_sockets", "nostrils", "teeth").numpy()
    shown = faces[outside[faces].all(axis=1)]
    colors = np.random.default_rng(0).uniform(0.2, 0.8, (len(vertices), 3))
    skin = splats_on(vertices, shown, colors, 30_000)
    top = vertices[:, 1].max()
    hair = ball(np.array([0.0, top + 0.06, 0.0]), 0.03)
    low = ball(np.array([0.0, vertices[:, 1].min() - 0.15, 0.0]), 0.04)
    world = placed(joined(skin, hair, low), np.linalg.inv(fit.head_from_world))
    path = tmp_path_factory.mktemp("splats") / "avatar.ply"
    path.write_bytes(splat_ply(world))
    from flame_fitting.maths.closest import TriangleTree

    own = np.flatnonzero(outside[faces].all(axis=1))
    found = TriangleTree(vertices, shown).closest(skin.means)
    made = bound_avatar(path, None, fit, head)
    return Known(fit, head, path, made, own[found.face], found.barycentric, len(skin))


def off_mm(known: Known, **changes: np.ndarray) -> np.ndarray:
    return 1000 * np.linalg.norm(known.posed(**changes).means[: known.count] - known.place(**changes), axis=1)


def test_at_the_fit_nothing_moves(known: Known) -> None:
    posed, before = known.posed(), known.made.binding.splats
    np.testing.assert_allclose(posed.means, before.means, atol=1e-9)
    np.testing.assert_allclose(posed.scales, before.scales, rtol=1e-4)
    assert off_mm(known).max() < 0.05


def test_skin_goes_with_the_head(known: Known) -> None:
    for change in (known.plus("jaw_pose", JAW, 0, 0), known.plus("neck_pose", 0, TURN, 0)):
        off = off_mm(known, **change)
        moved = np.linalg.norm(known.place(**change) - known.place(), axis=1) * 1000
        assert np.percentile(moved, 98) > 10
        assert np.percentile(off, 99) < 1.0
    smile = np.zeros((1, known.head.n_expr))
    smile[:, :10] = 1.0
    assert np.percentile(off_mm(known, expr=known.fit.parameters["expr"] + smile), 99) < 1.0


def test_lips_and_lids_part_where_the_heads_do(known: Known) -> None:
    match, role = known.made.binding.match, known.made.binding.role
    mouth = known.made.head.openings["mouth"].side[known.head.faces.numpy()[known.face]]
    sure = np.abs(mouth.sum(axis=1)) == 3
    wrong = match.side["mouth"][: known.count][sure] * np.sign(mouth.sum(axis=1)[sure]) < 0
    assert wrong.mean() < 0.01
    change = known.plus("jaw_pose", JAW, 0, 0)
    lips = known.head.region_mask("lips").numpy()[known.head.faces.numpy()[known.face]].all(axis=1)
    assert np.percentile(off_mm(known, **change)[lips], 98) < 1.0
    balls = known.head.weights.numpy()[known.head.faces.numpy()[known.face]][..., 3:].min(axis=1)
    for k, kind in enumerate((Role.LEFT_EYE, Role.RIGHT_EYE)):
        assert (role[: known.count][balls[:, k] > 0.9] == kind).mean() > 0.97
        assert (role[: known.count][balls[:, k] < 0.1] == kind).mean() < 0.001


def test_eyeballs_turn_and_lids_stay(known: Known) -> None:
    change = known.plus("eyes_pose", 0, GAZE, 0, 0, GAZE, 0)
    moved = np.linalg.norm(known.posed(**change).means - known.posed().means, axis=1)
    eyes = np.isin(known.made.binding.role, (Role.LEFT_EYE, Role.RIGHT_EYE))
    seen = eyes[: known.count] & (known.place()[:, 2] > np.percentile(known.place()[eyes[: known.count], 2], 50))
    assert np.median(moved[: known.count][seen]) > 0.002
    assert moved[~eyes].max() < 1e-6


def test_covariances_turn_with_the_head(known: Known) -> None:
    change = known.plus("neck_pose", 0, TURN, 0)
    before, after = known.whole().splats, known.posed(**change)
    skull = known.whole().weights[:, 1] > 0.999
    turn = (
        fitted_head(replace(known.fit, parameters=known.fit.parameters | change), known.head).skull
        @ known.made.head.skull.T
    )
    own, other = (splats.rotations * splats.scales[:, None].astype(float) for splats in (before, after))
    wanted = turn @ (own @ own.swapaxes(1, 2))[skull] @ turn.T
    off = np.linalg.norm((other @ other.swapaxes(1, 2))[skull] - wanted, axis=(1, 2))
    assert np.percentile(off / np.linalg.norm(wanted, axis=(1, 2)), 99) < 0.02


def test_hair_follows_the_skull_and_shoulders_stay(known: Known) -> None:
    hair, low = slice(known.count, known.count + 1500), slice(-1500, None)
    weights = known.made.binding.weights
    np.testing.assert_allclose(weights[hair, 1], 1, atol=1e-6)
    np.testing.assert_allclose(weights[low, 0], 1, atol=1e-6)
    change = known.plus("neck_pose", 0, TURN, 0)
    posed = known.posed(**change)
    np.testing.assert_allclose(posed.means[low], known.posed().means[low], atol=1e-9)
    jaw = known.posed(**known.plus("jaw_pose", JAW, 0, 0))
    np.testing.assert_allclose(jaw.means[hair], known.posed().means[hair], atol=1e-9)
    spread = np.linalg.norm(posed.means[hair] - posed.means[hair].mean(axis=0), axis=1)
    own = known.posed().means[hair]
    np.testing.assert_allclose(spread, np.linalg.norm(own - own.mean(axis=0), axis=1), atol=1e-6)


def test_shut_lids_hide_eyeballs(known: Known) -> None:
    shut = shown_at(known.made.head, {}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})
    after = known.whole().posed(known.made.head, shut)
    for name, joint in (("left_eye", 3), ("right_eye", 4)):
        gap = np.linalg.norm(np.subtract(*shut.openings[name].rims), axis=1)
        before = np.linalg.norm(np.subtract(*known.made.head.openings[name].rims), axis=1)
        assert np.median(gap) < 0.3 * np.median(before)
        rows = known.made.binding.role == (Role.LEFT_EYE if name == "left_eye" else Role.RIGHT_EYE)
        rows &= Eye(known.made.head, joint).within(known.whole().splats.means) > 0.02
        center = known.made.head.joints[joint]
        out = [np.linalg.norm(splats.means[rows] - center, axis=1) for splats in (known.posed(), after)]
        assert rows.sum() > 10 and (out[1] < out[0] - 0.0003).mean() > 0.8


def test_the_binding_says_where_splats_are(known: Known) -> None:
    from flame_fitting.avatar.bound_splats import face_frames, product, quats_of
    from flame_fitting.avatar.splats import rotations_of

    head, splats = known.made.head, known.made.binding.splats
    arrays = binding_arrays(known.made.binding, head, known.fit.head_from_world)
    _, axes, scale = face_frames(head.vertices, head.faces)
    face = arrays["face"]
    origin = np.einsum("nk,nkc->nc", arrays["barycentric"], head.vertices[head.faces[face]])
    there = origin + scale[face, None] * np.einsum("nij,nj->ni", axes[face], arrays["offset"])
    np.testing.assert_allclose(there, splats.means, atol=1e-6)
    turned = rotations_of(product(quats_of(axes)[face], arrays["rotation"].astype(float)))
    np.testing.assert_allclose(turned, splats.rotations, atol=1e-4)
    np.testing.assert_allclose(arrays["scale"] * scale[face, None], splats.scales, rtol=1e-5)
    np.testing.assert_allclose(arrays["weights"].sum(axis=1), 1, atol=1e-5)
    assert len({len(value) for name, value in arrays.items() if not name.startswith("head")}) == 1


def capture(known: Known, path: Path | None = None, geometry: str = "splats") -> Capture:
    return Capture(known.path.parent, [], avatar=AvatarRecord(file=str(path or known.path), geometry=geometry))


def test_files(known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flame_fitting.export.rigging import showing

    monkeypatch.setattr(showing, "poses_of", lambda joints: [showing.REST])  # pictures take long
    monkeypatch.setattr(showing.Stage, "gif", lambda self, advance: b"GIF")
    moving = replace(known.fit, parameters=known.fit.parameters | known.plus("jaw_pose", JAW, 0, 0))
    save_parameters(tmp_path / "drive.npz", moving)
    made = exported(
        known.fit, capture(known), known.head, tmp_path / "out", format="rigged-splats",
        parameters=tmp_path / "drive.npz",
    )  # fmt: skip
    assert (tmp_path / "out" / "point_cloud.ply").read_bytes() == known.path.read_bytes()
    with np.load(tmp_path / "out" / "binding.npz") as binding:
        np.testing.assert_array_equal(binding["row"], np.arange(len(known.made.splats)))
    posed = load_avatar(tmp_path / "out" / "posed.ply", whole=True).splats
    back = placed(posed, known.fit.head_from_world)
    wanted = known.made.posed(shown_at(known.made.head, {"jaw": (JAW, 0, 0)}, {}), None)
    np.testing.assert_allclose(back.means, wanted.means, atol=1e-6)
    assert "posed" in made.written


def test_other_files_become_a_ply(known: Known, tmp_path: Path) -> None:
    path = write_splat(tmp_path / "avatar.splat", known.made.splats)
    made = replace(known.made, path=path, splats=load_avatar(path, whole=True).splats)
    content, row = cloud_of(made)
    (tmp_path / "cloud.ply").write_bytes(content)
    found = load_avatar(tmp_path / "cloud.ply", whole=True).splats
    np.testing.assert_allclose(found.means, made.splats.means, atol=1e-5)
    np.testing.assert_array_equal(row, np.arange(len(found)))


def test_rows_that_are_left_out_are_told(known: Known, tmp_path: Path) -> None:
    from flame_fitting.avatar.ply import element_rows

    content = bytearray(known.path.read_bytes())
    rows = element_rows(bytes(content), ("vertex",))["vertex"].copy()
    rows["x"][[3, 77]] = np.nan
    path = tmp_path / "holes.ply"
    path.write_bytes(bytes(content[: -rows.nbytes]) + rows.tobytes())
    splats = load_avatar(path, whole=True).splats
    content, row = cloud_of(replace(known.made, path=path, splats=splats))
    assert content == path.read_bytes() and len(row) == len(rows) - 2 and not np.isin([3, 77], row).any()


def test_refusals(known: Known, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a mesh, and only Gaussian splats .*--format rigged-avatar"):
        avatar_of(capture(known, geometry="mesh"), None, "splats")
    with pytest.raises(InputError, match=r"Gaussian splats, and only meshes .*--format rigged-splats"):
        avatar_of(capture(known), None, "mesh")
    with pytest.raises(InputError, match="not the file that was rendered and fitted"):
        bound_avatar(known.path, "0" * 64, known.fit, known.head)
    with pytest.raises(InputError, match=r"head model open, which has not FLAME's faces.*rigged-splats"):
        check_topology(known.fit, known.head)
    away = np.zeros((4, 4))
    away[0, 3] = 1.0
    far = replace(known.fit, head_from_world=known.fit.head_from_world + away)
    with pytest.raises(InputError, match=r"No splats of the avatar lie on the fitted face"):
        bound_avatar(known.path, None, far, known.head)


def test_parameters_of_another_head_are_refused(known: Known, tmp_path: Path) -> None:
    other = replace(known.fit, head_hash="0" * 64, head_name="another")
    save_parameters(tmp_path / "other.npz", other)
    with pytest.raises(InputError, match=r"other\.npz: holds parameters of the head model another"):
        at_parameters(known.fit, known.head, tmp_path / "other.npz")
    poses = {name: np.zeros((2, size)) for name, size in (("rotation", 3), ("translation", 3), ("neck_pose", 3))}
    poses |= {"jaw_pose": np.array([[0.0, 0, 0], [0.2, 0, 0]]), "eyes_pose": np.zeros((2, 6))}
    many = np.ones((2, known.head.n_expr + 5))
    write_npz(tmp_path / "many.npz", poses | {"shape": np.zeros(3), "expr": many})
    with pytest.raises(InputError, match="expression components"):
        at_parameters(known.fit, known.head, tmp_path / "many.npz")
    write_npz(tmp_path / "two.npz", poses | {"shape": np.zeros(3), "expr": 0 * many})
    two, doubts = at_parameters(known.fit, known.head, tmp_path / "two.npz")
    assert len(doubts) == 1 and "does not say which head model" in doubts[0]
    assert two.timesteps == 2 and two.parameters["expr"].shape == (2, known.head.n_expr)
    np.testing.assert_array_equal(two.parameters["shape"], known.fit.parameters["shape"].astype(np.float32))
    offsets = {"static_offset": np.zeros((1, known.head.n_vertices + 1, 3))}
    write_npz(tmp_path / "offsets.npz", poses | offsets | {"shape": np.zeros(3), "expr": 0 * many})
    with pytest.raises(InputError, match=r"offsets\.npz: has offsets of \d+ vertices"):
        at_parameters(known.fit, known.head, tmp_path / "offsets.npz")
    write_npz(tmp_path / "nothing.npz", {"a": np.zeros(3)})
    with pytest.raises(InputError, match="option is convert's"):
        at_parameters(known.fit, known.head, tmp_path / "nothing.npz")
