"""nvdiffrast on a GPU against the CPU rasterizer, live; the CUDA backend's own behaviour."""

import importlib.util
from collections.abc import Callable

import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.render.backend import choose_device, make_rasterizer
from flame_fitting.render.cpu import CpuRasterizer
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.nvdiffrast_check import INSTALL_LINE, REPLACE_LINES
from flame_fitting.render.winding import front_faces
from tests.render import culling_checks, raster_scenes
from tests.render.agreement import disagreements
from tests.render.raster_scenes import Scene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
    pytest.mark.skipif(
        importlib.util.find_spec("nvdiffrast") is None, reason=f"nvdiffrast is not installed: {INSTALL_LINE}"
    ),
]


@pytest.fixture(scope="module")
def cuda() -> Rasterizer:
    return make_rasterizer("cuda")


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (raster_scenes.head, ()),
        (raster_scenes.head, (384,)),
        (raster_scenes.close_up, ()),
        (raster_scenes.close_up, (320, 256)),
        (raster_scenes.clipped_soup, ()),
        (raster_scenes.clipped_soup, (192, 272)),
        (raster_scenes.soup, ()),
        (raster_scenes.soup, (256, 240)),
    ],
)
def test_scene_equals_the_cpu(cuda: Rasterizer, make: Callable[..., Scene], sizes: tuple[int, ...]) -> None:
    scene = make(*sizes)
    both = (cuda, CpuRasterizer())
    expected, actual = (raster_scenes.scene_results(rasterizer, scene) for rasterizer in both)
    still = raster_scenes.shown_differently(expected, actual)
    if any(pixels.any() for pixels in still.values()):
        # one pixel on another triangle of an edge-on sliver can make all of a vertex gradient's difference
        expected, actual = (raster_scenes.scene_results(rasterizer, scene, still) for rasterizer in both)
    assert disagreements(expected, actual, slivers=True) == []


def test_textures_equal_the_cpu(cuda: Rasterizer) -> None:
    expected, actual = raster_scenes.texture_results(cuda), raster_scenes.texture_results(CpuRasterizer())
    assert disagreements(expected, actual) == []


@pytest.mark.parametrize("mode", ["nearest", "linear", "linear-mipmap-linear"])
def test_one_texture_for_all_views_equals_a_copy_for_each(cuda: Rasterizer, mode) -> None:
    tex, uv, uv_da = (tensor.to(cuda.device) for tensor in raster_scenes.texture_inputs())
    weight = torch.randn(*uv.shape[:3], 3, device=cuda.device)
    shared = tex[:1].clone().requires_grad_()
    copies = tex[:1].repeat(2, 1, 1, 1).requires_grad_()
    results = [cuda.texture(t, uv, uv_da, mode) for t in (shared, copies)]
    assert torch.equal(*results)
    of_shared, of_copies = (
        torch.autograd.grad((result * weight).sum(), t)[0] for result, t in zip(results, (shared, copies), strict=True)
    )
    # Sums of atomics in another order.
    torch.testing.assert_close(of_shared, of_copies.sum(0, keepdim=True), rtol=1e-4, atol=1e-4)


def test_a_uv_derivative_is_ignored_without_mip_levels(cuda: Rasterizer) -> None:
    tex, uv, uv_da = (tensor.to(cuda.device) for tensor in raster_scenes.texture_inputs())
    assert torch.equal(cuda.texture(tex, uv, uv_da, "linear"), cuda.texture(tex, uv, None, "auto"))


def test_only_front_faces_are_drawn(cuda: Rasterizer) -> None:
    culling_checks.only_front_faces_are_drawn(cuda)


def test_gradients_equal_those_of_a_mesh_without_the_culled_faces(cuda: Rasterizer) -> None:
    culling_checks.gradients_equal_those_of_a_mesh_without_the_culled_faces(cuda)


def test_culled_silhouettes_are_antialiased_at_mouth_eyes_and_neck(cuda: Rasterizer) -> None:
    culling_checks.culled_silhouettes_are_antialiased(cuda)


