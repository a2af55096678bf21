"""Clothes and shoulders below the head model's end: nothing tears at the neck, and what lies far below stays."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.camera import transform_points
from flame_fitting.export.head_rig import NECK, ROOT
from flame_fitting.export.rigged_avatar import RiggedAvatar, rigged
from flame_fitting.export.rigging.parts import Role
from flame_fitting.export.rigging.showing import REST, Pose, WrittenAvatar
from flame_fitting.head.loading import load_head
from flame_fitting.head.mesh_graph import MeshGraph
from tests.export.rigging.clothes import Dressed, dressed_avatar

TURN = Pose("", {"neck": (0.0, 0.5, 0.0)}, {})
NOD = Pose("", {"neck": (0.4, 0.0, 0.0)}, {})
OPEN = Pose("", {"jaw": (0.35, 0.0, 0.0)}, {"jaw_corrective": 1.4})
SMILE = Pose("", {}, {"mouthSmileLeft": 1.0, "jawOpen": 1.0})


class Worn:
    """A dressed avatar, rigged; places are in head space, metres."""

    def __init__(self, dressed: Dressed) -> None:
        self.dressed = dressed
        self.made: RiggedAvatar = rigged(dressed.path, None, dressed.fit, load_head("open"))
        self._written = WrittenAvatar(self.made.content)
        self.edges = {part.name: MeshGraph(part.faces, len(part.vertices)).edges for part in self._written.parts(REST)}
        self.rest = self.vertices(REST)

    def vertices(self, pose: Pose) -> dict[str, np.ndarray]:
        matrix = self.dressed.fit.head_from_world
        return {part.name: transform_points(matrix, part.vertices) for part in self._written.parts(pose)}

    def weights(self, name: str) -> np.ndarray:
        start = 0
        for found in self.made.file.primitives:
            count = len(found.part.vertices)
            if found.part.name == name:
                return self.made.rig.weights[start : start + count]
            start += count
        raise KeyError(name)

    def moved(self, name: str, pose: Pose) -> np.ndarray:
        """How far each vertex goes, mm."""
        return 1000 * np.linalg.norm(self.vertices(pose)[name] - self.rest[name], axis=1)


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Worn:
    """With a collar that stands 5 mm off the neck."""
    return Worn(dressed_avatar(load_head("open"), tmp_path_factory.mktemp("worn"), 0.005))


@pytest.mark.parametrize("pose", [TURN, NOD, OPEN], ids=["turn", "nod", "open"])
def test_nothing_tears_where_neck_and_clothes_meet(worn: Worn, pose: Pose) -> None:
    after = worn.vertices(pose)
    for name, edges in worn.edges.items():
        before = worn.rest[name]
        near = np.abs(before[edges][..., 1] - worn.dressed.end - 0.02).max(axis=1) < 0.06
        assert near.sum() > 500 or name == "necklace"
        length, now = (
            np.linalg.norm(each[edges[:, 0]] - each[edges[:, 1]], axis=1)[near] for each in (before, after[name])
        )
        assert (now < 1.5 * length).all(), name
        assert 1000 * (now - length).max(initial=0) < 4, name
    # the head itself goes with the pose
    assert worn.moved("skin", pose).max() > 20


def test_what_lies_below_stays(worn: Worn) -> None:
    for pose in (TURN, NOD, OPEN, SMILE):
        for name in ("skin", "shirt"):
            below = worn.rest[name][:, 1] < worn.dressed.end - 0.01
            assert below.sum() > 500
            assert worn.moved(name, pose)[below].max() < 1e-3, name
    for name in ("skin", "shirt"):
        below = worn.rest[name][:, 1] < worn.dressed.end - 0.01
        assert (worn.weights(name)[below][:, ROOT] > 0.9999).all()


def test_a_collar_on_the_neck_goes_with_its_skin(worn: Worn) -> None:
    """Else the neck would come through it."""
    for pose in (TURN, NOD):
        after = worn.vertices(pose)
        for name, most in (("shirt", 8), ("necklace", 7)):
            top = np.flatnonzero(worn.rest[name][:, 1] > worn.dressed.end + 0.05)
            apart = np.linalg.norm(worn.rest[name][top, None] - worn.rest["skin"][None], axis=2)
            skin = apart.argmin(axis=1)
            drift = (after[name][top] - worn.rest[name][top]) - (after["skin"][skin] - worn.rest["skin"][skin])
            assert 1000 * np.linalg.norm(drift, axis=1).max() < most, name
            assert worn.moved(name, pose)[top].max() > 10, name


def test_a_necklace_is_no_hair(worn: Worn) -> None:
    """Clothes about the neck do not turn with the skull."""
    assert Role.HEAD not in worn.made.rig.pieces.role
    assert worn.weights("necklace")[:, NECK].max() < 0.9


def test_a_wide_collar_stays_with_the_shoulders(tmp_path: Path) -> None:
    wide = Worn(dressed_avatar(load_head("open"), tmp_path, 0.02))
    for pose in (TURN, NOD, OPEN, SMILE):
        assert wide.moved("shirt", pose).max() < 1e-3
