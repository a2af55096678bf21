"""A rigged avatar moves as the head model does: read by an evaluator of its own from the file that was written."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from pygltflib import GLTF2, Node
from scipy.spatial.transform import Rotation

from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.export.gltf_document import GltfDocument, placing
from flame_fitting.export.gltf_rigs import Track, add_animation, bind_skin, morph_target, name_targets
from flame_fitting.export.rigged_avatar import RiggedAvatar, correspondence, rigged
from flame_fitting.export.rigging.avatar_file import avatar_of
from flame_fitting.export.rigging.checks import torn_edges
from flame_fitting.head.actions import actions_of
from flame_fitting.head.loading import load_head
from flame_fitting.head.mesh_graph import MeshGraph
from tests.browser.other_programs import npm_modules
from tests.export.glb_evaluator import EvaluatedGlb
from tests.export.rigging.avatars import Known, in_skull, known_avatar

JAW = 0.25


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return known_avatar(load_head("open"), tmp_path_factory.mktemp("avatar"))


@pytest.fixture(scope="module")
def made(known: Known) -> RiggedAvatar:
    return rigged(known.path, None, known.fit, known.head)


class Parts:
    """All meshes of a written file in one pose."""

    def __init__(self, content: bytes, folder: Path) -> None:
        self.path = folder / "written.glb"
        self.path.write_bytes(content)

    def vertices(self, name: str, turns: dict[str, tuple] | None = None, weights: dict[str, float] | None = None):
        glb = EvaluatedGlb(self.path, name)
        for joint, turn in (turns or {}).items():
            node = glb.node[joint]
            glb.rotation[node] = (Rotation.from_quat(glb.rotation[node]) * Rotation.from_rotvec(turn)).as_quat()
        for target, weight in (weights or {}).items():
            if target in glb.targets:
                glb.weights[glb.targets.index(target)] = weight
        return glb.vertices()


@pytest.fixture
def parts(made: RiggedAvatar, tmp_path: Path) -> Parts:
    return Parts(made.content, tmp_path)


def apart(known: Known, found: np.ndarray, truth: np.ndarray, name: str) -> np.ndarray:
    return known.to_mm(np.linalg.norm(found - truth[known.vertex[name]], axis=1))


def test_as_bound_it_is_the_avatar(known: Known, parts: Parts) -> None:
    for name in known.vertex:
        assert apart(known, parts.vertices(name), known.posed(), name).max() < 1e-3


def test_the_jaw_opens_as_the_head_models(known: Known, parts: Parts) -> None:
    jaw = known.fit.parameters["jaw_pose"] + [JAW, 0, 0]
    found = parts.vertices("skin", {"jaw": (JAW, 0, 0)}, {"jaw_corrective": 1.0})
    error = apart(known, found, known.posed(jaw_pose=jaw), "skin")
    assert np.median(error) < 0.05 and error.max() < 1.0
    assert apart(known, found, known.posed(), "skin").max() > 15  # it has moved


def test_expressions_and_lids_are_the_head_models(known: Known, parts: Parts) -> None:
    actions = actions_of(known.head)
    assert actions is not None
    for name in ("mouthSmileLeft", "browInnerUp", "cheekPuff"):
        truth = known.posed(expr=actions.expression({name: 1.0}))
        error = apart(known, parts.vertices("skin", weights={name: 1.0}), truth, "skin")
        assert np.percentile(error, 99) < 0.3, name
        assert apart(known, parts.vertices("skin"), truth, "skin").max() > 3


def test_eyes_turn_about_their_own_centres(known: Known, parts: Parts) -> None:
    eyes = known.fit.parameters["eyes_pose"] + [0, 0.3, 0, 0, 0.3, 0]
    truth = known.posed(eyes_pose=eyes)
    turns = dict.fromkeys(("left_eye", "right_eye"), (0, 0.3, 0))
    for name in ("eye_left", "eye_right"):
        assert apart(known, parts.vertices(name, turns), truth, name).max() < 0.5
        assert apart(known, parts.vertices(name), truth, name).max() > 2


def test_teeth_and_glasses_follow_rigidly(known: Known, parts: Parts) -> None:
    turns = {"jaw": (JAW, 0, 0), "neck": (0, 0.4, 0)}
    places = {name: (parts.vertices(name), parts.vertices(name, turns)) for name in
              ("teeth_upper", "teeth_lower", "glasses")}  # fmt: skip
    for before, after in places.values():
        gaps = [np.linalg.norm(each - each[:1], axis=1) for each in (before, after)]
        np.testing.assert_allclose(*gaps, atol=1e-4 / known.fit.mm_per_unit * 1e3)
    turned = {name: parts.vertices(name, {"neck": (0, 0.4, 0)}) for name in places}
    opened = {name: known.to_mm(np.linalg.norm(places[name][1] - turned[name], axis=1)) for name in places}
    assert opened["teeth_upper"].max() < 1e-3 and opened["glasses"].max() < 1e-3
    assert opened["teeth_lower"].min() > 5
    # nothing that the face shows moves glasses or upper teeth
    for name in ("teeth_upper", "glasses"):
        assert EvaluatedGlb(parts.path, name).targets == []


def test_what_is_not_about_moving_stays(known: Known, made: RiggedAvatar, parts: Parts) -> None:
    before, after = GLTF2.load(str(known.path)), GLTF2.load(str(parts.path))
    assert after.materials == before.materials and after.textures == before.textures
    assert made.warnings == []


def test_correspondence_finds_the_models_own_vertices(known: Known, made: RiggedAvatar) -> None:
    table = correspondence(made.file, made.head, made.rig)
    first = dict(zip(table["nodes"], table["first"], strict=True))["skin"]
    own = known.vertex["skin"]
    rows = slice(first, first + len(own))
    assert np.abs(table["distance"][rows]).max() < 1e-5
    corners = known.head.faces.numpy()[table["face"][rows]]
    share = np.where(corners == own[:, None], table["barycentric"][rows], 0).sum(axis=1)
    assert (share[table["trusted"][rows]] > 0.99).mean() > 0.995


def test_no_lip_or_lid_is_torn(made: RiggedAvatar) -> None:
    assert made.torn == {"jawOpen": 0, "eyeBlinkLeft": 0, "eyeBlinkRight": 0}
    # the check tells one vertex of the lower lip that follows the upper one
    rig, moved = made.rig, made.rig.displacements["jawOpen"]
    lower = np.flatnonzero((rig.match.side["mouth"] < 0) & rig.match.trusted)
    wrong = lower[np.argmax(np.linalg.norm(moved[lower], axis=1))]
    kept = moved[wrong].copy()
    try:
        moved[wrong] = 0
        assert torn_edges(rig)["jawOpen"] > 0
    finally:
        moved[wrong] = kept


def test_a_mouth_of_one_surface_is_said_and_not_torn(known: Known, tmp_path: Path) -> None:
    path = closed_mouth(known, tmp_path)
    made = rigged(path, None, known.fit, known.head)
    assert any("lips are one closed surface" in text for text in made.warnings)
    assert made.rig.match.closed == ("mouth",)
    moved = made.rig.displacements["jawOpen"]
    edges = made.rig.surface.graph.edges
    before, after = (
        np.linalg.norm(np.diff(each[edges], axis=1)[:, 0], axis=1)
        for each in (made.rig.surface.vertices, made.rig.surface.vertices + moved)
    )
    near = np.linalg.norm(made.rig.surface.vertices[edges].mean(axis=1) - lips(known), axis=1) < 0.03
    # spread over the skin about the lips, not taken up by one row of triangles
    drop = np.linalg.norm(moved, axis=1).max()
    assert drop > 0.02 and (after - before)[near].max() < 0.25 * drop


def test_other_formats_stand_upright_in_metres(known: Known, tmp_path: Path) -> None:
    head, fit = known.head, known.fit
    vertices = fit.vertices_head(head)[0]
    own = known.vertex["skin"]
    faces = head.faces.numpy()
    part = faces[np.isin(faces, own).all(axis=1)]
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])  # Z up, facing -Y
    mesh = trimesh.Trimesh(1000 * vertices[own] @ turn.T + [500, 20, 3000], np.searchsorted(own, part), process=False)
    path = tmp_path / "head.ply"
    mesh.export(path)
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = turn.T / 1000, -turn.T @ [0.5, 0.02, 3.0]
    made = rigged(path, None, replace(fit, head_from_world=world), head)
    parts = Parts(made.content, tmp_path)
    (name,) = [node.name for node in made.file.document.gltf.nodes if node.skin is not None]
    found = parts.vertices(name)
    shift = (found - vertices[own]).mean(axis=0)
    assert np.abs(found - shift - vertices[own]).max() < 1e-5
    jaw = fit.parameters["jaw_pose"] + [JAW, 0, 0]
    truth = known.posed(jaw_pose=jaw) @ fit.head_from_world[:3, :3].T + fit.head_from_world[:3, 3]
    opened = parts.vertices(name, {"jaw": (JAW, 0, 0)}, {"jaw_corrective": 1.0})
    assert np.linalg.norm(opened - shift - truth[own], axis=1).max() < 1e-3


def test_a_rig_that_is_there_stays_unless_asked(known: Known, tmp_path: Path) -> None:
    path = tmp_path / "rigged.glb"
    path.write_bytes(with_a_bone(known.path))
    before = GLTF2.load(str(path))
    kept = rigged(path, None, known.fit, known.head)
    assert any("rigged already" in text and "--replace-rig" in text for text in kept.warnings)
    parts = Parts(kept.content, tmp_path)
    after = GLTF2.load(str(parts.path))
    assert [skin.joints for skin in after.skins] == [skin.joints for skin in before.skins]
    assert after.meshes[0].primitives[0].attributes.JOINTS_0 == before.meshes[0].primitives[0].attributes.JOINTS_0
    assert after.meshes[0].extras["targetNames"][0] == "own" and len(after.animations) == 1
    assert apart(known, parts.vertices("skin"), known.posed(), "skin").max() < 1e-2
    actions = actions_of(known.head)
    assert actions is not None
    smile = known.posed(expr=actions.expression({"mouthSmileLeft": 1.0}))
    found = parts.vertices("skin", weights={"mouthSmileLeft": 1.0})
    assert np.percentile(apart(known, found, smile, "skin"), 99) < 0.3

    replaced = rigged(path, None, known.fit, known.head, replace_rig=True)
    assert not replaced.keeps and any("animations" in text for text in replaced.warnings)
    parts = Parts(replaced.content, tmp_path)
    after = GLTF2.load(str(parts.path))
    assert after.animations == [] and "bone" not in {after.nodes[joint].name for joint in after.skins[0].joints}
    assert apart(known, parts.vertices("skin"), known.posed(), "skin").max() < 1e-2
    jaw = known.fit.parameters["jaw_pose"] + [JAW, 0, 0]
    opened = parts.vertices("skin", {"jaw": (JAW, 0, 0)}, {"jaw_corrective": 1.0})
    assert apart(known, opened, known.posed(jaw_pose=jaw), "skin").max() < 1.0


def test_an_avatar_that_has_changed_is_refused(known: Known) -> None:
    with pytest.raises(InputError, match="not the file that was rendered and fitted"):
        rigged(known.path, "0" * 64, known.fit, known.head)


def test_an_avatar_that_is_not_there_is_asked_for_or_was_mistyped(tmp_path: Path) -> None:
    gone = tmp_path / "gone.glb"
    capture = Capture(tmp_path, [], avatar=AvatarRecord(file=str(gone)))
    with pytest.raises(InputError, match=r"gone\.glb: the avatar is not there any more\. .*--avatar FILE"):
        avatar_of(capture, None, "mesh")
    with pytest.raises(InputError, match=r"typo\.glb: there is no such file\. Check the path"):
        avatar_of(capture, tmp_path / "typo.glb", "mesh")
    gone.touch()
    assert avatar_of(capture, None, "mesh") == gone


def lips(known: Known) -> np.ndarray:
    """Their middle in head space."""
    return known.fit.vertices_head(known.head)[0][known.head.region_mask("lips").numpy()].mean(axis=0)


def closed_mouth(known: Known, folder: Path) -> Path:
    """The skin without what lies within its lips, these sewn to each other."""
    head = known.head
    vertices = known.fit.vertices_world(head)[0]
    inside = head.region_mask("lip_inside").numpy()
    faces = head.faces.numpy()
    hard = (head.weights.numpy()[:, 3:] > 0.5).any(axis=1)
    faces = faces[~(inside | hard)[faces].any(axis=1)]
    # what is left of the mouth's bag hangs together with nothing
    graph = MeshGraph(faces, len(vertices))
    count = np.bincount(graph.component[faces[:, 0]])
    faces = faces[graph.component[faces[:, 0]] == count.argmax()]
    used = np.unique(faces)
    faces, vertices = np.searchsorted(used, faces), vertices[used]
    middle = (lips(known) - known.fit.head_from_world[:3, 3]) @ np.linalg.inv(known.fit.head_from_world[:3, :3]).T
    loops = MeshGraph(faces, len(vertices)).boundary_loops
    loop = min(loops, key=lambda each: np.linalg.norm(vertices[each].mean(axis=0) - middle))
    # stitched over by strips between its upper and its lower half, from corner to corner
    beside = in_skull(known.fit, head, vertices[loop])[:, 0]
    loop = np.roll(loop, -int(beside.argmax()))
    cap = [[loop[-k], loop[k], loop[k + 1]] for k in range(1, len(loop) // 2)]
    cap += [[loop[-k], loop[k + 1], loop[-k - 1]] for k in range(1, len(loop) // 2 - 1)]
    cap.append([loop[0], loop[1], loop[-1]])
    mesh = trimesh.Trimesh(vertices, np.concatenate([faces, np.array(cap)[:, ::-1]]), process=False)
    path = folder / "closed.glb"
    mesh.export(path)
    return path


def with_a_bone(path: Path) -> bytes:
    """The avatar on a skeleton of one bone, which stands elsewhere than it was bound; a morph target and a motion."""
    document = GltfDocument(GLTF2.load(str(path)))
    gltf = document.gltf
    for name in ("extensionsUsed", "extensionsRequired"):
        assert not getattr(gltf, name)
    matrix = np.eye(4)
    matrix[:3, :3] = 2.5 * Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
    matrix[:3, 3] = (3.0, -1.0, 2.0)
    inverse = np.linalg.inv(matrix)
    bind = bind_skin(document, [document.node(Node(name="bone", **placing(matrix)))], np.eye(4)[None], "body")
    gltf.scenes[0].nodes.append(len(gltf.nodes) - 1)
    add_animation(document, "nod", np.array([0.0, 1.0]), [Track(len(gltf.nodes) - 1, "translation", np.zeros((2, 3)))])
    for node in gltf.nodes:
        if node.mesh is None:
            continue
        node.skin = bind
        mesh = gltf.meshes[node.mesh]
        for primitive in mesh.primitives:
            entry = gltf.accessors[primitive.attributes.POSITION]
            view = gltf.bufferViews[entry.bufferView]
            start = (view.byteOffset or 0) + (entry.byteOffset or 0)
            places = np.frombuffer(gltf.binary_blob(), "<f4", 3 * entry.count, start).reshape(-1, 3)
            local = places @ inverse[:3, :3].T + inverse[:3, 3]
            primitive.attributes.POSITION = document.accessor(local.astype(np.float32), bounds=True)
            count = entry.count
            primitive.attributes.JOINTS_0 = document.accessor(np.zeros((count, 4), np.uint8))
            shares = np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))
            primitive.attributes.WEIGHTS_0 = document.accessor(shares)
            primitive.targets = [morph_target(document, np.zeros((count, 3)))]
        name_targets(mesh, ["own"])
    return document.glb()


def test_the_khronos_validator_finds_nothing(made: RiggedAvatar, known: Known, tmp_path: Path) -> None:
    modules = npm_modules()
    own = tmp_path / "rigged.glb"
    own.write_bytes(with_a_bone(known.path))
    files = {"new": made.content}
    files |= {
        name: rigged(own, None, known.fit, known.head, replace_rig=name == "replaced").content
        for name in ("kept", "replaced")
    }
    for name, content in files.items():
        (tmp_path / f"{name}.glb").write_bytes(content)
    paths = [str(tmp_path / f"{name}.glb") for name in files]
    script = Path(__file__).parents[2] / "browser" / "validate_gltf.cjs"
    command = ["node", str(script), str(modules), *paths]
    reports = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert list(reports) == paths
    for report in reports.values():
        assert report["issues"]["numErrors"] == report["issues"]["numWarnings"] == 0, report["issues"]
        assert report["info"]["hasSkins"] and report["info"]["hasMorphTargets"]
