"""The open head's named actions: they belong to the head that ships, and show what their names say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.head import actions as module
from flame_fitting.head.actions import Actions, actions_of
from flame_fitting.head.apertures import GAP_NAMES, find_apertures
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel

LID = np.array(["lid" in name for name in GAP_NAMES])


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


@pytest.fixture(scope="module")
def actions(head: HeadModel) -> Actions:
    found = actions_of(head)
    assert found is not None
    return found


def moved(head: HeadModel, actions: Actions, **amounts: float) -> np.ndarray:
    """Displacement (V, 3), mm."""
    expr = torch.as_tensor(actions.expression(amounts), dtype=torch.float32)
    return 1000 * (head(expr=expr[None]).vertices[0] - head.v_template).numpy().astype(np.float64)


def lid_gaps(head: HeadModel, actions: Actions, **amounts: float) -> np.ndarray:
    """Of the right eye, then the left, mm."""
    vertices = head.v_template + torch.as_tensor(moved(head, actions, **amounts) / 1000, dtype=torch.float32)
    return 1000 * find_apertures(head).gaps(vertices[None], head.faces)[0].numpy()[LID].reshape(2, -1)


def test_they_belong_to_the_shipped_head(head: HeadModel, actions: Actions) -> None:
    assert actions.head_hash == head.file_hash
    assert actions.coefficients.shape == (len(actions.names), head.n_expr)
    assert len(set(actions.names)) == len(actions.names) == 49, "ARKit's 52 without jawOpen, mouthClose and tongueOut"


def test_other_heads_have_none(head: HeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "name", "flame2023")
    assert actions_of(head) is None
    monkeypatch.undo()
    monkeypatch.setattr(head, "file_hash", "0" * 64)
    assert actions_of(head) is None


def test_the_components_explain_what_is_seen(actions: Actions) -> None:
    share = dict(zip(actions.names, actions.explained, strict=True))
    assert min(v for name, v in share.items() if "eyeLook" not in name) > 0.88
    assert min(share["eyeBlinkLeft"], share["eyeBlinkRight"], share["mouthSmileLeft"]) > 0.99


@pytest.mark.parametrize("side", [0, 1])
def test_a_blink_shuts_its_eye_alone(head: HeadModel, actions: Actions, side: int) -> None:
    rest, name = lid_gaps(head, actions), ("eyeBlinkRight", "eyeBlinkLeft")[side]
    shut = lid_gaps(head, actions, **{name: 1.0})
    assert rest.min() > 6.0
    assert (shut[side] < 0.0).all(), "at full strength the lids meet everywhere and pass each other"
    assert np.abs(shut[1 - side] - rest[1 - side]).max() < 0.2
    half = lid_gaps(head, actions, **{name: 0.6})
    assert np.abs(half[side]).max() < 2.0, "they meet at 0.5 to 0.8 of it"


@pytest.mark.parametrize("name", ["mouthSmile", "eyeBlink", "browDown", "noseSneer", "browOuterUp", "cheekSquint"])
def test_an_action_moves_its_own_side(head: HeadModel, actions: Actions, name: str) -> None:
    x = head.v_template[:, 0].numpy()
    for side, sign in (("Left", 1), ("Right", -1)):
        size = (moved(head, actions, **{name + side: 1.0}) ** 2).sum(1)
        assert size[sign * x > 0.005].sum() > 12 * size[sign * x < -0.005].sum()


def test_directions(head: HeadModel, actions: Actions) -> None:
    x, y = head.v_template[:, 0].numpy(), head.v_template[:, 1].numpy()
    brow = (x > 0.02) & (x < 0.05) & head.region_mask("forehead").numpy() & (y < 0.075)
    assert moved(head, actions, browOuterUpLeft=1.0)[brow, 1].mean() > 1.0
    assert moved(head, actions, browDownLeft=1.0)[brow, 1].mean() < -1.0
    lips = head.regions["lips"].numpy()
    corner = lips[np.argmax(x[lips])]
    smile, frown = (moved(head, actions, **{name: 1.0})[corner] for name in ("mouthSmileLeft", "mouthFrownLeft"))
    assert smile[1] > 4.0 and smile[0] > 1.0 and frown[1] < -2.0
    assert moved(head, actions, mouthPucker=1.0)[corner, 0] < -3.0


def test_amounts_add_up(actions: Actions) -> None:
    both = actions.expression({"browDownLeft": 0.5, "mouthPucker": -2.0})
    assert np.allclose(
        both, 0.5 * actions.expression({"browDownLeft": 1.0}) - 2 * actions.expression({"mouthPucker": 1})
    )
    assert not actions.expression({}).any()
    with pytest.raises(KeyError, match="jawOpen"):
        actions.expression({"jawOpen": 1.0})


def test_a_damaged_file_is_told(head: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "actions.npz"
    with np.load(assets.shipped_actions_path()) as data:
        np.savez(path, **(dict(data) | {"names": data["names"][:3]}))
    monkeypatch.setattr(assets, "shipped_actions_path", lambda: path)
    module._shipped.cache_clear()
    try:
        with pytest.raises(InputError, match="not a file of facial actions"):
            actions_of(head)
    finally:
        module._shipped.cache_clear()
