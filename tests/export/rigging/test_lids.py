"""Lids of an avatar that are not quite where the fitted head's are, and of head models without a blink of their own."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.export.rigging.avatar_file import open_avatar
from flame_fitting.export.rigging.expressions import expressions_of
from flame_fitting.export.rigging.fitted_head import FittedHead, fitted_head
from flame_fitting.export.rigging.lids import Lids, lids_of
from flame_fitting.export.rigging.rig import Rig, rig_of
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from tests.export.rigging.avatars import Known, known_avatar
from tests.synthetic import known_fit, similarity

BLINKS = {"Left": "left_eye", "Right": "right_eye"}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return known_avatar(load_head("open"), tmp_path_factory.mktemp("lids"))


@pytest.fixture(scope="module")
def rig(known: Known) -> tuple[Rig, dict[str, Lids]]:
    """Of an avatar whose upper lids' inner halves are 1.5 mm lower than the head's."""
    file = open_avatar(known.path, None, known.fit.head_from_world)
    head = fitted_head(known.fit, known.head)
    (skin,) = [part for part in file.parts if part.name == "skin"]
    own = known.vertex["skin"]
    moved = np.zeros((known.head.n_vertices, 3))
    for name in BLINKS.values():
        upper = head.openings[name].rims[0]
        inner = np.abs(upper[:, 0]) < np.median(np.abs(upper[:, 0]))
        off = np.linalg.norm(head.vertices[:, None] - upper[inner][None], axis=2).min(axis=1)
        moved[:, 1] -= 0.0015 * np.clip(1 - off / 0.006, 0, 1) * (head.openings[name].side > 0)
    skin.vertices[:] += moved[own] @ np.linalg.inv(known.fit.head_from_world)[:3, :3].T
    out = rig_of(file.parts, head, known.fit.head_from_world)
    return out, lids_of(out.surface, out.pieces, out.match.side, head)


def gap_of(eye: Lids, places: np.ndarray) -> np.ndarray:
    """How far the upper lid ends above the lower one from corner to corner, mm along the eyeball."""
    (at, upper), below = eye.edge(0, places), eye.edge(1, places)
    return 1000 * eye.radius * (upper - np.interp(at, *below))


@pytest.mark.parametrize("share", [0.6, 1.0, 1.3], ids=["short", "as carried", "beyond"])
def test_the_upper_lid_ends_on_the_lower_one(rig: tuple[Rig, dict[str, Lids]], share: float) -> None:
    """Whether the head's own blink, which the avatar is given, ends before it or beyond."""
    made, eyes = rig
    rest = made.surface.vertices
    for side, eye in eyes.items():
        moved = share * made.displacements[f"eyeBlink{side}"]
        assert gap_of(eye, rest).max() > 5
        gap = gap_of(eye, rest + moved)
        if share != 1.0:
            assert np.abs(gap[3:-3]).min() > 1.0
        gap = gap_of(eye, rest + eye.shut(moved))
        assert len(gap) > 15 and gap[3:-3].max() < 0.1 and gap[3:-3].min() > -0.7, gap
        assert np.abs(gap).max() < 2, gap  # corners are of both lids


def off_rims(head: FittedHead, name: str) -> np.ndarray:
    """Of each vertex, metres from the rims of an eye."""
    return np.linalg.norm(head.vertices[:, None] - head.openings[name].rims.reshape(1, -1, 3), axis=2).min(axis=1)


@pytest.fixture(scope="module")
def flame_like(test_data: Path) -> HeadModel:
    """A model of FLAME's format: its components move the whole face, and nobody has named actions in them."""
    path = test_data / "standin" / "flame2023_standin.pkl"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return load_head(str(path))


def test_a_blink_of_components_moves_the_lids_alone(flame_like: HeadModel) -> None:
    head = fitted_head(known_fit(flame_like, similarity()), flame_like)
    moved = expressions_of(head, 3)
    assert {"expr_000", "expr_002", "eyeBlinkLeft", "eyeBlinkRight"} <= set(moved) and "mouthSmileLeft" not in moved
    for side, name in BLINKS.items():
        other = next(each for each in BLINKS.values() if each != name)
        length = 1000 * np.linalg.norm(moved[f"eyeBlink{side}"], axis=1)
        assert length[(head.openings[name].side > 0) & (off_rims(head, name) < 0.002)].max() > 4
        assert length[head.mask("lips")].max() == 0
        assert length[off_rims(head, other) < 0.005].max() < 0.2
