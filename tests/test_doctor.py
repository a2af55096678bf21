"""`doctor`: findings, the commands that mend them, exit codes."""

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

from flame_fitting import assets, doctor
from flame_fitting.errors import InputError
from flame_fitting.render.nvdiffrast_check import INSTALL_LINE, REPLACE_LINES, nvdiffrast_problem


def findings() -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in doctor.examine()}


def test_everything_missing_comes_with_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "open_head_path", lambda: tmp_path / "open_head.npz")
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    for finding in findings().values():
        if finding.state == "missing":
            assert finding.mend.startswith(("pip install", "apt-get install")), finding


def test_exit_code_tells_whether_the_main_job_can_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = tmp_path / "open_head.npz"
    monkeypatch.setattr(assets, "open_head_path", lambda: head)
    assert doctor.doctor(doctor.DoctorConfig()) == 2
    assert "Not ready: head: open" in capsys.readouterr().out
    head.write_bytes(b"x")
    assert doctor.doctor(doctor.DoctorConfig()) == 0
    assert "Ready to fit an avatar." in capsys.readouterr().out


def test_two_versions_of_opencv_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"opencv-python": "4.11.0", "opencv-contrib-python": "5.0.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    finding = doctor._opencv_twins()
    assert finding.state == "missing"
    assert "opencv-python==5.0.0 opencv-contrib-python==5.0.0" in finding.mend


def test_a_missing_system_library_names_the_packages() -> None:
    def load() -> None:
        raise OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory")

    finding = doctor._loads("mediapipe", load)
    assert finding.state == "missing"
    assert all(name in finding.mend for name in ("libgl1", "libegl1", "libgles2", "libglib2.0-0"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {'AB'[index]}")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def nvdiffrast(monkeypatch: pytest.MonkeyPatch, version: str | None, error: Exception | None = None) -> doctor.Finding:
    """The finding with this nvdiffrast installed, whose rasterizer ends in `error`."""

    def make(device: torch.device) -> None:
        assert device == torch.device("cuda", 1)
        if error is not None:
            raise error

    module = types.ModuleType("flame_fitting.render.cuda")
    module.CudaRasterizer = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flame_fitting.render.cuda", module)
    monkeypatch.setattr(doctor, "_version", lambda name: version)
    return doctor._nvdiffrast()


def test_gpus_are_named(gpu: None) -> None:
    finding = doctor._device()
    assert finding.state == "ok"
    assert "cuda:0 GPU A, cuda:1 GPU B" in finding.text


def test_a_gpu_behind_a_torch_without_cuda_is_said(monkeypatch: pytest.MonkeyPatch, no_gpu: None) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    finding = doctor._device()
    assert finding.state == "optional" and "without CUDA" in finding.text
    assert finding.mend == "pip install --force-reinstall torch"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor._device().state == "ok"


def test_an_nvdiffrast_that_works_says_who_uses_it(monkeypatch: pytest.MonkeyPatch, gpu: None) -> None:
    finding = nvdiffrast(monkeypatch, "0.4.0")
    assert finding.state == "ok"
    assert "0.4.0" in finding.text and "fit and run" in finding.text and "cuda:1" in finding.text


def test_a_gpu_without_nvdiffrast_gets_the_install_line(monkeypatch: pytest.MonkeyPatch, gpu: None) -> None:
    finding = nvdiffrast(monkeypatch, None)
    assert finding.state == "optional" and finding.mend == INSTALL_LINE


@pytest.mark.parametrize(
    ("error", "text", "mend"),
    [
        (InputError(nvdiffrast_problem("0.3.0", False) or ""), "0.3.0 is too old", REPLACE_LINES),
        (InputError(nvdiffrast_problem("0.3.3", True) or ""), "fork", REPLACE_LINES),
        (ImportError("libcudart.so.12: cannot open"), "cannot be loaded (libcudart.so.12", INSTALL_LINE),
    ],
)
def test_an_nvdiffrast_that_does_not_work_gets_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, gpu: None, error: Exception, text: str, mend: str
) -> None:
    finding = nvdiffrast(monkeypatch, "0.3.3", error)
    assert finding.state == "optional" and finding.mend == mend
    assert text in finding.text and "pip " not in finding.text


def test_nvdiffrast_without_a_gpu(monkeypatch: pytest.MonkeyPatch, no_gpu: None) -> None:
    assert nvdiffrast(monkeypatch, None).mend == ""
    assert nvdiffrast(monkeypatch, "0.4.0").state == "ok"
    old = nvdiffrast(monkeypatch, "0.3.1")
    assert old.state == "optional" and old.mend == REPLACE_LINES


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.doctor(doctor.DoctorConfig(json=True))
    subjects = [entry["subject"] for entry in json.loads(capsys.readouterr().out)]
    assert {"torch", "detector model", "nvdiffrast", "head: open"} <= set(subjects)
