"""Which device runs: what is said about a GPU that cannot be used, and what is refused."""

import sys
import types

import pytest
import torch

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.render import backend
from flame_fitting.render.backend import choose_device, cpu_estimate, make_rasterizer
from flame_fitting.render.nvdiffrast_check import INSTALL_LINE, REPLACE_LINES, nvdiffrast_problem


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(progress, "warn", said.append)
    return said


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose torch sees two GPUs, of which the second is current."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def install(monkeypatch: pytest.MonkeyPatch, make) -> None:
    """An nvdiffrast that is there, and a CUDA backend whose rasterizer is `make(device)`."""
    module = types.ModuleType("flame_fitting.render.cuda")
    module.CudaRasterizer = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flame_fitting.render.cuda", module)
    monkeypatch.setattr(backend, "_nvdiffrast_missing", lambda: None)


def remove(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = backend.importlib.util.find_spec
    monkeypatch.setattr(
        backend.importlib.util,
        "find_spec",
        lambda name, *args: None if name == "nvdiffrast" else find_spec(name, *args),
    )


@pytest.mark.parametrize("version", ["0.3.3", "0.3.5", "0.4.0", "0.10", "1.0.0+cu130"])
def test_a_stock_nvdiffrast_of_today_is_fine(version: str) -> None:
    assert nvdiffrast_problem(version, culls_back_faces=False) is None


@pytest.mark.parametrize("version", ["0.3.2", "0.3.1.1", "0.2.8", "0.3"])
def test_an_old_nvdiffrast_is_named_with_the_lines_that_replace_it(version: str) -> None:
    problem = nvdiffrast_problem(version, culls_back_faces=False)
    assert problem is not None
    assert f"nvdiffrast {version} is too old" in problem and "0.3.3" in problem and REPLACE_LINES in problem
    assert "pip uninstall -y nvdiffrast" in problem and INSTALL_LINE in problem


def test_the_fork_that_culls_is_named_with_the_lines_that_replace_it() -> None:
    problem = nvdiffrast_problem("0.3.3", culls_back_faces=True)
    assert problem is not None
    assert "fork" in problem and "VHAP" in problem and REPLACE_LINES in problem


def test_the_install_line_is_stock_nvdiffrast_from_its_home() -> None:
    assert "git+https://github.com/NVlabs/nvdiffrast" in INSTALL_LINE and "--no-build-isolation" in INSTALL_LINE


def test_without_a_gpu_auto_is_the_cpu_and_says_nothing(no_gpu: None, warnings: list[str]) -> None:
    assert choose_device("auto") == torch.device("cpu")
    assert choose_device("cpu") == torch.device("cpu")
    assert make_rasterizer("auto").device.type == "cpu"
    assert warnings == []


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_without_a_gpu_cuda_is_refused(no_gpu: None, device: str) -> None:
    with pytest.raises(InputError, match=f"--device {device}: torch finds no CUDA device.*--device cpu"):
        choose_device(device)


@pytest.mark.parametrize("device", ["gpu", "gpu0", "cuda:", "cuda:-1", "cuda:x", "CUDA", "", "mps", "cpu:0"])
def test_unknown_devices_are_refused(two_gpus: None, device: str) -> None:
    with pytest.raises(InputError, match=r"unknown device\. Use auto, cpu, cuda or cuda:N"):
        choose_device(device)


def test_a_gpu_without_nvdiffrast_is_said_once_with_the_install_line(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None, warnings: list[str]
) -> None:
    remove(monkeypatch)
    assert choose_device("auto") == torch.device("cpu")
    assert len(warnings) == 1
    assert "nvdiffrast is not installed" in warnings[0] and INSTALL_LINE in warnings[0]
    assert cpu_estimate() in warnings[0]
    assert choose_device("cpu") == torch.device("cpu") and len(warnings) == 1


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_without_nvdiffrast_is_refused(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None, warnings: list[str], device: str
) -> None:
    remove(monkeypatch)
    with pytest.raises(InputError, match=f"--device {device}: nvdiffrast is not installed") as caught:
        choose_device(device)
    assert INSTALL_LINE in str(caught.value)
    assert warnings == []


def test_devices_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch, two_gpus: None) -> None:
    install(monkeypatch, lambda device: None)
    with pytest.raises(InputError, match="--device cuda:2: there are 2 CUDA devices, counted from 0"):
        choose_device("cuda:2")


def test_the_device_that_is_asked_for_is_used(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None, warnings: list[str]
) -> None:
    tried: list[torch.device] = []
    install(monkeypatch, tried.append)
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    assert choose_device("cuda") == torch.device("cuda", 1)  # the current one
    assert choose_device("auto") == torch.device("cuda", 1)
    assert tried == [torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cuda", 1)]
    assert warnings == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError(nvdiffrast_problem("0.3.0", False) or ""), "0.3.0 is too old"),
        (InputError(nvdiffrast_problem("0.3.3", True) or ""), "fork"),
        (ImportError("undefined symbol: x\nmore"), r"cannot be loaded \(undefined symbol: x\)"),
        (RuntimeError("no kernel image"), r"cannot be loaded \(no kernel image\)"),
    ],
)
def test_an_nvdiffrast_that_does_not_work_is_warned_of_or_refused(
    monkeypatch: pytest.MonkeyPatch, two_gpus: None, warnings: list[str], error: Exception, text: str
) -> None:
    def make(device: torch.device) -> None:
        raise error

    install(monkeypatch, make)
    assert choose_device("auto") == torch.device("cpu")
    assert len(warnings) == 1 and "the GPU is not used" in warnings[0] and INSTALL_LINE in warnings[0]
    with pytest.raises(InputError, match=text) as caught:
        choose_device("cuda:1")
    assert INSTALL_LINE in str(caught.value)


def test_the_estimate_shrinks_with_cores() -> None:
    seconds = [int(cpu_estimate(cores).split()[1]) for cores in (1, 2, 4, 8)]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > seconds[-1] > 0
    assert "on 4 cores" in cpu_estimate(4)
