"""What the options of a photometric stage do: gates, lights, backgrounds, bases, residual texture, schedules."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.fit.losses.light import lighting
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import surface_weights
from flame_fitting.fit.rendering import Lit
from flame_fitting.fit.solvers import adam
from flame_fitting.fit.solvers.adam import refine
from flame_fitting.fit.solvers.appearance import cluster_table
from flame_fitting.fit.solvers.photometric_settings import PhotometricConfig
from flame_fitting.fit.solvers.photometric_step import PhotometricStep, Problem
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_detection_target
from flame_fitting.fit.texture import TexelMaps, texel_map
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.shading import ambient_light
from tests.fit.known_truth import ibug_embedding
from tests.fit.pictures import around, draw
from tests.fit.settings import geometry_of, offsets_of, priors_of, settings_of, weights_of
from tests.fit.test_photometric import PAINTED, no_targets, patched_head, turned
from tests.toy import toy_head_data

SIZE = 64
QUIET = geometry_of(landmark_3d=0.0, surface=0.0, prior=0.0, offset=offsets_of(l1=0.0, laplacian=0.0, rigid=0.0))


def head_with_gates() -> HeadModel:
    """The patched head; `all` is everything, `left` the left half, `bottom` the lower half."""
    head = patched_head()
    v = head.v_template.numpy()
    more = {"all": np.arange(len(v)), "left": np.flatnonzero(v[:, 0] > 0), "bottom": np.flatnonzero(v[:, 1] < 0)}
    return HeadModel(replace(toy_head_data(), regions={**_regions(head), **more})).double()


def _regions(head: HeadModel) -> dict[str, np.ndarray]:
    return {name: np.flatnonzero(head.region_mask(name).numpy()) for name in head.regions}


@pytest.fixture(scope="module")
def scene():
    """Head, rasterizer, views of a head with coloured regions on white, its texture."""
    head = head_with_gates()
    rasterizer = make_rasterizer("cpu")
    texels = texel_map(rasterizer, head, SIZE)
    clusters = cluster_table(head, PAINTED)
    palette = np.random.default_rng(5).integers(40, 220, (int(clusters.max()) + 2, 3)).astype(np.uint8)
    texture = palette[clusters[texels.face.clamp_min(0)].numpy() + 1]
    vertices = FitParameters.neutral(head).vertices(head)[0].numpy()
    views = draw(head, vertices, texture, around(4, 0.1, 80.0), SIZE)
    views = replace(views, background=torch.ones(3))
    return head, rasterizer, views, torch.as_tensor(texture).float() / 255


def problem_of(scene, start: FitParameters, views=None, **more) -> Problem:
    head, rasterizer, own, _ = scene
    maps = TexelMaps(rasterizer, head)
    views = own if views is None else views
    targets = more.pop("targets", None) or no_targets(head)
    return Problem(rasterizer, head, start, targets, views, surface_weights(head), priors_of(), maps, **more)


def config_of(**options) -> PhotometricConfig:
    settings = {
        "steps": 4,
        "downsample": (1,),
        "views_per_step": 8,
        "texture_sizes": (SIZE,),
        "disturb_rate_fg": 0.0,
        "disturb_rate_bg": 0.0,
        "average_last": 0.0,
        "background": "target",
        "clusters": PAINTED,
        "components": (),
        "lr": (("placement", 1e-3),),
    }
    return settings_of(**(settings | options))


def slopes_of(scene, start, weights=None, **options) -> tuple[PhotometricStep, torch.Tensor, torch.Tensor | None]:
    """A step that has looked and not moved; slopes of clip positions (B, V, 4) and of normals."""
    weights = weights or weights_of(geometry=QUIET)
    step = PhotometricStep(problem_of(scene, start), weights, config_of(**options))
    kept = []

    def keep(now, normals, slope, normals_slope):
        kept.append((slope.clone(), None if normals_slope is None else normals_slope.clone()))
        return torch.zeros(())

    step.update = keep  # type: ignore[method-assign]
    step(0)
    return step, *kept[0]


@pytest.mark.parametrize("across_views", [False, True])
def test_a_step_adds_up_the_slopes_of_the_views_that_it_has_drawn(scene, across_views) -> None:
    start, options = turned(scene[0]), {"across_views": across_views, "rebake": 0}
    together, whole, _ = slopes_of(scene, start, **options)
    step = PhotometricStep(
        problem_of(scene, start), weights_of(geometry=QUIET), config_of(views_per_step=3, steps=12, **options)
    )
    assert together.views.choose(0) is None
    kept: list[torch.Tensor] = []

    def keep(now, normals, slope, normals_slope):
        kept.append(slope.clone())
        return torch.zeros(())

    step.update = keep  # type: ignore[method-assign]
    counts = torch.zeros(4)
    for number in range(12):
        step(number)
        drawn = kept[-1].abs().amax((1, 2)) > 0
        assert int(drawn.sum()) == 3, "no view is drawn twice, none is lost"
        # a step of 3 of 4 views divides by 3 quarters of the pixels
        torch.testing.assert_close(
            0.75 * kept[-1][drawn], whole[drawn], rtol=1e-4, atol=1e-5 * float(whole.abs().max())
        )
        counts += drawn
    assert counts.tolist() == [9, 9, 9, 9]


def flat_views(scene, color: float):
    """The pictures with the whole avatar of one colour."""
    views = scene[2]
    head = scene[0]
    texture = np.full((8, 8, 3), round(255 * color), dtype=np.uint8)
    vertices = FitParameters.neutral(head).vertices(head)[0].numpy()
    drawn = draw(head, vertices, texture, around(4, 0.1, 80.0), SIZE)
    return replace(views, rgba=drawn.rgba)


# gates


def test_gates_over_everything_leave_geometry_no_gradient_from_pictures(scene) -> None:
    start = turned(scene[0])
    lr = (("placement", 1e-3), ("texture", 1e-2))
    step, slope, _ = slopes_of(scene, start, lr=lr, texture_except=("all",), boundary_except=("all",))
    assert slope.abs().max() == 0
    assert step.texture.slope.abs().max() > 0


def test_slopes_of_colour_and_of_silhouettes_add_up(scene) -> None:
    start = turned(scene[0])
    both = slopes_of(scene, start)[1]
    silhouettes = slopes_of(scene, start, texture_except=("all",))[1]
    colours = slopes_of(scene, start, boundary_except=("all",))[1]
    assert silhouettes.abs().max() > 0 and colours.abs().max() > 0
    torch.testing.assert_close(silhouettes + colours, both, rtol=1e-4, atol=1e-4 * float(both.abs().max()))


def test_a_gated_region_gets_nothing_and_others_get_what_they_got(scene) -> None:
    head, start = scene[0], turned(scene[0])
    silhouettes = slopes_of(scene, start, texture_except=("all",))[1]
    colours = slopes_of(scene, start, boundary_except=("all",))[1]
    tolerance = 1e-4 * float(colours.abs().max())

    found = slopes_of(scene, start, texture_except=("left",), boundary_except=("all",))[1]
    inside, beside = head.face_mask("left"), ~head.face_mask("left")
    touched = torch.zeros(head.n_vertices, dtype=torch.bool)
    touched[head.faces[beside].reshape(-1)] = True
    only = torch.zeros(head.n_vertices, dtype=torch.bool)
    only[head.faces[inside].reshape(-1)] = True
    assert colours[:, ~touched].abs().max() > 10 * tolerance
    assert found[:, ~touched].abs().max() == 0
    torch.testing.assert_close(found[:, ~only], colours[:, ~only], rtol=1e-4, atol=tolerance)
    assert found[:, ~only].abs().max() > 10 * tolerance

    found = slopes_of(scene, start, texture_except=("all",), boundary_except=("bottom",))[1]
    gated = head.region_mask("bottom")
    assert silhouettes[:, gated].abs().max() > 0 and found[:, gated].abs().max() == 0
    torch.testing.assert_close(found[:, ~gated], silhouettes[:, ~gated], rtol=0, atol=1e-6)


def test_normals_of_lit_gated_regions_get_nothing(scene) -> None:
    head, start = scene[0], turned(scene[0])
    lit = {"lighting": "SH", "lr": (("placement", 1e-3), ("lights", 1e-2))}
    _, _, free = slopes_of(scene, start, **lit)
    step, _, gated = slopes_of(scene, start, texture_except=("left",), **lit)
    assert free is not None and gated is not None
    touched = torch.zeros(head.n_vertices, dtype=torch.bool)
    touched[head.faces[~head.face_mask("left")].reshape(-1)] = True
    # ambient light alone makes shading depend on no normal
    assert free.abs().max() < 1e-6
    lights = some_lights()
    _, _, free = slopes_lit(scene, start, lights, ())
    step, _, gated = slopes_lit(scene, start, lights, ("left",))
    assert free[:, ~touched].abs().max() > 0 and gated[:, ~touched].abs().max() == 0
    assert gated[:, touched].abs().max() > 0
    assert step.light.slope.abs().max() > 0


# lights


def some_lights() -> torch.Tensor:
    lights = ambient_light()
    lights[1:4] += torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.2, 0.15], [-0.2, -0.15, -0.2]])
    return lights


def slopes_lit(scene, start, lights, texture_except, space="world"):
    config = config_of(
        lighting="SH", lighting_space=space, texture_except=texture_except, lr=(("shape", 1e-2), ("lights", 1e-2))
    )
    step = PhotometricStep(problem_of(scene, start, lights=lights), weights_of(geometry=QUIET), config)
    kept = []

    def keep(now, normals, slope, normals_slope):
        kept.append((slope.clone(), normals_slope.clone()))
        return torch.zeros(())

    step.update = keep  # type: ignore[method-assign]
    step(0)
    return step, *kept[0]


@pytest.mark.parametrize("space", ["world", "camera"])
def test_gradients_of_lights_and_normals_agree_with_finite_differences(scene, space) -> None:
    step, _, normals_slope = slopes_lit(scene, turned(scene[0]), some_lights(), (), space)
    lights_slope, level = step.light.slope.clone(), step.views.wanted[0]
    now = step.project()
    normals = step.normals(now).detach()
    assert len(normals) == (1 if space == "world" else len(level))
    rast, rast_db = step.rasterize(now.pos.detach(), now.front, (SIZE, SIZE))

    def value(normals) -> float:
        return float(step.look(rast.detach(), rast_db.detach(), now.pos, normals, level, 0)[0])

    generator = torch.Generator().manual_seed(1)
    lights = step.light.coefficients.clone()
    for _ in range(3):
        direction, size = torch.randn(9, 3, generator=generator), 5e-3
        ends = []
        for sign in (1, -1):
            step.light.coefficients.copy_(lights + sign * size * direction)
            ends.append(value(normals))
        step.light.coefficients.copy_(lights)
        expected = float((direction * lights_slope).sum())
        assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(
            expected, rel=0.05, abs=0.02 * float(lights_slope.norm())
        )
    direction = torch.nn.functional.normalize(normals_slope, dim=-1)
    ends = [value(normals + sign * 1e-2 * direction) for sign in (1, -1)]
    expected = float((direction * normals_slope).sum())
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(expected, rel=0.05)


def test_normals_follow_the_space_of_the_lights(scene) -> None:
    head, start = scene[0], turned(scene[0], 3.0)
    placed = slopes_lit(scene, start, some_lights(), ())[0]
    straight = slopes_lit(scene, FitParameters.neutral(head), some_lights(), ())[0]
    with torch.no_grad():
        a, b = (step.normals(step.project()) for step in (placed, straight))
    rotation = rotation_matrix(start.placement[None, :3].float())[0]
    torch.testing.assert_close(a, b @ rotation.T, rtol=0, atol=1e-4)
    step = slopes_lit(scene, start, some_lights(), (), "camera")[0]
    with torch.no_grad():
        now = step.project()
        seen = step.normals(now)
    # where triangles face the camera, camera-space normals point at it, along +z
    camera = torch.as_tensor(scene[2].camera, dtype=torch.float32)
    local = now.vertices @ camera[:, :3, :3].transpose(1, 2) + camera[:, None, :3, 3]
    toward = torch.nn.functional.normalize(-local, dim=-1) * torch.tensor([1.0, -1.0, -1.0])
    middle = (local[..., :2].norm(dim=-1) < 0.01) & (seen[..., 2] > 0)
    assert middle.sum() >= 4 and ((seen * toward).sum(-1)[middle] > 0.9).all()
    assert not torch.allclose(seen[0], seen[-1], atol=0.1)


def test_regularisers_of_light_move_no_geometry(scene) -> None:
    start = turned(scene[0])
    found = []
    for weight in (0.0, 1e4):
        weights = weights_of(photo=0.0, silhouette=0.0, diffuse=weight, light=weight, geometry=QUIET)
        config = config_of(lighting="SH", lr=(("placement", 1e-3), ("shape", 1e-2), ("lights", 1e-2)))
        found.append(refine(problem_of(scene, start, lights=2 * some_lights()), weights, config))
    for one in found:
        torch.testing.assert_close(one.parameters.shape, start.shape, rtol=0, atol=0)
        torch.testing.assert_close(one.parameters.placement, start.placement, rtol=0, atol=0)
    torch.testing.assert_close(found[0].lights, 2 * some_lights())
    assert (found[1].lights - 2 * some_lights()).abs().max() > 0.02


def test_known_lights_are_found_on_a_head_of_known_texture(scene) -> None:
    head, views = scene[0], scene[2]
    truth, start = some_lights(), FitParameters.neutral(head)
    step = PhotometricStep(
        problem_of(scene, start, lights=truth),
        weights_of(geometry=QUIET),
        config_of(lighting="SH", base="painted", lr=(("placement", 1e-9),)),
    )
    step.bake(0)
    with torch.no_grad():
        now = step.project()
        rast, rast_db = step.rasterize(now.pos, now.front, (SIZE, SIZE))
        lit = Lit("SH", step.normals(now), truth)
        shown = step.renderer.shade(rast, rast_db, now.pos, step.texture.now(0), views.pictures(), lit=lit)
    rgba = torch.cat([shown.painted[..., :3], views.pictures()[..., 3:]], dim=-1)
    settings = config_of(steps=60, lighting="SH", base="painted", lr=(("lights", 3e-2),))
    weights = weights_of(diffuse=0.0, geometry=QUIET)
    found = refine(problem_of(scene, start, replace(views, rgba=rgba)), weights, settings)
    normals = step.normals(now)[0]
    front = normals[:, 2] > 0.3
    apart = (lighting("SH", normals, found.lights) - lighting("SH", normals, truth))[front]
    before = (1 - lighting("SH", normals, truth))[front]
    assert apart.abs().mean() < 0.1 * before.abs().mean()
    for name, value in found.parameters.items().items():
        torch.testing.assert_close(value, getattr(start, name), rtol=0, atol=0)


# backgrounds


def _scaled(head: HeadModel, factor: float) -> FitParameters:
    start = FitParameters.neutral(head)
    start.placement[6] = math.log(factor)
    return start


def _camouflaged(scene, start: FitParameters, steps: int = 60) -> float:
    """Scale that is found for a white avatar before white."""
    weights = weights_of(silhouette=10.0, silhouette_inside=10.0, geometry=QUIET)
    options = {"disturb_rate_fg": 0.5, "disturb_rate_bg": 0.5, "outline_band": 0.2, "base": "neutral"}
    config = config_of(steps=steps, background="far", lr=(("placement_scale", 6e-3),), **options)
    found = refine(problem_of(scene, start, flat_views(scene, 1.0)), weights, config)
    return float(found.parameters.placement[6].exp())


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_far_backgrounds_bring_a_head_of_its_backgrounds_colour_to_its_size(scene, factor) -> None:
    # a pixel is 4.4 mm at the head: the outline's radius (75 to 110 mm) stays within one
    found = _camouflaged(scene, _scaled(scene[0], factor))
    assert found == pytest.approx(1.0, abs=0.02)


def test_only_a_far_background_tells_a_head_from_one_of_its_colour(scene) -> None:
    camouflaged = (*scene[:2], flat_views(scene, 1.0), scene[3])
    weights = weights_of(silhouette=0.0, geometry=QUIET)
    start = _scaled(scene[0], 1.1)
    slopes = {
        kind: slopes_of(camouflaged, start, weights, background=kind, base="neutral")[1] for kind in ("target", "far")
    }
    assert slopes["far"].norm() > 0 and slopes["target"].norm() < 1e-2 * slopes["far"].norm()


def test_a_far_background_replaces_the_pictures_own(scene) -> None:
    views = flat_views(scene, 1.0)
    problem = problem_of(scene, FitParameters.neutral(scene[0]), views)
    far = PhotometricStep(problem, weights_of(geometry=QUIET), config_of(background="far"))
    outside, inside = views.alphas == 0, views.alphas == 1
    contrast = (far.views.wanted[0][..., :3].float() - 1.0).abs().mean(-1)
    assert contrast[outside].min() > 0.3 and contrast[inside].max() < 0.01
    seen = set()
    for _ in range(12):
        far.draw_pools(0)
        seen.add(tuple(far.views.wanted[0][0, 0, 0, :3].tolist()))
    assert len(seen) > 1 and (1.0, 1.0, 1.0) not in seen
    own = PhotometricStep(problem, weights_of(geometry=QUIET), config_of(background="target"))
    assert own.views.wanted[0] is own.views.levels[0].rgba
    black = PhotometricStep(problem, weights_of(geometry=QUIET), config_of(background="black"))
    assert black.views.wanted[0][..., :3][outside].max() < 0.01
    unknown = replace(problem, views=replace(views, background=None))
    with pytest.raises(InputError, match="background_train"):
        PhotometricStep(unknown, weights_of(), config_of(background="black"))


# bases


def test_each_group_of_views_is_compared_with_a_bake_of_the_other(scene) -> None:
    views = scene[2]
    rgba = views.pictures().clone()
    rgba[0::2, ..., :3] = torch.tensor([1.0, 0.0, 0.0])
    rgba[1::2, ..., :3] = torch.tensor([0.0, 0.0, 1.0])
    problem = problem_of(scene, FitParameters.neutral(scene[0]), replace(views, rgba=rgba))
    step = PhotometricStep(problem, weights_of(geometry=QUIET), config_of(across_views=True, smooth=0.0))
    step.bake(0)
    assert len(step.views.groups) == 2
    for group, rows in enumerate(step.views.groups):
        base = step.texture.base[group][step.texture.texels.covered]
        shown = step.views.levels[0].pictures()[rows][..., :3]
        own, other = (0, 2) if shown[..., 0].min() == 1 else (2, 0)
        assert shown[..., own].min() == 1 and shown[..., other].max() == 0
        assert base[:, other].median() > 0.95 and base[:, own].median() < 0.05
    parts = step.views.parts(0)
    assert sorted({group for _, group in parts}) == [0, 1]
    together = PhotometricStep(problem, weights_of(geometry=QUIET), config_of(smooth=0.0))
    assert len(together.views.groups) == 1


# texture


def _textured(scene, **options):
    weights = options.pop("weights", weights_of(texture_variation=0.0, residual=0.0, geometry=QUIET))
    settings = config_of(**({"steps": 40, "base": "neutral", "lr": (("texture", 2e-2),)} | options))
    return refine(problem_of(scene, FitParameters.neutral(scene[0])), weights, settings)


def test_a_residual_finds_what_the_base_lacks(scene) -> None:
    head, truth = scene[0], scene[3]
    found = _textured(scene)
    assert found.texture.shape == found.residual.shape == (SIZE, SIZE, 3)
    assert not found.texture.requires_grad
    base = found.texture - found.residual
    texels = texel_map(scene[1], head, SIZE)
    centre = texels.covered & head.face_mask("face")[texels.face.clamp_min(0)]
    before, after = ((texture - truth).abs().mean(-1)[centre].mean() for texture in (base, found.texture))
    assert before > 0.05 and after < 0.4 * before


def test_a_residual_stays_small_where_it_is_told_to(scene) -> None:
    head = scene[0]
    texels = texel_map(scene[1], head, SIZE)
    inside = texels.covered & head.face_mask("left")[texels.face.clamp_min(0)]
    sizes = []
    for weight in (0.0, 1e6):
        weights = weights_of(texture_variation=0.0, residual=weight, geometry=QUIET)
        residual = _textured(scene, weights=weights, residual_for=("left",)).residual
        sizes.append((residual[inside].abs().mean(), residual[~inside].abs().mean()))
    assert sizes[1][0] < 0.25 * sizes[0][0]
    assert sizes[1][1] == pytest.approx(float(sizes[0][1]), rel=0.2)


def test_texture_sizes_carry_the_residual_over(scene) -> None:
    step = PhotometricStep(
        problem_of(scene, FitParameters.neutral(scene[0]), residual=torch.full((8, 8, 3), 0.25)),
        weights_of(texture_variation=0.0, residual=0.0, geometry=QUIET),
        config_of(steps=8, texture_sizes=(16, 32), base="neutral", lr=(("texture", 1e-6),)),
    )
    torch.testing.assert_close(step.texture.residual, torch.full((1, 16, 16, 3), 0.25))
    for number in range(8):
        step(number)
        size = 16 if number < 4 else 32
        assert step.texture.residual.shape == (1, size, size, 3) and step.texture.base.shape[1] == size
    torch.testing.assert_close(step.texture.residual, torch.full((1, 32, 32, 3), 0.25), rtol=0, atol=1e-4)
    assert step.texture.base.abs().max() > 0


def test_without_a_step_size_there_is_no_texture(scene) -> None:
    found = refine(problem_of(scene, FitParameters.neutral(scene[0])), weights_of(geometry=QUIET), config_of(steps=1))
    assert found.texture is None and found.residual is None and found.lights is None and found.trouble == ""


# without pictures


def test_landmarks_in_pictures_bring_a_head_back_without_pictures(scene) -> None:
    head, _, views, _ = scene
    embedding = ibug_embedding(head)
    points = embedding.points(head.v_template[None], head.faces)[0].double().numpy()
    local = np.einsum("bij,nj->bni", views.camera[:, :3, :3], points) + views.camera[:, None, :3, 3]
    found = np.einsum("bij,bnj->bni", views.K, local)
    found = np.concatenate([found[..., :2] / found[..., 2:], np.ones_like(found[..., :1])], axis=-1)
    target = make_detection_target(head, embedding, "ibug68", found, views.K, views.camera, (SIZE, SIZE))
    targets = [FrameTarget((SourceTarget(no_targets(head)[0].sources[0].landmarks, None, target),))]
    weights = weights_of(geometry=replace(QUIET, landmark=3.0))
    rates = (("placement_rotation", 3e-3), ("placement_translation", 5e-4), ("placement_scale", 2e-3))
    config = config_of(steps=200, pictures=False, rebake=0, schedule="cosine", lr=rates)
    start = turned(head, 2.0)
    # pictures that show nothing: they are not looked at
    blank = replace(views, rgba=torch.zeros_like(views.rgba))
    result = refine(problem_of(scene, start, blank, targets=targets), weights, config)
    mask = head.region_mask("face")
    before, after = (
        1000 * (p.vertices(head)[0] - head.v_template)[mask].norm(dim=-1).median() for p in (start, result.parameters)
    )
    assert before > 6 and after < 0.2
    assert result.texture is None and result.lights is None


# schedules and sanity


def test_schedules_of_step_sizes() -> None:
    cosine = config_of(steps=10, schedule="cosine")
    assert cosine.factor(0) == 1 and cosine.factor(5) == pytest.approx(0.5) and cosine.factor(9) < 0.03
    exponential = config_of(steps=10, schedule="exponential")
    assert [exponential.factor(i) for i in range(3)] == pytest.approx([1.0, 0.9, 0.81])
    assert config_of(schedule="constant").factor(3) == 1


def test_step_sizes_fall_as_the_schedule_says(scene) -> None:
    """Adam's first steps are of its step size, so a constant pull shows the schedule itself."""
    head, moves = scene[0], {}
    start = FitParameters.neutral(head)
    start.shape[:] = 5.0
    for schedule in ("constant", "cosine", "exponential"):
        weights = weights_of(geometry=replace(QUIET, shape=1.0))
        config = config_of(steps=6, pictures=False, schedule=schedule, lr=(("shape", 1e-3),))
        moves[schedule] = float((5.0 - refine(problem_of(scene, start), weights, config).parameters.shape).mean())
    assert moves["constant"] == pytest.approx(6e-3, rel=1e-2)
    assert moves["cosine"] == pytest.approx(
        sum(0.5 + 0.5 * math.cos(math.pi * i / 6) for i in range(6)) * 1e-3, rel=1e-2
    )
    assert moves["exponential"] == pytest.approx(sum(0.9**i for i in range(6)) * 1e-3, rel=1e-2)


