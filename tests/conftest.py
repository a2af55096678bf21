"""Fixtures and switches shared by all tests."""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from tests import checking

if TYPE_CHECKING:
    from scripts.rig.making import Rig

REPOSITORY = Path(__file__).resolve().parents[1]

# Whoever runs the tests may have FLAME: --head auto must find none of it, here and in commands that tests start.
for _name in ("FLAME_MODEL_PATH", "FLAME_FITTING_ASSETS"):
    os.environ.pop(_name, None)
os.environ["FLAME_FITTING_SEARCH_PATH"] = ""


# Processes that run tests beside each other share the cores, as do commands that they start. Before torch is loaded.
_beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _beside > 1:
    for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(_name, str(max(1, (os.cpu_count() or 1) // _beside)))


class KernelsAsTheyAre(PathFinder):
    """Finds the Triton kernels before jaxtyping's import hook does: a kernel that it has wrapped does not compile."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return (
            super().find_spec(fullname, path, target) if f"{fullname}.".startswith("flame_fitting.kernels.") else None
        )


sys.meta_path.insert(0, KernelsAsTheyAre)  # type: ignore[arg-type]
checking.install()


def pytest_runtest_setup() -> None:
    checking.start()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write tests/snapshots/*.txt anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`slow` tests run with FLAME_FITTING_SLOW=1 or when they are asked for with -m."""
    if os.environ.get("FLAME_FITTING_SLOW") == "1" or "slow" in (config.getoption("markexpr") or ""):
        return
    skip = pytest.mark.skip(reason="slow; set FLAME_FITTING_SLOW=1")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with avatars that are not part of the project: FLAME_FITTING_TEST_DATA, else `../shared`."""
    folder = Path(os.environ.get("FLAME_FITTING_TEST_DATA", REPOSITORY.parent / "shared"))
    if not (folder / "avatars").is_dir():
        pytest.skip(f"{folder}/avatars is not there; set FLAME_FITTING_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> "Rig":
    """A talking head of known truth (scripts/rig): 16 frames of 4 cameras and of one, in every layout. Not to be
    changed: copy what a test writes into."""
    from scripts.rig.making import RigConfig, make_rig

    folder = tmp_path_factory.mktemp("rig") / "rig"
    return make_rig(RigConfig(folder, frames=16, size=128, texture_size=256, landmarks=True))
