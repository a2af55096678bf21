"""Where detectors that are torch networks run."""

import torch

from flame_fitting.errors import InputError


def detector_device(name: str) -> torch.device:
    """The device of --detector-device: auto (a GPU if torch has one), cpu, cuda or cuda:N. InputError for others."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--detector-device {name}: no such device. Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--detector-device {name}: torch sees {torch.cuda.device_count()} GPUs. Use auto or cpu.")
    return device


def detector_precision(device: torch.device, half: bool) -> torch.dtype:
    """What numbers a network computes with; half precision is for GPUs, a CPU would be many times slower with it."""
    return torch.float16 if half and device.type == "cuda" else torch.float32
