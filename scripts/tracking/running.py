"""Tracks one sequence in a process of its own, so that its memory is its own.

python -m scripts.tracking.running JOB.json
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_fitting.files import atomic_write

if TYPE_CHECKING:
    from flame_fitting.fit.track_config import TrackConfig

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Job:
    """One track of a sequence."""

    sequence: str
    """Folder that `making.made` gave."""
    head: str
    preset: str
    landmarks: str = "noisy"
    photometric: bool = True
    device: str = "auto"

    @property
    def folder(self) -> Path:
        """Of the fit."""
        by = "" if self.photometric else "_landmarks_only"
        return Path(self.sequence) / "tracks" / f"{self.preset}_{self.landmarks}{by}_{self.device}"


def tracked(job: Job) -> dict[str, Any]:
    """What a track cost; tracked now unless this program has done just that before. `error` says why there is none."""
    record, program = job.folder / "bench.json", program_hash()
    wanted = json.loads(json.dumps(asdict(job))) | {"program": program}
    if record.is_file():
        found = json.loads(record.read_text())
        if found.get("job") == wanted and "error" not in found:
            return found
    job.folder.mkdir(parents=True, exist_ok=True)
    given, log = job.folder / "job.json", job.folder / "bench.log"
    given.write_text(json.dumps(wanted))
    record.unlink(missing_ok=True)
    command = [sys.executable, "-m", "scripts.tracking.running", str(given)]
    with log.open("w") as stream:
        code = subprocess.run(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    if code or not record.is_file():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return {"job": wanted, "error": f"{lines[-1] if lines else f'exit code {code}'} ({log})"}
    return json.loads(record.read_text())


def program_hash() -> str:
    """Of all Python files that a track comes from: another program's tracks are not taken for this one's."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "flame_fitting").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def config_of(job: Job) -> "TrackConfig":
    """The options of a track."""
    from flame_fitting.fit.track_config import track_preset

    from .cases import head_named

    sequence, head = Path(job.sequence) / "sequence", head_named(job.head)
    config = track_preset(job.preset, sequence, monocular=not (sequence / "transforms.json").is_file())
    config.output, config.head, config.landmark_embedding = fit_folder(job), head.spec, head.embedding
    config.device, config.force = job.device, True
    config.data.landmark_source = (job.landmarks,)
    config.exp.photometric = job.photometric
    config.log.overlays = config.log.tensorboard = False
    return config


def fit_folder(job: Job) -> Path:
    """Where the fit itself is written."""
    return job.folder / "fit"


def run(path: Path) -> None:
    """Tracks what a file says and writes `bench.json` beside the fit."""
    import time

    wanted = json.loads(path.read_text())
    job = Job(**{key: value for key, value in wanted.items() if key != "program"})
    config = config_of(job)
    from flame_fitting.fit_avatar import fit

    started = time.perf_counter()
    found = fit(config, evaluate=False)
    wall = time.perf_counter() - started
    record = {
        "job": wanted,
        "seconds": costs(config, found.seconds, len(found.timestep_id)) | {"with_files": wall},
        "memory": memory(),
        "warnings": found.warnings,
    }
    with atomic_write(job.folder / "bench.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))


def costs(config: "TrackConfig", seconds: dict[str, float], timesteps: int) -> dict[str, float]:
    """Seconds of the fit by kind, from those of its stages.

    `start`: all before timesteps are taken one after the other or in epochs (VHAP's first timestep). `later`: one
    timestep of sequential stages. `epoch`: one of global stages that have epochs. `all`: from the folder to the result.
    """
    from flame_fitting.fit.schedule import effective_pipeline

    stages = dict(effective_pipeline(config, has_geometry=False, timesteps=timesteps))
    ran = {name: stage for name, stage in stages.items() if name in seconds}
    sequential = [name for name, stage in ran.items() if stage.frames == "sequential"]
    epochs = [name for name, stage in ran.items() if stage.frames == "global" and stage.num_epochs > 0]
    out = {"start": sum(seconds[name] for name in ran if name not in (*sequential, *epochs)), "all": seconds["fit"]}
    if sequential:
        out["later"] = sum(seconds[name] for name in sequential) / (timesteps * len(sequential))
    if epochs:
        out["epoch"] = sum(seconds[name] for name in epochs) / sum(ran[name].num_epochs for name in epochs)
    return out


def memory() -> dict[str, float]:
    """Peaks of this process, GiB: `host`, and `device` where it used a GPU."""
    import resource

    import torch

    per_unit = 1 if sys.platform == "darwin" else 1024
    out = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * per_unit / 2**30}
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        out["device"] = torch.cuda.max_memory_reserved() / 2**30
    return out


if __name__ == "__main__":
    os.chdir(ROOT)
    run(Path(sys.argv[1]))
