"""What travels in the wheel and the source archive, and what must not."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

DUMMIES = ("generic_model.pkl", "flame2023.npz", "nested/FLAME_masks.pkl")


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a wheel and an sdist, built from a copy that holds dummy licensed files."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("flame_fitting", "asset", "docs"):
        shutil.copytree(repository / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(repository / name, source / name)
    for name in DUMMIES:
        path = source / "asset" / "flame" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"licensed")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=300)
    return out


def wheel_names(built: Path) -> set[str]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def sdist_names(built: Path) -> set[str]:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}


def test_licensed_files_never_travel(built: Path) -> None:
    for names in (wheel_names(built), sdist_names(built)):
        assert not [name for name in names if Path(name).name in {Path(dummy).name for dummy in DUMMIES}]


def test_assets_travel_with_the_wheel(built: Path, repository: Path) -> None:
    names = wheel_names(built)
    files = [path for folder in ("open_head", "mediapipe") for path in (repository / "asset" / folder).iterdir()]
    assert {f"flame_fitting/asset/{path.parent.name}/{path.name}" for path in files} <= names
    assert "flame_fitting/asset/mediapipe/face_landmarker_v2.task" in names, "no avatar can be fitted without it"
    assert "flame_fitting/asset/LICENSES.md" in names
    assert "flame_fitting/cli.py" in names


def test_every_module_travels_with_the_wheel(built: Path, repository: Path) -> None:
    names = wheel_names(built)
    modules = {path.relative_to(repository).as_posix() for path in (repository / "flame_fitting").rglob("*.py")}
    assert modules <= names


def test_the_wheel_holds_nothing_else(built: Path) -> None:
    tops = {name.split("/", 1)[0] for name in wheel_names(built)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"flame_fitting"}


def test_licensed_files_are_ignored_by_git(repository: Path) -> None:
    if shutil.which("git") is None or not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "check-ignore", "asset/flame/flame2023.pkl", "output/demo/fit/metrics.json", "asset/flame/README.md"],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["asset/flame/flame2023.pkl", "output/demo/fit/metrics.json"]


def mismatches(root: Path) -> set[tuple[str, str]]:
    """Code and module of everything that deptry finds in a copy of the project, as scripts/test.sh calls it."""
    out = root / "found.json"
    command = [sys.executable, "-m", "deptry", "flame_fitting", "--json-output", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert out.is_file(), done.stderr
    return {(found["error"]["code"], found["module"]) for found in json.loads(out.read_text())}


@pytest.fixture(scope="module")
def project(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("deptry")
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(repository / "flame_fitting", root / "flame_fitting", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_packages_declared_and_imported_agree(project: Path, repository: Path) -> None:
    shutil.copy(repository / "pyproject.toml", project)
    assert mismatches(project) == set()


TQDM, TRIMESH = '  "tqdm>=4.66",\n', '  "trimesh>=4.4",\n'


@pytest.mark.parametrize(
    ("changes", "codes", "module"),
    [
        # DEP003 where another package happens to bring it
        ({TQDM: ""}, {"DEP001", "DEP003"}, "tqdm"),
        ({TRIMESH: "", "test = [\n": f"test = [\n{TRIMESH}"}, {"DEP004"}, "trimesh"),
        ({TQDM: f'{TQDM}  "networkx>=3",\n'}, {"DEP002"}, "networkx"),
    ],
)
def test_a_package_that_is_missing_for_tests_only_or_too_much_is_found(
    project: Path, repository: Path, changes: dict[str, str], codes: set[str], module: str
) -> None:
    text = (repository / "pyproject.toml").read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (project / "pyproject.toml").write_text(text)
    assert [name for code, name in mismatches(project) if code in codes and name == module] == [module]
