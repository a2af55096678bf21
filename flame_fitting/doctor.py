"""`doctor`: what is installed, what is missing, and the command that mends it."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.files import sha256_of_file
from flame_fitting.options import own_first
from flame_fitting.shared_options import FlameFolder
from flame_fitting.version import __version__

CORE = (
    "torch",
    "numpy",
    "scipy",
    "opencv-contrib-python",
    "tyro",
    "trimesh",
    "tqdm",
    "pillow",
    "numba",
    "mediapipe",
    "jaxtyping",
    "pyyaml",
    "safetensors",
    "xatlas",
    "DracoPy",
    "meshopt",
    "zstandard",
    "pygltflib",
    "robust_laplacian",
    "av",
    "ai-edge-litert",
    "pymatting",
    "matplotlib",
    "jinja2",
)
OPTIONAL = {
    "tensorboard": ("tensorboard", "shows the fit's curves", "fit, run"),
    "dlib-bin": ("dlib", "a second landmark detector", "detect, fit, run"),
    "face-alignment": ("face-alignment", "a landmark detector, as in VHAP", "detect, fit, run"),
    "viser": ("view", "shows a fit in the browser", "view"),
}
"""Package: extra of this project, what for, which commands."""
SYSTEM_LIBRARIES = "apt-get install -y libgl1 libegl1 libgles2 libglib2.0-0"
INSTALL_AGAIN = "pip install --force-reinstall flame-fitting"
"""Brings the files that come with the package."""
HEAD_USERS = "run, render, fit"
DETECTOR_USERS = "render, detect, fit, run"
COMPANIONS = (
    (
        "FLAME masks",
        assets.MASKS_FILE,
        "FLAME's own regions; without it they are made from the model's mesh",
        HEAD_USERS,
        f"{assets.FLAME_SITE}: download 'FLAME Vertex Masks'",
    ),
    (
        "FLAME template",
        assets.TEMPLATE_FILE,
        "FLAME's texture layout; without it one is computed",
        HEAD_USERS,
        "take it from VHAP (asset/flame)",
    ),
    (
        "FLAME texture",
        assets.TEXTURE_FILE,
        "FLAME's texture layout, where the template is missing",
        HEAD_USERS,
        f"{assets.FLAME_SITE}: download 'FLAME texture space'",
    ),
    (
        "FLAME landmarks",
        "landmark_embedding*.npy",
        "68 points for --landmark-embedding; calibrated ones are used without it",
        "fit",
        "take it from VHAP (asset/flame)",
    ),
    (
        "FLAME landmarks 105",
        "mediapipe_landmark_embedding.npz",
        "MediaPipe's points for --landmark-embedding; calibrated ones are used without it",
        "fit",
        f"{assets.FLAME_SITE}: download 'FLAME Mediapipe Landmark Embedding'",
    ),
)
"""Files beside a FLAME model: subject, name, what for, which commands, where from."""


@own_first
@dataclass
class DoctorConfig(FlameFolder):
    """Says what is installed, what is missing, and the command that mends it."""

    json: bool = False
    """Print the findings as JSON instead of lines."""


@dataclass
class Finding:
    """One line of the report."""

    subject: str
    state: Literal["ok", "missing", "optional"]
    """`missing`: the main job cannot run without it; `optional`: it can."""
    text: str
    mend: str = ""
    """What mends it: a command, or where to get a file."""
    used_by: str = ""
    """Commands that use it; empty: all."""


def doctor(config: DoctorConfig) -> int:
    """Prints the findings; returns 0 if an avatar can be fitted on this machine, else 2."""
    findings = list(examine(config.flame_dir))
    if config.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(_line(finding))
    missing = [finding.subject for finding in findings if finding.state == "missing"]
    if not config.json:
        print()
        print(f"Not ready: {', '.join(missing)}. Run the lines after ->." if missing else "Ready to fit an avatar.")
    return 2 if missing else 0


def examine(flame_dir: Path | None = None) -> Iterator[Finding]:
    """All findings, the machine first."""
    yield Finding("flame-fitting", "ok", f"{__version__} in {Path(__file__).resolve().parent}")
    yield _python()
    yield Finding("machine", "ok", f"{platform.platform(terse=True)}, {os.cpu_count()} cores, {_memory()}")
    for name in CORE:
        yield _package(name)
    yield _opencv_twins()
    yield _loads("cv2", _load_cv2, "opencv-contrib-python")
    yield _loads("mediapipe", _load_mediapipe)
    yield from _detectors()
    yield _device()
    yield _nvdiffrast()
    yield _open_head()
    yield from _flame(flame_dir)
    yield _auto_head(flame_dir)
    yield _cache()
    for name, (extra, why, users) in OPTIONAL.items():
        version = _version(name)
        if version:
            yield Finding(name, "ok", f"{version} ({why})", used_by=users)
        else:
            yield Finding(name, "optional", f"not installed ({why})", f"pip install 'flame-fitting[{extra}]'", users)


def _line(finding: Finding) -> str:
    mark = {"ok": "ok      ", "missing": "MISSING ", "optional": "optional"}[finding.state]
    users = f" [{finding.used_by}]" if finding.used_by else ""
    mend = f"  -> {finding.mend}" if finding.mend and finding.state != "ok" else ""
    return f"{mark}  {finding.subject:<20} {finding.text}{users}{mend}"


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "memory unknown"
    return f"{size / 2**30:.0f} GiB memory"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, "missing", "not installed", f"pip install {name}")
    return Finding(name, "ok", version)


def _opencv_twins() -> Finding:
    """Each of these wheels holds the module cv2, the one installed last wins: several must be one version."""
    ours = "opencv-contrib-python"
    names = (ours, "opencv-python", "opencv-python-headless", "opencv-contrib-python-headless")
    found = {name: version for name in names if (version := _version(name))}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(set(found.values())) > 1:
        others = " ".join(name for name in found if name != ours)
        return Finding(
            "opencv wheels",
            "missing",
            f"{listed}: their files overwrite each other, so they must be one version",
            f"pip uninstall -y {others} && pip install --force-reinstall --no-deps {ours}",
        )
    return Finding("opencv wheels", "ok", listed)


def _loads(name: str, load: Callable[[], None], package: str = "") -> Finding:
    try:
        load()
    except (ImportError, OSError, AttributeError) as error:
        text = str(error).splitlines()[0]
        again = f"pip install --force-reinstall {package or name}"
        mend = SYSTEM_LIBRARIES if "shared object" in text or ".so" in text else again
        return Finding(f"{name} loads", "missing", text, mend)
    return Finding(f"{name} loads", "ok", "yes, with its system libraries")


def _load_cv2() -> None:
    import cv2

    cv2.getBuildInformation  # noqa: B018  a broken mixture of two wheels imports as an empty module


def _load_mediapipe() -> None:
    import ctypes

    import mediapipe

    for library in Path(mediapipe.__file__).parent.rglob("libmediapipe*.so"):
        ctypes.CDLL(str(library))


def _detectors() -> Iterator[Finding]:
    try:
        from flame_fitting.landmarks.inventory import detector_files

        for name, state, text, mend in detector_files(INSTALL_AGAIN):
            yield Finding(name, state, text, mend, DETECTOR_USERS)
    except (ImportError, OSError) as error:
        yield Finding("detector model", "missing", f"cannot be looked for ({error})", INSTALL_AGAIN, DETECTOR_USERS)


def _device() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("device", "missing", f"torch cannot be loaded ({error})", "pip install --force-reinstall torch")
    if torch.cuda.is_available():
        names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        return Finding("device", "ok", f"{', '.join(names)} (torch's CUDA {torch.version.cuda})")
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        return Finding(
            "device",
            "optional",
            "cpu: there is an NVIDIA GPU, but this torch is a build without CUDA",
            "pip install --force-reinstall torch",
        )
    build = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a build without CUDA"
    return Finding("device", "ok", f"cpu (no NVIDIA GPU that torch can use, {build}; everything runs, only slower)")


def _nvdiffrast() -> Finding:
    from flame_fitting.render.nvdiffrast_check import INSTALL_LINE, REPLACE_LINES, nvdiffrast_problem

    version, users = _version("nvdiffrast"), "fit, run"
    try:
        import torch
    except (ImportError, OSError):
        gpu = None
    else:
        gpu = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
    if version is None:
        if gpu is None:
            return Finding(
                "nvdiffrast", "optional", "not installed (fits on an NVIDIA GPU need it, the CPU does not)", "", users
            )
        return Finding(
            "nvdiffrast", "optional", "not installed: fits leave the GPU idle and use the CPU", INSTALL_LINE, users
        )
    if gpu is None:
        problem, use = nvdiffrast_problem(version, culls_back_faces=False), "no GPU to use it on; fits use the CPU"
    else:
        from flame_fitting.render.backend import wrong_nvdiffrast

        problem, use = wrong_nvdiffrast(gpu), f"draws for fit and run on {gpu}; --device cpu does without"
    if problem is None:
        return Finding("nvdiffrast", "ok", f"{version} ({use})", "", users)
    # The problem's last sentence is the command.
    return Finding(
        "nvdiffrast",
        "optional",
        problem.rpartition(". ")[0],
        REPLACE_LINES if REPLACE_LINES in problem else INSTALL_LINE,
        users,
    )


def _open_head() -> Finding:
    path, users = assets.open_head_path(), f"{HEAD_USERS}, make-demo-avatar"
    if path.is_file():
        return Finding(
            "head: open", "ok", f"{path} ({_short_hash(path)}, {path.stat().st_size / 2**20:.1f} MB)", "", users
        )
    return Finding("head: open", "missing", f"{path} is not there", INSTALL_AGAIN, users)


def _flame(flame_dir: Path | None) -> Iterator[Finding]:
    """FLAME's models and what lies beside them, found or not."""
    here = assets.asset_dir() / "flame"
    taken = _taken(flame_dir)
    beside: list[Path] = []
    for name, version in assets.FLAME_VERSIONS.items():
        subject = f"head: {name}"
        try:
            path = assets.find_head(name, flame_dir).path
        except InputError:
            mend = f"{assets.FLAME_SITE}: download '{version.download}', put {version.files[0]}.pkl into {here}"
            yield Finding(subject, "optional", f"{version.title} is not there", mend, HEAD_USERS)
            continue
        beside.append(path.parent)
        yield _flame_model(subject, version.title, path, needed=taken is not None and taken.path == path)
    folders = [*beside, *([flame_dir] if flame_dir is not None else [])]
    for subject, file, why, users, source in COMPANIONS:
        searched = folders or [folder for folder, _ in assets.flame_folders()]
        found = next((path for folder in searched for path in sorted(folder.glob(file)) if path.is_file()), None)
        if found is None:
            yield Finding(subject, "optional", f"{file} is not there ({why})", f"{source}, put it beside FLAME", users)
        else:
            yield _companion(subject, found, why, users)