def test_mean_of_the_last_iterates_or_the_last_one(scene) -> None:
    start = FitParameters.neutral(scene[0])
    start.shape[:] = 5.0
    moves = []
    for share in (0.0, 0.5):
        weights = weights_of(geometry=replace(QUIET, shape=1.0))
        config = config_of(steps=8, pictures=False, schedule="constant", average_last=share, lr=(("shape", 1e-3),))
        moves.append(float((5.0 - refine(problem_of(scene, start), weights, config).parameters.shape).mean()))
    assert moves[0] == pytest.approx(8e-3, rel=1e-2)
    assert moves[1] == pytest.approx((5 + 6 + 7 + 8) / 4 * 1e-3, rel=1e-2)


def test_a_diverging_stage_is_stopped(scene) -> None:
    start = FitParameters.neutral(scene[0])
    start.shape[:] = 0.1
    weights = weights_of(geometry=replace(QUIET, shape=1.0))
    config = config_of(steps=200, pictures=False, schedule="constant", lr=(("shape", 1.0),))
    step_losses = []

    class Runaway(PhotometricStep):
        def __call__(self, step: int) -> torch.Tensor:
            return super().__call__(step) + 4.0**step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adam, "PhotometricStep", Runaway)
        found = refine(
            problem_of(scene, start), weights, config, report=lambda n, loss: step_losses.append(n), report_every=1
        )
    assert "the loss went from" in found.trouble and len(step_losses) < 30
    assert all(torch.isfinite(value).all() for value in found.parameters.items().values())


