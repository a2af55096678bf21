"""`checkpoint.safetensors`: a fit's state, whole, in one file that appears at once.

Tensors lie under `parameters/`, `uncertainty/`, `appearance/`, `stages/<name>/vertices_world` and, in the middle of a
stage, `underway/`; everything else is JSON in the file's own header, under `fit`. No pickle. A fit keeps one in its
folder, and one beside it while it runs.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, reason
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.scale import Scale
from flame_fitting.fit.state import APPEARANCE, FitState, StageRecord, Underway
from flame_fitting.head.model import HeadModel

CHECKPOINT_NAME = "checkpoint.safetensors"


@dataclass(eq=False)
class Checkpoint:
    """What the file holds."""

    state: FitState
    head_hash: str = ""
    """Which head model the parameters belong to."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of a finished fit, by part."""

    def check_head(self, path: Path, head: HeadModel) -> None:
        """Raises InputError where the parameters do not belong to a head model."""
        neutral = FitParameters.neutral(head, self.state.parameters.timesteps)
        if self.state.parameters.moves_vertices:
            neutral = neutral.with_dynamic_offset()
        sizes = {name: value.shape for name, value in neutral.items().items()}
        found = {name: value.shape for name, value in self.state.parameters.items().items()}
        if self.head_hash != head.file_hash or found != sizes:
            raise InputError(f"{path}: was saved with another head model than {head.name}. {_AGAIN}")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the file."""
    from safetensors.torch import save_file

    content, tensors = _split(checkpoint.state)
    content |= {"head": checkpoint.head_hash, "seconds": checkpoint.seconds}
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(content)
    with atomic_write(path) as temporary:
        save_file(plain, temporary, metadata={"fit": text, "sha256": _digest(text, plain)})


def _split(state: FitState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state as JSON and tensors."""
    tensors = {f"parameters/{name}": value for name, value in state.parameters.items().items()}
    tensors["reference_from_world"] = torch.as_tensor(state.reference_from_world)
    tensors |= {f"uncertainty/{name}": torch.as_tensor(value) for name, value in state.uncertainty.items()}
    appearance = {name: getattr(state, name) for name in APPEARANCE}
    tensors |= {f"appearance/{name}": value for name, value in appearance.items() if value is not None}
    for record in state.records:
        # double: the avatar's coordinates may lie far from their origin
        tensors[f"stages/{record.name}/vertices_world"] = torch.as_tensor(record.vertices_world, dtype=torch.float64)
    content: dict[str, Any] = {
        "stages": [_without_vertices(record) for record in state.records],
        "warnings": list(state.warnings),
        "scale": asdict(state.scale),
        "texture_is_final": state.texture_is_final,
    }
    underway = state.underway
    if underway is not None:
        tensors |= {f"underway/tensors/{name}": value for name, value in underway.tensors.items()}
        content["underway"] = {name: getattr(underway, name) for name in ("stage", "batch", "step", "numbers")}
        if underway.found is not None:
            # what it shares with the state itself is not written twice
            content["underway"]["found"], own = _split(replace(underway.found, records=(), warnings=()))
            tensors |= {f"underway/found/{name}": value.clone() for name, value in own.items()}
    return content, tensors


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads the file, onto the CPU. Raises InputError where it is damaged or something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text, digest = file.metadata()["fit"], file.metadata()["sha256"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
        if _digest(text, tensors) != digest:
            raise ValueError("its content is not what was written")
        content = json.loads(text)
        seconds = {str(name): float(value) for name, value in content["seconds"].items()}
        return Checkpoint(_joined(content, tensors), str(content["head"]), seconds)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}). {_AGAIN}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not what a fit writes ({reason(error)}). {_AGAIN}") from error


def _joined(content: dict[str, Any], tensors: dict[str, Tensor]) -> FitState:
    """Undoes `_split`."""
    # fits of before cameras were estimated know them, and older ones have no dynamic offsets
    none = torch.zeros(len(tensors["parameters/expr"]), 0, 3, dtype=torch.float64)
    older = {"parameters/log_focal": torch.zeros(1, dtype=torch.float64), "parameters/dynamic_offset": none}
    tensors = older | tensors
    parameters = {entry.name: tensors[f"parameters/{entry.name}"] for entry in fields(FitParameters)}
    records = []
    for record in content["stages"]:
        vertices = tensors[f"stages/{record['name']}/vertices_world"].numpy().astype(np.float64)
        records.append(StageRecord(**(record | {"vertices_world": vertices})))
    underway = content.get("underway")
    if underway is not None:
        found = underway.get("found")
        if found is not None:
            found = _joined(found, _below("underway/found/", tensors))
            found = replace(found, records=tuple(records), warnings=tuple(str(text) for text in content["warnings"]))
        own = _below("underway/tensors/", tensors)
        underway = Underway(**(underway | {"found": found, "tensors": own}))
    return FitState(
        FitParameters(**parameters),
        tensors["reference_from_world"].numpy().astype(np.float64),
        Scale(**content["scale"]),
        texture_is_final=bool(content["texture_is_final"]),
        uncertainty={name: value.numpy() for name, value in _below("uncertainty/", tensors).items()},
        records=tuple(records),
        warnings=tuple(str(text) for text in content["warnings"]),
        underway=underway,
        **{name: tensors.get(f"appearance/{name}") for name in APPEARANCE},
    )


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    out = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        out.update(name.encode())
        out.update(tensors[name].numpy().tobytes())
    return out.hexdigest()


def _without_vertices(record: StageRecord) -> dict[str, Any]:
    return {entry.name: getattr(record, entry.name) for entry in fields(record) if entry.name != "vertices_world"}


def remove_checkpoint(folder: Path) -> None:
    """Removes a folder that holds a checkpoint and its manifest, and nothing else."""
    from flame_fitting.manifest import MANIFEST_NAME

    for name in (CHECKPOINT_NAME, MANIFEST_NAME):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


_AGAIN = "Run again: flame-fitting fit"