def _flame_model(subject: str, title: str, path: Path, needed: bool) -> Finding:
    try:
        from flame_fitting.head.flame_files import read_flame

        data = read_flame(path)
    except InputError as error:
        mend = f"download it again from {assets.FLAME_SITE}, or move it away"
        return Finding(subject, "missing" if needed else "optional", str(error), mend, HEAD_USERS)
    except (ImportError, OSError) as error:
        return Finding(subject, "optional", f"{path} cannot be looked into ({error})", "", HEAD_USERS)
    counts = f"{len(data.v_template)} vertices, {data.shapedirs.shape[-1]} + {data.exprdirs.shape[-1]} components"
    return Finding(subject, "ok", f"{title}, {path} ({data.file_hash[:12]}; {counts})", "", HEAD_USERS)


def _companion(subject: str, path: Path, why: str, users: str) -> Finding:
    if path.name == assets.MASKS_FILE:
        try:
            from flame_fitting.head.flame_files import read_masks

            read_masks(path)
        except InputError as error:
            return Finding(subject, "missing", str(error), "download it again, or move it away", users)
        except (ImportError, OSError) as error:
            return Finding(subject, "optional", f"{path} cannot be looked into ({error})", "", users)
    return Finding(subject, "ok", f"{path} ({_short_hash(path)}; {why})", "", users)


def _taken(flame_dir: Path | None) -> assets.HeadFiles | None:
    try:
        return assets.find_head("auto", flame_dir)
    except InputError:
        return None


def _auto_head(flame_dir: Path | None) -> Finding:
    try:
        found = assets.find_head("auto", flame_dir)
    except InputError as error:
        return Finding("head taken", "missing", str(error), "mend the path, or give --head open", HEAD_USERS)
    return Finding("head taken", "ok", f"{found.name} ({found.why})", "", HEAD_USERS)


def _short_hash(path: Path) -> str:
    try:
        return sha256_of_file(path)[:12]
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _cache() -> Finding:
    folder = assets.cache_dir()
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if os.access(existing, os.W_OK):
        return Finding("cache", "ok", str(folder))
    return Finding("cache", "optional", f"{folder} is not writable", "export FLAME_FITTING_CACHE=/a/folder/of/yours")


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("doctor")