def test_a_jump_at_the_start_of_a_stage_is_not_a_divergence(scene) -> None:
    """As where a stage with new terms begins at the minimum of another one: up at once, back within a tenth of it."""

    class Jump(PhotometricStep):
        def __call__(self, step: int) -> torch.Tensor:
            return super().__call__(step) * 0 + (2.3 if step == 0 else 20.0 if step < 15 else 2.0)

    start = FitParameters.neutral(scene[0])
    config = config_of(steps=200, pictures=False, schedule="constant", lr=(("shape", 1e-4),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adam, "PhotometricStep", Jump)
        found = refine(problem_of(scene, start), weights_of(geometry=QUIET), config, report_every=1)
    assert not found.trouble


def test_lights_in_any_memory_order_are_moved_along_their_own_slopes(scene) -> None:
    start, lights = turned(scene[0]), 0.9 * ambient_light() + 0.1 * torch.linspace(-1, 1, 27).reshape(9, 3)
    moved = []
    for given in (lights, lights.T.contiguous().T):
        problem = problem_of(scene, start, lights=given)
        config = config_of(steps=5, lighting="SH", base="painted", lr=(("lights", 5e-3),))
        moved.append(refine(problem, weights_of(geometry=QUIET), config).lights)
    assert moved[1].is_contiguous()
    torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=0)


