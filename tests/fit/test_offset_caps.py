"""The largest offset of each region, and eyeballs that move as a whole."""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import CAP, by_region, surface_weights, vertex_areas
from flame_fitting.fit.solvers.registration import OffsetConfig, fit_offsets
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.head.model import HeadModel
from tests.fit.known_truth import cloud_of, embedding_on, problem
from tests.fit.settings import ITERATIONS
from tests.toy import toy_head_data


def _targets(head: HeadModel, vertices: torch.Tensor) -> list[FrameTarget]:
    embedding = embedding_on(head)
    nothing = np.full((len(embedding.valid), 3), np.nan)
    marks = make_landmark_target(head, embedding, nothing, nothing[:, 0], np.ones(len(nothing)))
    return [FrameTarget((SourceTarget(marks),), cloud_of(vertices.numpy(), head.faces.numpy()))]


def test_offsets_stay_below_the_caps() -> None:
    head, _, _, weights = problem()
    start = FitParameters.neutral(head)
    # the avatar's head is 15 mm larger all around: more than a face's offsets may bridge, less than a scalp's
    outward = torch.nn.functional.normalize(head.v_template, dim=-1)
    targets = _targets(head, head.v_template + 0.015 * outward)
    config, anywhere = OffsetConfig(cut_from=0.02, cut_to=0.02), torch.ones_like(weights.vertex)
    found = fit_offsets(head, start, targets, replace(weights, outside_cut=anywhere), ITERATIONS, config)
    size = found.static_offset[0].norm(dim=-1)
    caps = by_region(head, CAP, 0.02)
    assert (size <= caps + 1e-9).all()
    face = head.region_mask("face") & ~head.region_mask("scalp", "neck")
    assert caps[face].unique().tolist() == [CAP["face"]] and size[face].median() > 0.95 * CAP["face"]
    assert size[head.region_mask("scalp")].median() > 1.1 * CAP["face"]


def test_an_eyeball_moves_as_a_whole_with_its_lids() -> None:
    data = toy_head_data()
    v = data.v_template
    apart = np.linalg.norm(v - v[np.argmin(np.linalg.norm(v - [0.03, 0.03, 0.075], axis=1))], axis=1)
    ball, lids = np.flatnonzero(apart < 0.016), np.flatnonzero((apart >= 0.016) & (apart < 0.03))
    everywhere = np.arange(len(v))
    regions = {"face": everywhere, "eyeballs": ball, "eyelids": lids}
    head = HeadModel(replace(data, regions=regions)).double()
    assert len(ball) > 5 and len(lids) > 5
    # the avatar's surface is dented and moved around the eye, and the ball's own part of it is bumpy
    shift = 0.003 * torch.exp(-torch.as_tensor(apart / 0.04).square())[:, None] * torch.tensor([0.0, 0.0, 1.0])
    bumps = 0.001 * torch.as_tensor(np.sin(900 * v[:, :1]) * (apart < 0.016)[:, None])
    targets = _targets(head, head.v_template + shift + bumps * torch.tensor([0.0, 0.0, 1.0]))
    areas = vertex_areas(head.v_template, head.faces)
    surface = surface_weights(head)
    assert torch.allclose(surface.vertex[ball], 0.2 * areas[ball] / areas.mean())
    found = fit_offsets(head, FitParameters.neutral(head), targets, surface, ITERATIONS)
    offset = found.static_offset[0]
    assert (offset[ball] - offset[ball].mean(0)).norm(dim=-1).max() < 3e-4, "the ball keeps its shape"
    assert offset[lids, 2].mean() > 1e-3 and abs(offset[ball, 2].mean() - offset[lids, 2].mean()) < 1.2e-3
