"""The photometric stage on pictures of a toy head whose regions have colours of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import surface_weights
from flame_fitting.fit.rendering import HeadRenderer
from flame_fitting.fit.solvers.adam import refine
from flame_fitting.fit.solvers.appearance import cluster_table
from flame_fitting.fit.solvers.photometric_step import PhotometricStep, Problem
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.texture import TexelMaps, texel_map
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.mesh import clip_positions
from tests.fit.known_truth import embedding_on
from tests.fit.pictures import around, draw
from tests.fit.settings import geometry_of, priors_of, settings_of, weights_of
from tests.toy import toy_head_data

SIZE = 128
PAINTED = ("skin", "scalp", "neck", "ears", "lips_tight", "eyelids", "sclerae", "irises", "lip_inside", "teeth")
"""Regions of the pictures with a colour of their own, where the head has them; later ones overwrite earlier ones."""


def patched_head() -> HeadModel:
    """The toy head with lips, irises, ears and neck as patches on its front."""
    data = toy_head_data()
    v = data.v_template
    places = {
        "lips_tight": ((0.0, -0.05), 0.022),
        "irises": ((0.03, 0.03), 0.018),
        "sclerae": ((-0.03, 0.03), 0.018),
        "ears": ((0.0, 0.07), 0.02),
    }
    front = v[:, 2] > 0.0
    regions = dict(data.regions)
    for name, (centre, radius) in places.items():
        regions[name] = np.flatnonzero(front & (np.linalg.norm(v[:, :2] - centre, axis=1) < radius))
        assert len(regions[name]) > 5
    regions["skin"] = np.arange(len(v))
    return HeadModel(replace(data, regions=regions)).double()


@pytest.fixture(scope="module")
def scene():
    """Head, texel map, truth (slightly turned) and pictures of it from the front."""
    head = patched_head()
    rasterizer = make_rasterizer("cpu")
    texels = texel_map(rasterizer, head, SIZE)
    clusters = cluster_table(head, PAINTED)
    palette = np.random.default_rng(5).integers(40, 220, (len(PAINTED) + 2, 3)).astype(np.uint8)
    texture = palette[clusters[texels.face.clamp_min(0)].numpy() + 1]
    truth = FitParameters.neutral(head)
    views = draw(head, truth.vertices(head)[0].numpy(), texture, around(6, 0.1, 80.0), SIZE)
    return head, rasterizer, texels, truth, views, torch.as_tensor(texture).float() / 255


def no_targets(head: HeadModel) -> list[FrameTarget]:
    """One timestep with neither landmarks nor surface."""
    embedding = embedding_on(head)
    nothing = np.full((len(embedding.valid), 3), np.nan)
    marks = make_landmark_target(head, embedding, nothing, nothing[:, 0], np.ones(len(nothing)))
    assert len(marks.index) == 0
    return [FrameTarget((SourceTarget(marks),))]


def _problem(scene, start: FitParameters) -> Problem:
    head, rasterizer, _, _, views, _ = scene
    surface = surface_weights(head)
    maps = TexelMaps(rasterizer, head)
    return Problem(rasterizer, head, start, no_targets(head), views, surface, priors_of(), maps)


def _refined(scene, start: FitParameters, steps: int = 40, rate: float = 1e-3, **options) -> FitParameters:
    weights = weights_of(geometry=geometry_of(prior=0.0))
    settings = {"rebake": 5, "clusters": PAINTED, "lr": (("placement", rate),)} | options
    config = settings_of(steps=steps, downsample=(1,), views_per_step=6, texture_sizes=(SIZE,), **settings)
    return refine(_problem(scene, start), weights, config).parameters


def turned(head: HeadModel, amount: float = 1.0) -> FitParameters:
    """The template, turned and shifted by `amount` times a few degrees and millimetres."""
    moved = FitParameters.neutral(head)
    moved.placement[:] = amount * torch.tensor([0.03, -0.06, 0.04, 0.002, -0.002, 0.0, 0.0])
    return moved


def test_pictures_alone_bring_a_turned_head_back(scene) -> None:
    head, truth = scene[0], scene[3]
    start = turned(head)
    found = _refined(scene, start, steps=80, rate=2e-3)
    front = head.region_mask("face")
    before, after = (1000 * (p.vertices(head) - truth.vertices(head))[0, front].norm(dim=-1) for p in (start, found))
    assert before.median() > 3.0
    assert after.median() < 0.5
    # only what has a step size moves
    for name, value in found.items().items():
        if name != "placement":
            torch.testing.assert_close(value, getattr(start, name), rtol=0, atol=0)


def test_a_matte_holds_a_head_inside_and_never_pulls_it_out(scene) -> None:
    """Pictures on a background that is not known, as of a video with alpha maps: hair and neck are in those, too."""
    truth, views = scene[3], scene[4]
    assert views.background is None and (views.rgba[..., 3] == 0).any()
    found = []
    for grown in (0.05, -0.05):
        start = truth.clone()
        start.placement[6] = grown
        weights = weights_of(photo=0.0, silhouette=30.0, silhouette_inside=30.0, geometry=geometry_of(prior=0.0))
        options = {"rebake": 0, "clusters": PAINTED, "lr": (("placement_scale", 2e-3),), "texture_sizes": (SIZE,)}
        config = settings_of(steps=40, downsample=(1,), views_per_step=6, **options)
        found.append(float(refine(_problem(scene, start), weights, config).parameters.placement[6]))
    assert found[0] < 0.02 and found[1] == pytest.approx(-0.05, abs=2e-3)


def test_a_loss_is_counted_from_where_it_could_not_be_lower(scene) -> None:
    """Covering the avatar near its outline earns, so a good loss lies about 0, which no ratio can be taken of."""
    truth, views = scene[3], scene[4]
    problem = replace(_problem(scene, truth), views=replace(views, background=torch.ones(3)))
    weights = weights_of(photo=0.0, silhouette=30.0, silhouette_inside=30.0, geometry=geometry_of(prior=0.0))
    config = settings_of(steps=4, downsample=(1,), views_per_step=6, texture_sizes=(SIZE,), clusters=PAINTED, rebake=0)
    step = PhotometricStep(problem, weights, config)
    loss = float(step(0))
    assert loss < 0 < step.below_zero(0)
    assert 0 <= loss + step.below_zero(0) < 0.5 * step.below_zero(0)


def test_the_truth_stays_where_it_is(scene) -> None:
    head, truth = scene[0], scene[3]
    found = _refined(scene, truth.clone(), steps=15)
    apart = 1000 * (found.vertices(head) - truth.vertices(head)).norm(dim=-1)
    assert apart.median() < 0.7


def test_a_seed_gives_the_same_again_and_the_start_is_left_alone(scene) -> None:
    start = turned(scene[0])
    kept = start.clone()
    first, second = _refined(scene, start, steps=3), _refined(scene, start, steps=3)
    torch.testing.assert_close(first.placement, second.placement, rtol=0, atol=0)
    torch.testing.assert_close(start.placement, kept.placement, rtol=0, atol=0)
    assert not torch.equal(first.placement, start.placement)
    assert not first.placement.requires_grad


def test_drawn_head_is_the_avatar_renderers(scene) -> None:
    head, rasterizer, _, truth, views, texture = scene
    background = torch.ones(len(views.views), SIZE, SIZE, 3)
    with torch.no_grad():
        pos = clip_positions(truth.vertices(head).float(), views.clip)
        out = HeadRenderer(rasterizer, head).draw(pos, (SIZE, SIZE), texture[None], background).painted
    assert (out[..., 3] - views.alphas).abs().mean() < 0.006
    error = (out[..., :3] - views.pictures()[..., :3]).abs().mean(-1)
    assert error[views.alphas > 0.99].mean() < 0.02 and error[views.alphas == 0].max() < 1e-6


def test_clusters_are_of_regions_and_later_names_win(scene) -> None:
    head = scene[0]
    table = cluster_table(head, PAINTED)
    assert (table[head.face_mask("lips_tight")] == PAINTED.index("lips_tight") + 1).all()
    only_skin = ~head.face_mask("scalp", "neck", "ears", "lips_tight", "sclerae", "irises")
    assert (table[only_skin] == PAINTED.index("skin") + 1).all()
    bare = HeadModel(replace(toy_head_data(), regions={}))
    assert (cluster_table(bare, PAINTED) == len(PAINTED) + 1).all()
    few = cluster_table(head, ("lips_tight", "skin"))
    assert (few == 2).all(), "skin is everything here, and it comes later"


def test_colour_pools_and_pixel_count_follow_the_size_of_the_pictures(scene) -> None:
    truth, views = scene[3], scene[4]
    config = settings_of(
        steps=6, downsample=(4, 1), views_per_step=6, rebake=10, pool_every=100, lr=(("placement", 1e-9),)
    )
    step = PhotometricStep(_problem(scene, truth), weights_of(), config)
    counts = []
    for number in range(6):
        step(number)
        counts.append(float(step._count))
    assert counts[0] == counts[2] and counts[3] == counts[5]
    assert counts[3] == pytest.approx(16 * counts[0], rel=0.1)
    assert counts[3] == pytest.approx(float((views.alphas > 0.5).sum()), rel=0.05)


def test_a_step_size_of_zero_leaves_a_parameter_alone(scene) -> None:
    start = turned(scene[0])
    found = _refined(scene, start, steps=3, rate=0.0)
    torch.testing.assert_close(found.placement, start.placement, rtol=0, atol=0)
    found = _refined(scene, start, steps=3, lr=(("placement", 0.0), ("jaw_pose", 1e-3)))
    torch.testing.assert_close(found.placement, start.placement, rtol=0, atol=0)
    assert torch.isfinite(found.jaw_pose).all() and not torch.equal(found.jaw_pose, start.jaw_pose)