def test_a_stage_that_leaves_the_texture_alone_draws_what_another_one_made_of_it(scene) -> None:
    residual = torch.linspace(-0.2, 0.2, SIZE * SIZE * 3).reshape(SIZE, SIZE, 3)
    drawn = {}
    for base in ("painted", "baked"):
        for lr in ((("placement", 1e-3),), (("placement", 1e-3), ("texture", 5e-3))):
            problem = problem_of(scene, turned(scene[0]), residual=residual)
            step = PhotometricStep(problem, weights_of(geometry=QUIET), config_of(base=base, lr=lr))
            step.bake(0)
            drawn[base, len(lr)] = step.texture.now(0)
    torch.testing.assert_close(drawn["painted", 1], drawn["painted", 2])
    assert (drawn["painted", 1] - drawn["baked", 1]).abs().max() > 0.1
    # colours that are baked from the pictures need no residual
    torch.testing.assert_close(drawn["baked", 1] + residual, drawn["baked", 2])


def test_cameras_that_see_nothing_are_an_error(scene) -> None:
    away = FitParameters.neutral(scene[0])
    away.placement[3] = 3.0
    with pytest.raises(InputError, match="toy: the first pictures show nothing"):
        refine(problem_of(scene, away, name="toy"), weights_of(geometry=QUIET), config_of())


