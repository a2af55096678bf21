"""The CPU rasterizer against files that nvdiffrast made on a GPU (scripts/make_golden_raster.py)."""

import pytest

from flame_fitting.render.cpu import CpuRasterizer
from tests.render import raster_scenes
from tests.render.agreement import disagreements
from tests.render.golden_files import FOLDER, HOW_TO_MAKE, read_golden

RASTERIZER = CpuRasterizer()


@pytest.mark.parametrize(
    "make", [raster_scenes.head, raster_scenes.close_up, raster_scenes.clipped_soup, raster_scenes.soup]
)
def test_scene_equals_nvdiffrast(make) -> None:
    scene = make()
    golden = read_golden(FOLDER / f"{scene.name}.npz")
    assert golden.metadata["inputs"] == raster_scenes.scene_hash(scene), f"the scene has changed; {HOW_TO_MAKE}"
    assert golden.metadata["rasterizer"] == "CudaRasterizer"
    assert disagreements(golden.results, raster_scenes.scene_results(RASTERIZER, scene), golden.pixels) == []


def test_textures_equal_nvdiffrast() -> None:
    golden = read_golden(FOLDER / "texture.npz")
    digest = raster_scenes.input_hash(*raster_scenes.texture_inputs())
    assert golden.metadata["inputs"] == digest, f"the inputs have changed; {HOW_TO_MAKE}"
    assert golden.metadata["rasterizer"] == "CudaRasterizer"
    assert disagreements(golden.results, raster_scenes.texture_results(RASTERIZER)) == []
