"""`doctor`: findings, the commands that mend them, exit codes."""

import json
from pathlib import Path

import pytest

from flame_fitting import assets, doctor


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


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.doctor(doctor.DoctorConfig(json=True))
    subjects = [entry["subject"] for entry in json.loads(capsys.readouterr().out)]
    assert {"torch", "detector model", "nvdiffrast", "head: open"} <= set(subjects)
