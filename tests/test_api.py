"""The Python API, and that every module can be imported."""

import dataclasses
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import flame_fitting
from flame_fitting.errors import InputError


def modules() -> list[str]:
    """Names of all modules of the package."""
    walked = pkgutil.walk_packages(flame_fitting.__path__, "flame_fitting.")
    return sorted(module.name for module in walked if not module.name.endswith("__main__"))


GPU_ONLY = {
    "flame_fitting.render.cuda": "nvdiffrast",
    "flame_fitting.kernels.culling": "triton",
    "flame_fitting.kernels.pictures": "triton",
    "flame_fitting.kernels.rotations": "triton",
    "flame_fitting.render.fused": "triton",
    "flame_fitting.head.fused": "triton",
    "flame_fitting.fit.losses.fused": "triton",
}
"""Modules for a GPU, and the package that each needs."""


@pytest.mark.parametrize("name", modules())
def test_every_module_can_be_imported(name: str) -> None:
    package = GPU_ONLY.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        # nothing else may be missing, and nothing else may import it on a machine without it
        with pytest.raises(ModuleNotFoundError, match=package):
            importlib.import_module(name)
        return
    assert importlib.import_module(name).__doc__


def test_fit_head_returns_the_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flame_fitting.make_demo_avatar import MakeDemoAvatarConfig, make_demo_avatar

    make_demo_avatar(MakeDemoAvatarConfig(output=tmp_path / "avatar"))
    capsys.readouterr()
    result = flame_fitting.fit_head(
        tmp_path / "avatar" / "demo_avatar.glb",
        output=tmp_path / "out",
        views=8,
        resolution=256,
        photometric=False,
    )
    assert capsys.readouterr().out == ""
    assert isinstance(result, flame_fitting.FitResult)
    assert dataclasses.is_dataclass(result)
    assert result.folder == tmp_path / "out" / "fit"
    assert result.parameters["rotation"].shape == (1, 3)
    scale = np.cbrt(np.linalg.det(result.head_from_world[:3, :3]))
    assert np.isfinite(scale) and scale > 0
    face = result.metrics["regions"]["face"]
    # measured: 0.023, 0.08 and 1.44 mm
    assert face["to_avatar_mm"]["median"] < 0.05
    assert face["to_truth_surface_mm"]["median"] < 0.15
    assert face["to_truth_mm"]["median"] < 2.0
    assert (tmp_path / "out" / "export" / "transforms.json").is_file()


def test_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="resolutoin"):
        flame_fitting.fit_head(tmp_path / "a.glb", resolutoin=256)


def test_wrong_input_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.glb"):
        flame_fitting.fit_head(tmp_path / "a.glb", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="fit_haed"):
        _ = flame_fitting.fit_haed