def _outside(scene, parameters: FitParameters) -> float:
    """Share of the avatar's pixels that the head covers beyond it."""
    step = PhotometricStep(problem_of(scene, parameters, flat_views(scene, 1.0)), weights_of(), config_of())
    with torch.no_grad():
        now = step.project()
        rast, _ = step.rasterize(now.pos, now.front, (SIZE, SIZE))
    wanted = step.views.levels[0].alphas > 0.5
    return float(((rast[..., 3] > 0) & ~wanted).sum() / wanted.sum())


def test_offsets_do_not_run_away_before_a_background_of_the_heads_colour(scene) -> None:
    head = scene[0]
    start = FitParameters.neutral(head)
    outward = torch.nn.functional.normalize(head.v_template, dim=-1)
    start.static_offset[0] = 0.009 * outward * head.region_mask("skin")[:, None]
    options = {"disturb_rate_fg": 0.5, "disturb_rate_bg": 0.5, "outline_band": 0.1, "base": "neutral"}
    after = {}
    for background, silhouette in (("target", 0.0), ("far", 30.0)):
        weights = weights_of(silhouette=silhouette, silhouette_inside=silhouette, geometry=QUIET)
        config = config_of(steps=50, background=background, lr=(("static_offset", 6e-4),), **options)
        found = refine(problem_of(scene, start, flat_views(scene, 1.0)), weights, config).parameters
        after[background] = _outside(scene, found)
    before = _outside(scene, start)
    assert before > 0.12
    # the pictures themselves see nothing; with alpha and far colours the offsets come back
    assert after["far"] < 0.4 * before and after["far"] < 0.5 * after["target"], (before, after)


