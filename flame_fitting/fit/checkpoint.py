"""`checkpoint.safetensors`: a fit's state, whole, in one file that appears at once.

Tensors lie under `parameters/`, `uncertainty/`, `appearance/`, `stages/<name>/parameters/` and, in the middle of a
stage, `underway/`; everything else is JSON in the file's own header, under `fit`. What is equal is written once, and
what is all zero not at all: the JSON says which (`equal`, `zero`). No pickle. A fit keeps one in its folder, and one
beside it while it runs.
"""

import hashlib
import json
from collections.abc import ItemsView
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
    plain, equal, zero = _written({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    content |= {"head": checkpoint.head_hash, "seconds": checkpoint.seconds, "equal": equal, "zero": zero}
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
        if record.parameters is not None:
            own = record.parameters.items()
            tensors |= {f"{_of_stage(record.name)}{name}": value for name, value in own.items()}
    content: dict[str, Any] = {
        "stages": [_as_json(record) for record in state.records],
        "warnings": list(state.warnings),
        "active": None if state.active is None else list(state.active),
        "scale": asdict(state.scale),
        "texture_is_final": state.texture_is_final,
    }
    underway = state.underway
    if underway is not None:
        tensors |= {f"underway/tensors/{name}": value for name, value in underway.tensors.items()}
        content["underway"] = {
            name: getattr(underway, name) for name in ("stage", "batch", "step", "numbers", "losses")
        }
        if underway.found is not None:
            content["underway"]["found"], own = _split(replace(underway.found, records=(), warnings=()))
            tensors |= {f"underway/found/{name}": value for name, value in own.items()}
    return content, tensors


def _written(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """What of tensors is written; the names of those equal to another one, and of that; dtype and shape of zeros.

    Bit by bit: a zero with a sign is none.
    """
    own: dict[str, Tensor] = {}
    equal: dict[str, str] = {}
    zero: dict[str, Any] = {}
    first: dict[Any, str] = {}
    for name, value in tensors.items():
        kind, content = [str(value.dtype).removeprefix("torch."), list(value.shape)], value.numpy().reshape(-1)
        if not content.view(np.uint8).any():
            zero[name] = kind
            continue
        found = first.setdefault((*map(str, kind), hashlib.sha256(content.tobytes()).digest()), name)
        if found == name:
            own[name] = value
        else:
            equal[name] = found
    return own, equal, zero


def _whole(tensors: dict[str, Tensor], content: dict[str, Any]) -> dict[str, Tensor]:
    """Undoes `_written`; what is equal shares its memory."""
    zero = {name: torch.zeros(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in _said("zero", content)}
    return tensors | zero | {name: tensors[other] for name, other in _said("equal", content)}


def _said(key: str, content: dict[str, Any]) -> ItemsView[str, Any]:
    """Of the JSON; older files have neither."""
    said: dict[str, Any] = content.get(key, {})
    return said.items()


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
        return Checkpoint(_joined(content, _whole(tensors, content)), str(content["head"]), seconds)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}). {_AGAIN}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not what a fit writes ({reason(error)}). {_AGAIN}") from error


def _joined(content: dict[str, Any], tensors: dict[str, Tensor]) -> FitState:
    """Undoes `_split`."""
    # fits of before cameras were estimated know them, and older ones have no dynamic offsets
    none = torch.zeros(len(tensors["parameters/expr"]), 0, 3, dtype=torch.float64)
    older = {"parameters/log_focal": torch.zeros(1, dtype=torch.float64), "parameters/dynamic_offset": none}
    open_eyes = {"eyelids": none[..., 0]}  # older ones have none either
    tensors = older | {f"parameters/{name}": value for name, value in open_eyes.items()} | tensors
    reference = tensors["reference_from_world"].numpy().astype(np.float64)
    records = []
    for record in content["stages"]:
        own = _below(_of_stage(record["name"]), tensors)  # older fits have the stage's vertices in place of these
        moved = FitParameters(**open_eyes | own) if own else None
        record |= {"losses": _points(record.get("losses", []))}
        records.append(StageRecord(**record, parameters=moved, reference_from_world=reference))
    active = content.get("active")
    underway = content.get("underway")
    if underway is not None:
        found = underway.get("found")
        if found is not None:
            found = _joined(found, _below("underway/found/", tensors))
            found = replace(found, records=tuple(records), warnings=tuple(str(text) for text in content["warnings"]))
        own = _below("underway/tensors/", tensors)
        losses = _points(underway.get("losses", []))
        underway = Underway(**(underway | {"found": found, "tensors": own, "losses": losses}))
    return FitState(
        FitParameters(**_below("parameters/", tensors)),
        reference,
        Scale(**content["scale"]),
        texture_is_final=bool(content["texture_is_final"]),
        uncertainty={name: value.numpy() for name, value in _below("uncertainty/", tensors).items()},
        records=tuple(records),
        warnings=tuple(str(text) for text in content["warnings"]),
        active=None if active is None else tuple(str(text) for text in active),
        underway=underway,
        **{name: tensors.get(f"appearance/{name}") for name in APPEARANCE},
    )


def _points(losses: list[Any]) -> list[tuple[int, float]]:
    """Of a loss curve, as JSON has them."""
    return [(int(step), float(loss)) for step, loss in losses]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    out = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        out.update(name.encode())
        out.update(tensors[name].numpy().tobytes())
    return out.hexdigest()


def _of_stage(name: str) -> str:
    return f"stages/{name}/parameters/"


def _as_json(record: StageRecord) -> dict[str, Any]:
    """What of it is no tensor; where the world is, it shares with its state."""
    tensors = ("parameters", "reference_from_world")
    return {entry.name: getattr(record, entry.name) for entry in fields(record) if entry.name not in tensors}


def remove_checkpoint(folder: Path) -> None:
    """Removes a folder that holds a checkpoint and its manifest, and nothing else."""
    from flame_fitting.manifest import MANIFEST_NAME

    for name in (CHECKPOINT_NAME, MANIFEST_NAME):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


_AGAIN = "Run again: flame-fitting fit"
