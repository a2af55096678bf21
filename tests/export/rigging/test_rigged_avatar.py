"""A rigged avatar moves as the head model does: read by an evaluator of its own from the file that was written."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame_fitting.export.rigged_avatar import RiggedAvatar, correspondence, rigged
from flame_fitting.head.actions import actions_of
from flame_fitting.head.loading import load_head
from tests.export.glb_evaluator import EvaluatedGlb
from tests.export.rigging.avatars import Known, known_avatar

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
    turns = {name: (0, 0.3, 0) for name in ("left_eye", "right_eye")}
    for name in ("eye_left", "eye_right"):
        assert apart(known, parts.vertices(name, turns), truth, name).max() < 0.5
        assert apart(known, parts.vertices(name), truth, name).max() > 2


def test_teeth_and_glasses_follow_rigidly(known: Known, parts: Parts) -> None:
    turns = {"jaw": (JAW, 0, 0), "neck": (0, 0.4, 0)}
    places = {name: (parts.vertices(name), parts.vertices(name, turns)) for name in
              ("teeth_upper", "teeth_lower", "glasses")}  # fmt: skip
    for name, (before, after) in places.items():
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
    from pygltflib import GLTF2

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
