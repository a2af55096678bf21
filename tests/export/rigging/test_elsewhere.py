"""A rigged avatar in other programs: three.js in Chromium, Blender. The Khronos validator is in test_rigged_avatar."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, transform_points
from flame_fitting.export.head_rig import JOINTS
from flame_fitting.export.rigged_avatar import RiggedAvatar, rigged
from flame_fitting.export.rigging.showing import REST, Pose, WrittenAvatar
from flame_fitting.head.loading import load_head
from tests.browser.other_programs import blender, npm_modules
from tests.browser.three_page import CHROMIUM, shot, show
from tests.export.rigging.avatars import Known, known_avatar

BROWSER = Path(__file__).parents[2] / "browser"
SIZE = (200, 240)


class Case(NamedTuple):
    known: Known
    made: RiggedAvatar
    path: Path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Rigged, in a file of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    known = known_avatar(load_head("open"), folder)
    made = rigged(known.path, None, known.fit, known.head)
    path = folder / "written.glb"
    path.write_bytes(made.content)
    return Case(known, made, path)


POSES = {
    "fit": REST,
    "jaw": Pose("", {"jaw": (0.25, 0.0, 0.0)}, {"jaw_corrective": 1.0}),
    "eyes": Pose("", {"left_eye": (0.0, 0.35, 0.0), "right_eye": (0.0, 0.35, 0.0)}, {}),
    "blink": Pose("", {}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}),
    "face": Pose("", {"neck": (0.1, 0.4, 0.05), "jaw": (0.1, 0.0, 0.0)}, {"mouthSmileLeft": 1.0, "browInnerUp": 0.5}),
}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not there (Debian: apt-get install chromium)")
def test_three_js_moves_it_as_we_do(case: Case) -> None:
    modules = npm_modules()
    known, made, path = case
    from_world = known.fit.head_from_world
    middle = made.head.vertices[made.head.mask("face")].mean(axis=0)
    K, camera = intrinsics_from_fov(16, *SIZE), look_at(middle + [0.25, 0.1, 1.0], middle, [0, 1, 0])
    nodes = {node.name: node for node in made.file.document.gltf.nodes if node.name in JOINTS}
    names = sorted({name for pose in POSES.values() for name in (*pose.turns, *pose.weights)})

    def asked(pose: Pose) -> dict[str, Any]:
        """Everything is set in every shot, so that nothing of the one before stays."""
        turns = {}
        for name in set(names) & set(JOINTS):
            bound = Rotation.from_quat(nodes[name].rotation or (0, 0, 0, 1))
            turns[name] = (bound * Rotation.from_rotvec(pose.turns.get(name, (0, 0, 0)))).as_quat().tolist()
        return {"bones": turns, "weights": {n: pose.weights.get(n, 0.0) for n in names if n not in JOINTS}}

    shots = [shot(name, K, camera @ from_world, SIZE, **asked(pose)) for name, pose in POSES.items()]
    got = show(path, modules, shots)
    about = json.loads(got["about.json"])
    assert about["bones"] == list(JOINTS)
    written = WrittenAvatar(made.content)
    parts = {part.name: part for part in written.parts(REST)}
    assert {name for name, _ in about["meshes"]} == set(parts) and len(parts) == 6
    ours = {}
    for name, pose in POSES.items():
        posed = {part.name: part for part in written.parts(pose)}
        found = np.split(
            np.frombuffer(got[f"{name}.f32"], np.float32).reshape(-1, 3),
            np.cumsum([n for _, n in about["meshes"]])[:-1],
        )
        for (mesh, _), vertices in zip(about["meshes"], found, strict=True):
            apart = known.to_mm(np.linalg.norm(vertices - posed[mesh].vertices, axis=1))
            assert apart.max() < 0.01, (name, mesh)
        ours[name] = _drawn(list(posed.values()), from_world, K, camera)
    for name, picture in ours.items():
        theirs = np.asarray(Image.open(io.BytesIO(got[f"{name}.png"])).convert("RGB")) / 255
        inside, seen = (np.abs(each - 1).max(-1) > 0.02 for each in (picture, theirs))
        assert (inside & seen).sum() > 0.99 * (inside | seen).sum(), name
        assert np.abs(picture - theirs)[inside & seen].mean() < 0.02, name
        if name in ("jaw", "face"):  # glasses hide the rest
            moved = np.abs(picture - ours["fit"]).max(-1) > 0.1
            assert moved.sum() > 30, name
            assert np.abs(picture - theirs)[moved].mean() < 0.3 * np.abs(ours["fit"] - theirs)[moved].mean(), name


def _drawn(parts: list, head_from_world: np.ndarray, K: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) that our renderer makes, without light."""
    placed = [replace(p, vertices=transform_points(head_from_world, p.vertices), normals=None) for p in parts]
    avatar = MeshAvatar(placed, Path("memory"), "", "memory")
    drawn = avatar.draw(K[None], camera[None], *SIZE, "unlit", outputs=("image",))
    assert drawn.image is not None
    return drawn.image[0].transpose(1, 2, 0)


def test_blender_has_it_on_the_avatar(case: Case, tmp_path: Path) -> None:
    known, made, path = case
    blender(BROWSER / "blender_import.py", tmp_path / "out.npz", path, known.path)
    found = np.load(tmp_path / "out.npz")
    rigged_one, avatar = found["vertices_0"], found["vertices_1"]
    assert len(rigged_one) == len(avatar) and len(found["faces_0"]) == len(found["faces_1"])
    for one, other in ((rigged_one, avatar), (avatar, rigged_one)):
        assert known.to_mm(cKDTree(one).query(other)[0]).max() < 0.02
    targets = set(made.rig.displacements)
    assert {"jawOpen", "eyeBlinkLeft", "mouthSmileRight", "jaw_corrective"} <= targets <= set(found["shape_keys_0"])
    assert set(found["bones_0"]) == set(JOINTS) and len(found["bones_1"]) == 0
    x, y, z = made.rig.joints[:, :3, 3].T
    joints = dict(zip(JOINTS, np.stack([x, -z, y], axis=1), strict=True))  # Blender's z is up
    for name, at in zip(found["bones_0"], found["heads_0"], strict=True):
        assert known.to_mm(np.linalg.norm(at - joints[name])) < 0.02, name
