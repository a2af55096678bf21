"""Weights by region: later names win, areas are areas."""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting.fit.region_weights import SURFACE_WEIGHT, by_region, surface_weights, vertex_areas
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from tests.toy import toy_head, toy_head_data


def test_later_names_win_and_absent_ones_count_as_empty() -> None:
    data = toy_head_data()
    head = HeadModel(replace(data, regions={"face": np.arange(10), "nose": np.arange(5, 15)}))
    value = by_region(head, {"face": 1.0, "nose": 2.0, "beard": 3.0}, default=0.5)
    assert value[:5].tolist() == [1.0] * 5 and value[5:15].tolist() == [2.0] * 10
    assert (value[15:] == 0.5).all()


def test_areas_add_up_to_the_surface() -> None:
    head = toy_head()
    corners = head.v_template[head.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1).sum() / 2
    areas = vertex_areas(head.v_template, head.faces)
    torch.testing.assert_close(areas.sum(), area)
    assert areas.min() > 0
    torch.testing.assert_close(vertex_areas(2 * head.v_template, head.faces), 4 * areas)


def test_a_triangle_counts_as_its_least_vertex() -> None:
    head = toy_head()
    weights = surface_weights(head)
    areas = vertex_areas(head.v_template, head.faces)
    face = head.region_mask("face") & ~head.region_mask("neck", "scalp")
    torch.testing.assert_close(weights.vertex[face], areas[face] / areas.mean())
    outside = ~head.region_mask("face", "neck", "scalp")
    assert (weights.vertex[outside] == 0).all()
    assert (weights.face[outside[head.faces].any(1)] == 0).all()
    assert set(weights.active.tolist()) == set(torch.nonzero(~outside)[:, 0].tolist())


def test_open_head_knows_the_regions_that_have_a_weight() -> None:
    head = load_head("open")
    missing = {name for name in SURFACE_WEIGHT if name not in head.regions} - {"teeth", "nostrils"}
    assert not missing
    weights = surface_weights(head)
    for name in ("lip_inside", "bottomline"):
        alone = head.region_mask(name)
        assert (weights.vertex[alone] == 0).all(), name
    nose = head.region_mask("nose") & ~head.region_mask("eyelids", "boundary", "eyeballs")
    areas = vertex_areas(head.v_template, head.faces)
    torch.testing.assert_close(weights.vertex[nose], (areas / areas.mean())[nose])
