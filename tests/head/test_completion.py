"""Completion of heads that bring arrays only."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.head.completion import complete_flame
from flame_fitting.head.model import HeadModel
from tests.head.ring_head import ring_head
from tests.toy import toy_head_data


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))


def test_a_head_gets_what_it_lacks_and_stays_as_it_was() -> None:
    data = ring_head()
    count, faces = len(data.v_template), data.faces.copy()
    complete = complete_flame(data, add_teeth=True)
    assert data.uv is None and data.regions == {} and len(data.v_template) == count
    np.testing.assert_array_equal(data.faces, faces)
    assert len(complete.v_template) == count + 120 and complete.name == data.name
    model = HeadModel(complete)
    assert model.has_uv and model.region_mask("teeth").sum() == 120
    assert not model.region_mask("skin")[-120:].any()  # teeth are no skin
    assert "teeth" not in complete_flame(data).regions


def test_given_masks_reach_the_regions() -> None:
    data = ring_head()
    scalp = np.arange(700, 900)
    complete = complete_flame(data, masks={"scalp": scalp})
    np.testing.assert_array_equal(complete.regions["scalp"], scalp)


def test_another_mesh_gets_texture_coordinates_and_no_teeth() -> None:
    pytest.importorskip("xatlas")
    data = toy_head_data()
    data.uv = data.uv_faces = None
    own = data.regions["face"]
    complete = complete_flame(data, add_teeth=True)
    assert len(complete.v_template) == len(data.v_template) and "teeth" not in complete.regions
    assert complete.uv is not None and complete.uv_faces is not None
    assert complete.uv_faces.shape == complete.faces.shape
    np.testing.assert_array_equal(complete.regions["face"], own)
    assert len(complete.regions["lips_tight"]) == 0