def test_total_variation_is_a_mean_over_the_texels_that_the_views_see(scene) -> None:
    start, counts = FitParameters.neutral(scene[0]), []
    for rows in ([0], [0, 1, 2, 3]):
        problem = problem_of(scene, start, scene[2].subset(rows))
        step = PhotometricStep(problem, weights_of(geometry=QUIET), config_of(lr=(("texture", 1e-2),)))
        step.bake(0)
        counts.append(float(step.texture._variation_count))
        covered = float(step.texture.texels.covered.sum())
    assert 0.05 * covered < counts[0] < 0.9 * counts[1] and counts[1] < covered
    whole = weights_of(geometry=QUIET, variation_covered=False)
    assert PhotometricStep(problem, whole, config_of(lr=(("texture", 1e-2),))).texture._variation_count is None


@pytest.mark.parametrize("regulariser", [0.0, 1.0])
def test_only_as_many_components_move_as_are_asked_for(scene, regulariser) -> None:
    start = FitParameters.neutral(scene[0])
    start.shape[:2], start.expr[0, 0] = 0.5, 0.5
    weights = weights_of(geometry=replace(QUIET, shape=regulariser, expr=regulariser, prior=0.01))
    rates = (("shape", 1e-2), ("expr", 1e-2))
    found = refine(
        problem_of(scene, start), weights, config_of(components=(("shape", 4), ("expr", 1)), lr=rates)
    ).parameters
    assert (found.shape[:4] != start.shape[:4]).all() and (found.expr[0, :1] != start.expr[0, :1]).all()
    assert (found.shape[4:] == 0).all() and (found.expr[0, 1:] == 0).all()
    free = refine(problem_of(scene, start), weights, config_of(lr=rates)).parameters
    assert (free.shape[4:] != 0).any() and (free.expr[0, 1:] != 0).any()
