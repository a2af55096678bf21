"""The photometric step on an NVIDIA GPU: fused kernels against their reference, CUDA graphs against single launches,
the GPU against the CPU."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import (
    color_pools,
    kernels,
    paint,
    picture_loss,
)
from flame_fitting.fit.losses.texture import add_total_variation
from flame_fitting.fit.region_weights import surface_weights
from flame_fitting.fit.solvers.adam import refine
from flame_fitting.fit.solvers.appearance import cluster_table
from flame_fitting.fit.solvers.photometric_step import PhotometricStep, Problem
from flame_fitting.fit.texture import TexelMaps, texel_map
from flame_fitting.fusion import reference_only
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.render.backend import make_rasterizer
from tests.fit.pictures import around, draw
from tests.fit.settings import geometry_of, priors_of, settings_of, weights_of
from tests.fit.test_photometric import PAINTED, SIZE, patched_head, turned
from tests.fit.test_photometric import no_targets as targets_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("nvdiffrast") is None, reason="no nvdiffrast"),
]

RATES = (("placement", 1e-3), ("static_offset", 1e-5), ("texture", 5e-3))


def _step(
    device: str, steps: int = 1, fused_from: int = 10**6, chunk: int = 2**24, disturb: float = 0.0, **options
) -> PhotometricStep:
    """A photometric step on the toy head, turned away from the truth; colours are replaced only with `disturb`."""
    head = patched_head()
    rasterizer = make_rasterizer(device)
    texels = texel_map(make_rasterizer("cpu"), head, SIZE)
    palette = np.random.default_rng(5).integers(40, 220, (len(PAINTED) + 2, 3)).astype(np.uint8)
    texture = palette[cluster_table(head, PAINTED)[texels.face.clamp_min(0)].numpy()]
    truth = turned(head, 0.0)
    views = draw(head, truth.vertices(head)[0].numpy(), texture, around(6, 0.1, 80.0), SIZE)
    start, targets, surface = turned(head, 1.0), targets_of(head), surface_weights(head)
    head = head.to(rasterizer.device)
    views.rgba, views.clip = views.rgba.to(rasterizer.device), views.clip.to(rasterizer.device)
    views.timestep = views.timestep.to(rasterizer.device)
    config = settings_of(
        steps=steps,
        views_per_step=6,
        downsample=(1,),
        texture_sizes=(SIZE,),
        rebake=10**6,
        clusters=PAINTED,
        disturb_rate_fg=disturb,
        disturb_rate_bg=disturb,
        fused_from=fused_from,
        pixels_per_chunk=chunk,
        schedule="constant",
        **({"lr": RATES} | options),
    )
    weights = weights_of(geometry=geometry_of(prior=0.0))
    problem = Problem(
        rasterizer,
        head,
        start.to(rasterizer.device),
        [target.to(rasterizer.device) for target in targets],
        views,
        surface.to(rasterizer.device),
        priors_of(),
        TexelMaps(rasterizer, head),
    )
    return PhotometricStep(problem, weights, config)


LIT = {
    "lighting": "SH",
    "lr": (*RATES, ("lights", 5e-3)),
    "texture_except": ("ears",),
    "boundary_except": ("ears",),
    "across_views": True,
}
"""All that a step can do."""


def _discolour(step: PhotometricStep) -> None:
    """Away from the pictures' own colours: where the two are equal the slope of the L1 norm is rounding's."""
    step.bake(0)
    rows = torch.arange(SIZE, device=step.texture.base.device)
    step.texture.base += 0.1 * torch.sin(0.3 * (rows[:, None] + 2 * rows[None, :]))[None, :, :, None]
    step.draw_pools(0)


def _gradients(step: PhotometricStep) -> list[Tensor]:
    """Of values, lights if there are any, and texture, at the start."""
    _discolour(step)
    seen: list[Tensor] = []

    def keep(gradients: list[Tensor], active: Tensor | None = None) -> None:
        seen.extend(gradient.detach().cpu().double().clone() for gradient in gradients)

    step.optimizer.step = keep  # type: ignore[method-assign]
    step.texture._optimizer.step = keep  # type: ignore[method-assign]
    step(1)
    return sorted(seen, key=lambda gradient: gradient.numel())


def _agree(found: Tensor, expected: Tensor) -> None:
    found, expected = found.reshape(-1), expected.reshape(-1)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) >= 0.999
    assert (found - expected).norm() <= 0.01 * expected.norm()


@pytest.mark.parametrize("options", [{}, LIT])
def test_a_whole_step_on_the_gpu_is_that_on_the_cpu(options: dict) -> None:
    on_cpu, on_gpu = _gradients(_step("cpu", **options)), _gradients(_step("cuda", **options))
    assert len(on_cpu) == len(on_gpu) == (3 if options else 2)
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        _agree(found, expected)
        _agree(found.reshape(-1)[:7], expected.reshape(-1)[:7])


@pytest.mark.parametrize("options", [{}, LIT])
def test_chunks_of_views_add_up(options: dict) -> None:
    whole = _gradients(_step("cuda", **options))
    parts = _gradients(_step("cuda", chunk=2 * SIZE * SIZE, **options))
    for found, expected in zip(parts, whole, strict=True):
        _agree(found, expected)


@pytest.mark.parametrize("chunk", [2**24, 4 * SIZE * SIZE])
@pytest.mark.parametrize("options", [{}, LIT])
def test_graphs_have_the_gradients_of_single_launches(chunk: int, options: dict) -> None:
    step = _step("cuda", steps=12, fused_from=0, chunk=chunk, **options)
    _discolour(step)
    moving = [*step.optimizer._moving, *step.texture._optimizer._moving]
    for part in moving:
        part.rate = 0.0  # nothing moves, so every step is the same
    moments, losses = [], []
    for number in range(1, 6):
        before = [part.mean.clone() for part in moving]
        losses.append(float(step(number)))
        # Adam's mean takes a tenth of each gradient
        moments.append([10 * (part.mean - 0.9 * b) for part, b in zip(moving, before, strict=True)])
    assert len(step._graphed) == 1, "the first step is without a graph, the others with one"
    for loss, found in zip(losses[1:], moments[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        for gradient, expected in zip(found, moments[0], strict=True):
            _agree(gradient.double(), expected.double())


def test_graphs_draw_new_noise_at_every_replay() -> None:
    step = _step("cuda", steps=12, fused_from=0, disturb=0.5)
    before = int(step.perturbation.seed)
    losses = []
    for part in (*step.optimizer._moving, *step.texture._optimizer._moving):
        part.rate = 0.0  # nothing moves: only the noise changes the loss
    for number in range(8):
        losses.append(round(float(step(number)), 6))
    assert int(step.perturbation.seed) == before + 8 and len(set(losses)) == 8


def test_refinement_converges_on_the_gpu_with_and_without_graphs() -> None:
    head = patched_head()
    front = head.region_mask("face")
    truth = turned(head, 0.0).vertices(head)[0, front]
    for fused_from in (10, 10**6):
        step = _step("cuda", disturb=0.5)
        config = settings_of(
            steps=80,
            downsample=(1,),
            texture_sizes=(SIZE,),
            views_per_step=6,
            rebake=5,
            clusters=PAINTED,
            fused_from=fused_from,
            lr=(("placement", 2e-3),),
        )
        found = refine(step.problem, weights_of(geometry=geometry_of(prior=0.0)), config)
        found = found.parameters.to("cpu")
        head = head.to("cpu")
        apart = 1000 * (found.vertices(head)[0, front] - truth).norm(dim=-1)
        assert apart.median() < 0.5


def test_fused_rotations() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    turns = torch.randn(64, 3, generator=generator, device="cuda")
    turns[0], turns[1], turns[2] = 0.0, 1e-5, 3e-3
    slope = torch.randn(64, 3, 3, generator=generator, device="cuda")
    exact = turns.double().requires_grad_()
    expected = rotation_matrix(exact)
    (expected * slope).sum().backward()
    turns.requires_grad_()
    found = rotation_matrix(turns)
    assert type(found.grad_fn).__name__.startswith("RotationMatrix")
    (found * slope).sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert turns.grad is not None and exact.grad is not None
    torch.testing.assert_close(turns.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


@pytest.fixture
def pixels() -> dict[str, Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device="cuda")

    return {
        "painted": random(3, 133, 117, 4),
        "bytes": (random(3, 133, 117, 4) * 255).to(torch.uint8),
        "halves": random(3, 133, 117, 4).half(),
        "color": random(3, 133, 117, 3),
        "rast": (random(3, 133, 117, 4) * 6).floor(),
    }


@pytest.mark.parametrize("target", ["bytes", "halves"])
def test_fused_picture_loss(pixels, target: str) -> None:
    assert kernels(pixels["painted"]) is not None, "Triton is missing"
    pixels["painted"][0, :40, :, 3] = 0.0
    count = torch.tensor(77.0, device="cuda")
    found = picture_loss(pixels["painted"], pixels[target], count, 30.0, 4.0)
    with reference_only():
        expected = picture_loss(pixels["painted"], pixels[target], count, 30.0, 4.0)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=0)
    # where picture and target are equal to the last bit the sign is rounding's
    differs = (found[1] - expected[1]).abs() > 1e-6
    assert differs.float().mean() < 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_fused_variation(pixels, masked: bool) -> None:
    texture, first = pixels["color"][0].contiguous(), pixels["color"][1].contiguous()
    mask = pixels["rast"][0, ..., 0].contiguous() if masked else None
    count = mask.sum() if mask is not None else None
    second = first.clone()
    found = add_total_variation(texture, 1e5, first, mask, count)
    with reference_only():
        expected = add_total_variation(texture, 1e5, second, mask, count)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("background", ["bytes", "halves"])
def test_fused_painting(pixels, background: str) -> None:
    table = torch.tensor([0, 1, 2, 3, 2, 1], dtype=torch.int32, device="cuda")
    triangle = pixels["rast"][..., 3]
    color = pixels["color"].requires_grad_()
    found = paint(color, pixels[background], triangle)
    with reference_only():
        expected = paint(color, pixels[background], triangle)
    torch.testing.assert_close(found, expected)
    cluster = table[triangle.long()]
    donors = pixels["color"].detach() + 5.0 * cluster[..., None]
    pools = color_pools(cluster, donors, 3, 0.5, 0.25, torch.Generator("cuda").manual_seed(0), size=256)
    seed = torch.tensor(5, dtype=torch.int32, device="cuda")
    out = paint(color, pixels[background], triangle, table, pools, seed)
    changed = (out != found)[..., :3].any(-1)
    for number, rate in ((0, 0.25), (1, 0.5), (2, 0.5), (3, 0.0)):
        assert abs(float(changed[cluster == number].float().mean()) - rate) < 0.02
        taken = out[changed & (cluster == number)][:, :3]
        assert torch.equal((taken / 5).floor(), torch.full_like(taken, float(number)))
    assert torch.equal(out, paint(color, pixels[background], triangle, table, pools, seed))
    assert not torch.equal(out, paint(color, pixels[background], triangle, table, pools, seed + 1))
    color.grad = None
    out.sum().backward()
    assert color.grad is not None
    torch.testing.assert_close(color.grad[..., 0], (~changed & (triangle > 0)).float())
