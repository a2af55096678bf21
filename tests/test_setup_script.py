"""scripts/_setup.sh, with stand-ins for what it would download."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / "scripts" / "_setup.sh"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")


def set_up(venv: Path, torch: str | None, extras: str = "") -> str:
    """Which torch build is installed, with other packages; empty where all is there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAME_FITTING_")}
    environment["FLAME_FITTING_VENV"] = str(venv)
    if torch is not None:
        environment["FLAME_FITTING_TORCH"] = torch
    story = f"""set -euo pipefail
        source {SETUP}
        install_into() {{ echo "torch: $2"; }}
        install_face_alignment() {{ :; }}
        check_system_libraries() {{ :; }}
        setup_environment "{extras}"
    """
    done = subprocess.run(["bash", "-c", story], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name in ("python", "flame-fitting"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def test_the_build_of_torch_that_was_chosen_stays(venv: Path) -> None:
    assert set_up(venv, "cpu") == "torch: cpu"
    assert set_up(venv, "cpu") == set_up(venv, None) == ""  # a later script is not told again
    assert set_up(venv, None, "dev") == "torch: cpu"
    assert set_up(venv, "cu126") == "torch: cu126"
    assert set_up(venv, None) == ""


def test_without_a_choice_pip_chooses(venv: Path) -> None:
    assert set_up(venv, None) == "torch:"
    assert set_up(venv, None) == ""