def test_a_batchs_gradients_are_those_of_its_views(cuda: Rasterizer) -> None:
    culling_checks.a_batchs_gradients_are_those_of_its_views(cuda)


def test_a_batch_too_large_for_one_list_is_antialiased_in_parts(cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flame_fitting.render.cuda.MAX_INSTANCED_FACES", 11)
    culling_checks.a_batchs_gradients_are_those_of_its_views(cuda)


def test_front_faces_are_the_same_as_on_the_cpu(cuda: Rasterizer) -> None:
    pos, tri = culling_checks.open_mouth_views()
    on_cpu, on_gpu = front_faces(pos, tri), front_faces(pos.to(cuda.device), tri.to(cuda.device))
    assert (on_cpu == on_gpu.cpu()).float().mean() > 0.9999  # slivers seen edge on may differ


def test_a_step_forward_never_waits_for_the_gpu_outside_nvdiffrast(cuda: Rasterizer) -> None:
    pos, tri = (tensor.to(cuda.device) for tensor in culling_checks.open_mouth_views())
    attr = torch.rand(1, pos.shape[1], 2, device=cuda.device)
    tex = torch.rand(1, 64, 64, 3, device=cuda.device)
    topology = cuda.topology(tri)

    def forward() -> None:
        rast, rast_db = cuda.rasterize(pos, tri, (64, 64), front_faces(pos, tri))
        uv, uv_da = cuda.interpolate(attr, rast, tri, rast_db, "all")
        cuda.antialias(cuda.texture(tex, uv, uv_da), rast, pos, tri, topology)

    forward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        forward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_too_many_faces_for_one_list_are_refused(cuda: Rasterizer, monkeypatch: pytest.MonkeyPatch) -> None:
    pos, tri = (tensor.to(cuda.device) for tensor in culling_checks.open_mouth_views())
    monkeypatch.setattr("flame_fitting.render.cuda.MAX_INSTANCED_FACES", 3 * len(tri) - 1)
    with pytest.raises(ValueError, match="draw the views in chunks"):
        cuda.rasterize(pos, tri, (64, 64), front_faces(pos, tri))


def test_the_start_checks_the_nvdiffrast_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from flame_fitting.render import cuda as backend

    assert not backend.CudaRasterizer()._culls()
    with monkeypatch.context() as patch:
        patch.setattr(backend.importlib.metadata, "version", lambda name: "0.3.1")
        with pytest.raises(InputError, match=r"0\.3\.1 is too old") as caught:
            backend.CudaRasterizer()
        assert REPLACE_LINES in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setattr(backend.dr, "rasterize", _as_the_fork(backend.dr.rasterize))
        with pytest.raises(InputError, match="fork") as caught:
            backend.CudaRasterizer()
        assert REPLACE_LINES in str(caught.value)


def _as_the_fork(rasterize):
    """nvdiffrast's function, with one winding gone."""

    def culling(context, pos, tri, resolution, **kwargs):
        rast, rast_db = rasterize(context, pos, tri, resolution, **kwargs)
        i, j, k = tri.long().unbind(1)
        xy = pos[..., :2] / pos[..., 3:]
        a, b = xy[:, j] - xy[:, i], xy[:, k] - xy[:, i]
        front = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0] > 0
        return rast * front[:, :1, None, None], rast_db

    return culling


def test_auto_is_the_current_gpu() -> None:
    current = torch.device("cuda", torch.cuda.current_device())
    assert choose_device("auto") == choose_device("cuda") == current
    assert make_rasterizer("auto").device == current


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_another_gpu_than_the_current_one() -> None:
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    assert torch.cuda.current_device() != last.index
    rasterizer = make_rasterizer(str(last))
    assert rasterizer.device == last
    scene = raster_scenes.head(64)
    expected = raster_scenes.scene_results(rasterizer, scene)
    assert disagreements(expected, raster_scenes.scene_results(CpuRasterizer(), scene)) == []
    assert torch.cuda.current_device() != last.index
    with torch.cuda.device(last):
        assert make_rasterizer("cuda").device == last
