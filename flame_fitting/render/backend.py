"""Which rasterizer runs on which device."""

import importlib
import importlib.util
from typing import Literal

from flame_fitting.errors import InputError
from flame_fitting.render.interface import Rasterizer

INSTALL_LINE = (
    "pip install setuptools wheel ninja && "
    "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast.git@v0.4.0"
)

Device = Literal["auto", "cpu", "cuda"]


def make_rasterizer(device: Device = "auto") -> Rasterizer:
    """The rasterizer for a device. "auto" is CUDA where a GPU and the nvdiffrast backend work, else the CPU."""
    if device == "auto":
        return _cuda_rasterizer() if _cuda_problem() is None else _cpu_rasterizer()
    if device == "cpu":
        return _cpu_rasterizer()
    if device == "cuda":
        problem = _cuda_problem()
        if problem is not None:
            raise InputError(problem)
        return _cuda_rasterizer()
    raise InputError(f"--device {device}: unknown device. Use auto, cpu or cuda.")


def _cpu_rasterizer() -> Rasterizer:
    from flame_fitting.render.cpu import CpuRasterizer

    return CpuRasterizer()


def _cuda_problem() -> str | None:
    """What keeps rendering from running on CUDA, as a message for the user; None if nothing does."""
    import torch

    if not torch.cuda.is_available():
        return "--device cuda: torch finds no CUDA device. Use --device cpu, or install a CUDA build of torch."
    if importlib.util.find_spec("nvdiffrast") is None:
        return f"--device cuda: nvdiffrast is not installed. Install it with: {INSTALL_LINE}"
    if importlib.util.find_spec("flame_fitting.render.cuda") is None:
        return "--device cuda: this version renders on the CPU only. Use --device cpu."
    return None


def _cuda_rasterizer() -> Rasterizer:
    # The module imports nvdiffrast, which is an optional package.
    module = importlib.import_module("flame_fitting.render.cuda")
    return module.CudaRasterizer()
