"""Hair and clothes: found by their colours, and outlines of theirs that move offsets alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.similarity import decompose_similarity, umeyama
from flame_fitting.fit.covered import covered_vertices
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.presets import preset
from flame_fitting.fit.region_weights import surface_weights
from flame_fitting.fit.solvers import adam
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.normals import vertex_normals
from flame_fitting.progress import Bar
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import embedding_on
from tests.fit.pictures import around, draw, stored

SIZE = 256
SKIN, HAIR = (0.80, 0.62, 0.52), (0.15, 0.11, 0.09)


@pytest.fixture(scope="module")
def open_head() -> tuple[HeadModel, TexelMaps]:
    head = load_head("open").double()
    return head, TexelMaps(make_rasterizer("cpu"), head)


def painted(head: HeadModel, maps: TexelMaps, **colors: tuple[float, float, float]) -> torch.Tensor:
    """(R, R, 3): skin with darker and lighter places, and regions of other colours."""
    texels = maps(SIZE)
    uneven = 1 + 0.08 * torch.sin(torch.arange(SIZE) / 5)[:, None, None]
    out = torch.tensor(SKIN) * uneven * torch.ones(SIZE, SIZE, 1)
    for name, color in colors.items():
        of_region = head.face_mask(name)[texels.face.clamp_min(0)] & texels.covered
        out[of_region] = torch.tensor(color)
    return out.clamp(0, 1)


@pytest.mark.parametrize("color", [HAIR, (0.85, 0.72, 0.40), (0.45, 0.45, 0.47)], ids=["dark", "blond", "grey"])
def test_hair_is_told_by_its_colour(open_head, color) -> None:
    head, maps = open_head
    found = covered_vertices(head, painted(head, maps, scalp=color), maps(SIZE)) > 0
    regions = head.regions
    assert found[regions["scalp"]].float().mean() > 0.9  # but its rim
    assert found[regions["face"]].float().mean() < 0.05 and not found[regions["neck_lower"]].any()


def test_a_bald_head_and_one_without_colours_are_not_covered(open_head) -> None:
    head, maps = open_head
    plain = (
        painted(head, maps, lips=(0.7, 0.3, 0.3), eyebrows=HAIR) if "eyebrows" in head.regions else painted(head, maps)
    )
    assert not covered_vertices(head, plain, maps(SIZE)).any()
    grey = plain.mean(-1, keepdim=True).expand(-1, -1, 3)
    assert not covered_vertices(head, grey, maps(SIZE)).any()


def grown(start: FitParameters, found: FitParameters, head: HeadModel) -> float:
    """By how much a face is larger than before."""
    face = head.regions["face"]
    before, after = (p.vertices(head)[0, face].detach().numpy() for p in (start, found))
    return float(decompose_similarity(umeyama(before, after))[0]) - 1


def test_hair_makes_no_face_larger_and_offsets_follow_it(open_head) -> None:
    """A head with 18 mm of hair, seen by cameras around it, begun with the true head beneath."""
    head, maps = open_head
    truth = FitParameters.neutral(head)
    posed = truth.vertices(head)[0].numpy()
    hairy, scalp = posed.copy(), head.regions["scalp"].numpy()
    hairy[scalp] += 0.018 * vertex_normals(posed, head.faces.numpy())[scalp]
    texture = painted(head, maps, scalp=HAIR)
    pixels = (255 * texture).round().to(torch.uint8).numpy()
    views = replace(draw(head, hairy, pixels, around(6, 0.1), 64), background=torch.ones(3))
    embedding = embedding_on(head)
    points = embedding.points(truth.vertices(head), head.faces)[0].numpy()
    marks = make_landmark_target(head, embedding, points, np.full(len(points), 1e-3), np.ones(len(points)))
    seen = Observations(
        head,
        [FrameTarget((SourceTarget(marks),))],
        surface_weights(head),
        make_rasterizer("cpu"),
        stored(views),
        texels=maps,
    )
    state = FitState(truth, np.eye(4), texture=texture)
    config = preset("static")
    found = {}
    for covered in (True, False):
        settings = replace(
            config.pipeline.rgb_init_outline, num_steps=20, sizes=(), texture_sizes=(64,), except_covered=covered
        )
        with Bar(20, "outline", "step") as bar:
            found[covered] = adam.solve(state, seen, Stage("outline", settings, config), bar).parameters
    assert grown(truth, found[False], head) > 0.015
    assert abs(grown(truth, found[True], head)) < 0.005
    both = replace(config.pipeline.rgb_init_offset, num_steps=30, sizes=(), texture_sizes=(64,), lr_scale=5.0, rebake=0)
    with Bar(30, "offsets", "step") as bar:
        after = adam.solve(state, seen, Stage("offsets", both, config), bar).parameters
    lifted = (after.static_offset[0].detach().numpy() * vertex_normals(posed, head.faces.numpy()))[scalp].sum(-1)
    assert np.quantile(lifted, 0.8) > 0.003
    assert abs(grown(truth, replace(after, static_offset=truth.static_offset), head)) < 0.005
