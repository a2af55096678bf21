"""Which rasterizer runs on which device."""

import importlib
import importlib.util
import os
import re
from typing import TYPE_CHECKING

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.render.nvdiffrast_check import INSTALL_LINE

if TYPE_CHECKING:
    import torch

    from flame_fitting.render.interface import Rasterizer

CPU_CORE_SECONDS = 90.0
"""Processor seconds of a fit's photometric and texture stages at default settings (docs/performance.md)."""


def choose_device(device: str = "auto") -> "torch.device":
    """The device for `--device`: auto, cpu, cuda or cuda:N.

    "auto" is the current CUDA device where torch and nvdiffrast work there, else the CPU; a GPU that lies idle because
    nvdiffrast is missing or wrong is said. An explicit "cuda" that cannot work is an `InputError`.
    """
    import torch

    if device == "cpu":
        return torch.device("cpu")
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        problem = _nvdiffrast_missing() or wrong_nvdiffrast(torch.device("cuda", torch.cuda.current_device()))
        if problem is None:
            return torch.device("cuda", torch.cuda.current_device())
        progress.warn(f"the GPU is not used: {problem} Until then fits run on the CPU ({cpu_estimate()}).")
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise InputError(f"--device {device}: unknown device. Use auto, cpu, cuda or cuda:N.")
    if not torch.cuda.is_available():
        raise InputError(
            f"--device {device}: torch finds no CUDA device. Use --device cpu, or install a CUDA build of torch."
        )
    chosen = torch.device(device)
    index = torch.cuda.current_device() if chosen.index is None else chosen.index
    if index >= torch.cuda.device_count():
        raise InputError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0.")
    problem = _nvdiffrast_missing() or wrong_nvdiffrast(torch.device("cuda", index))
    if problem is not None:
        raise InputError(f"--device {device}: {problem}")
    return torch.device("cuda", index)


def make_rasterizer(device: "str | torch.device" = "auto") -> "Rasterizer":
    """The rasterizer for a device or for what `choose_device` takes."""
    chosen = choose_device(device) if isinstance(device, str) else device
    if chosen.type == "cpu":
        from flame_fitting.render.cpu import CpuRasterizer

        return CpuRasterizer()
    # The module imports nvdiffrast, which is an optional package.
    return importlib.import_module("flame_fitting.render.cuda").CudaRasterizer(chosen)


def cpu_estimate(cores: int | None = None) -> str:
    """How long a fit takes on this machine's processor, in words."""
    cores = cores or os.cpu_count() or 1
    seconds = CPU_CORE_SECONDS / min(cores, 8)
    return f"about {max(round(seconds / 10) * 10, 10)} s for 32 views of 512x512 pixels on {cores} cores"


def _nvdiffrast_missing() -> str | None:
    if importlib.util.find_spec("nvdiffrast") is None:
        return f"nvdiffrast is not installed. Install it with: {INSTALL_LINE}"
    return None


def wrong_nvdiffrast(device: "torch.device") -> str | None:
    """What keeps the installed nvdiffrast from working on a device, the line that mends it last; None if nothing."""
    try:
        make_rasterizer(device)
    except InputError as error:
        return str(error)
    except (ImportError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"nvdiffrast cannot be loaded ({first}). Install it again with: {INSTALL_LINE}"
    return None
