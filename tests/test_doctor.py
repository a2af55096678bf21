"""`doctor`: findings, the commands that mend them, exit codes."""

import json
import re
import shutil
import sys
import tomllib
import types
from pathlib import Path

import pytest
import torch

from flame_fitting import assets, doctor
from flame_fitting.errors import InputError
from flame_fitting.render.nvdiffrast_check import INSTALL_LINE, REPLACE_LINES, nvdiffrast_problem
from tests.head.flame_like import write_npz


def findings() -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in doctor.examine()}


def test_everything_missing_comes_with_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "open_head_path", lambda: tmp_path / "open_head.npz")
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    for finding in findings().values():
        if finding.state == "missing":
            assert finding.mend.startswith(("pip install", "apt-get install")), finding


def test_every_declared_dependency_is_looked_for(repository: Path) -> None:
    declared = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[^\w-]", each, maxsplit=1)[0] for each in declared} == set(doctor.CORE)


def test_without_the_model_file_no_avatar_can_be_fitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = assets.open_head_path()
    monkeypatch.setattr(assets, "open_head_path", lambda: head)
    monkeypatch.setattr(assets, "asset_dir", lambda: tmp_path)
    monkeypatch.delenv("FLAME_FITTING_MEDIAPIPE_MODEL", raising=False)
    assert doctor.doctor(doctor.DoctorConfig()) == 2
    said = capsys.readouterr().out
    assert "MISSING   detector model" in said and "-> pip install --force-reinstall flame-fitting" in said
    assert "Not ready: detector model." in said


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
    assert finding.mend == (
        "pip uninstall -y opencv-python && pip install --force-reinstall --no-deps opencv-contrib-python"
    )


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


@pytest.fixture
def flame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder where FLAME is looked for."""
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FLAME_FITTING_SEARCH_PATH", str(tmp_path / "flame"))
    (tmp_path / "flame").mkdir()
    return tmp_path / "flame"


def test_what_is_not_there_comes_with_its_download_and_its_users(flame: Path) -> None:
    found = findings()
    for name, file, download in (
        ("head: flame2023", "flame2023.pkl", "FLAME 2023 (versions w/ jaw rotation)"),
        ("head: flame2023-open", "flame2023_Open.pkl", "FLAME 2023 Open"),
        ("head: flame2020", "generic_model.pkl", "FLAME 2020"),
        ("FLAME masks", "beside FLAME", "FLAME Vertex Masks"),
    ):
        assert found[name].state == "optional"
        assert "https://flame.is.tue.mpg.de" in found[name].mend
        assert f"'{download}'" in found[name].mend and file in found[name].mend
        assert "fit" in found[name].used_by
    assert found["head taken"].text == "open (auto, no FLAME file was found)"


def test_files_of_flame_are_named_with_version_and_hash(flame: Path) -> None:
    from flame_fitting.files import sha256_of_file

    path = write_npz(flame / "flame2023_Open.npz")
    found = findings()
    assert found["head: flame2023-open"].state == "ok"
    assert found["head: flame2023-open"].text == (
        f"FLAME 2023 Open, {path} ({sha256_of_file(path)[:12]}; 642 vertices, 6 + 4 components)"
    )
    assert found["head taken"].text.startswith("flame2023-open (auto, flame2023_Open.npz in ")


def test_a_broken_file_counts_where_it_would_be_taken(flame: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (flame / "generic_model.pkl").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    broken = findings()["head: flame2020"]
    assert broken.state == "missing" and "posix.system" in broken.text and "flame.is.tue.mpg.de" in broken.mend
    assert doctor.doctor(doctor.DoctorConfig()) == 2
    assert "Not ready: head: flame2020" in capsys.readouterr().out
    write_npz(flame / "flame2023.npz")
    assert findings()["head: flame2020"].state == "optional"
    assert doctor.doctor(doctor.DoctorConfig()) == 0
    (flame / "FLAME_masks.pkl").write_bytes(b"junk")
    assert findings()["FLAME masks"].state == "missing"


def test_a_folder_given_by_flag(tmp_path: Path) -> None:
    write_npz(tmp_path / "flame2020.npz")
    found = {finding.subject: finding for finding in doctor.examine(tmp_path)}
    assert found["head taken"].text == f"flame2020 (auto, flame2020.npz in {tmp_path} (--flame-dir))"
    found = {finding.subject: finding for finding in doctor.examine(tmp_path / "none")}
    assert found["head taken"].state == "missing" and "none: no such folder" in found["head taken"].text


def test_the_detector_is_named_with_its_hash() -> None:
    found = findings()["detector model"]
    assert found.state == "ok" and found.text.endswith(")") and "render" in found.used_by
    assert doctor._line(found).startswith("ok        detector model       MediaPipe Face Landmarker, ")
