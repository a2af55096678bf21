#!/usr/bin/env python3
"""Trains the network that looks at eyes (asset/open_head/eyes.npz), on pictures of the open head's eyes.

python scripts/train_eyes.py --work FOLDER --processes 15 --device cuda --ship
python scripts/train_eyes.py --trained EYES.npz        # only ships weights that were trained elsewhere

First the detector is shown heads, so that its errors are known (minutes on a CPU; --errors FILE.npz keeps them).
Pictures of eyes are then drawn by other processes until --draw seconds are over, and learned from as they come; what
--work holds already is used again. The step falls to nothing until --seconds are over, so training always ends then.
"""

import argparse
import copy
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from eye_training.showing import HIDDEN_MM, Shown
from torch import Tensor

from flame_fitting import assets
from flame_fitting.avatar.evidence_pictures import EvidencePictures
from flame_fitting.avatar.eye_pictures import EyeErrors, eye_errors, eye_views
from flame_fitting.avatar.head_calibration import KINDS, shipped_embedding
from flame_fitting.files import atomic_write
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.evidence_features import EvidenceGeometry
from flame_fitting.landmarks.evidence_fit import OPEN_MM
from flame_fitting.landmarks.eye_network import EyeNetwork, EyeViews
from flame_fitting.landmarks.eyes import INNER, IRIS, LOWER, OUTER, UPPER, network_path
from flame_fitting.landmarks.registry import make_detector

_BATCH = 192
"""Pictures of both eyes."""
_HELD_OUT = 2
"""Parts, the first ones, that nothing is learned of."""
_SHOWN = 240
"""Heads in two expressions and two views each, by which the detector's errors are known."""
_RATE = 2e-3
_KEPT = 0.998
"""Of the mean of weights, each step."""


def loss_of(network: EyeNetwork, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of what is wrong by, and its parts; small errors count by their square, large ones linearly."""
    places, shown, gaze, ball = network(batch["patches"], batch["turn"])
    seen = batch["seen"][..., None].float()
    iris = seen[..., 0] * (batch["gaps"][..., 2] >= HIDDEN_MM).float()
    weight = seen[..., None].expand(places.shape).clone()
    weight[:, :, IRIS] = 3 * iris[..., None]

    def huber(found: Tensor, true: Tensor, beta: float) -> Tensor:
        return torch.nn.functional.smooth_l1_loss(found, true, reduction="none", beta=beta)

    parts = {
        "places": (weight * huber(places, batch["places"], 0.02)).mean(),
        "shown": 0.5 * (weight * huber(shown, batch["places"], 0.02)).mean(),
        "gaze": 0.5 * (iris[..., None] * huber(gaze, batch["gaze"], 0.03)).mean(),
        "ball": 0.05 * (seen * huber(ball, batch["ball"] / 10, 0.03)).mean(),
    }
    return sum(parts.values()), parts  # type: ignore[return-value]


@torch.no_grad()
def held_out(network: EyeNetwork, shown: Shown, seed: int = 0) -> str:
    """Median errors on heads that nothing was learned of, as seen through the detector's corners."""
    network.eval()
    random = torch.Generator(device=shown.device).manual_seed(seed)
    rows = torch.arange(shown.count, device=shown.device)
    found: dict[str, list[Tensor]] = {}
    for part in rows.split(_BATCH):
        batch = shown.batch(part, random, plain=True)
        places, _, gaze, ball = network(batch["patches"], batch["turn"])
        mm = 28 * (places - batch["places"]).abs()
        seen = (batch["gaps"][..., 2] >= OPEN_MM) & batch["seen"]
        seen &= batch["width"] >= 20
        off = torch.rad2deg(gaze - batch["gaze"]).abs()[seen]
        values = {"yaw": off[:, 0], "pitch": off[:, 1], "angle": off.norm(dim=1)}
        for name, at in (("iris", IRIS), ("outer", OUTER), ("inner", INNER)):
            values[f"{name} along"], values[f"{name} up"] = mm[seen][:, at].unbind(1)
        values["lids"] = mm[seen][:, :10, 1].flatten()
        values["gap"] = (
            ((mm := 28 * (places - batch["places"]))[..., UPPER, 1] - mm[..., LOWER, 1]).abs()[seen].flatten()
        )
        values["ball x"], values["ball y"], values["ball z"] = (10 * ball - batch["ball"]).abs()[seen].unbind(1)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return ", ".join(f"{name} {torch.cat(value).median():.2f}" for name, value in found.items())


def train(
    shown: Shown, tested: Shown, more: Callable[[], None], network: EyeNetwork, until: float, seed: int, path: Path
) -> EyeNetwork:
    """AdamW with a step that falls as time passes; the mean of the last steps' weights is kept."""
    device, begin = shown.device, time.monotonic()
    torch.backends.cudnn.benchmark = True
    random = torch.Generator(device=device).manual_seed(seed)
    network = network.to(device, memory_format=torch.channels_last)
    kept = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=2e-2, fused=device != "cpu")
    step, total, said, saved = 0, 0.0, begin, begin
    sums: dict[str, Tensor] = {}
    while (now := time.monotonic()) < until:
        share = (now - begin) / (until - begin)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, step / 200 + 0.01) * 0.5 * (1 + np.cos(np.pi * share))
        if step % 20 == 0:
            more()
        network.train()
        rows = torch.randint(shown.count, (min(_BATCH, shown.count),), generator=random, device=device)
        batch = shown.batch(rows, random)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            loss, parts = loss_of(network, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            keep = min(_KEPT, step / (step + 10))
            new = network.state_dict()
            for name, value in kept.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(new[name], 1 - keep)
        for name, value in parts.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
        total += 1
        if now - said > 10:
            text = ", ".join(f"{name} {1000 * float(value) / total:.2f}" for name, value in sums.items())
            print(f"{now - begin:.0f} s, step {step}, {shown.count} views, lr {group['lr']:.1e}: {text}", flush=True)
            sums, total, said = {}, 0.0, now
        if now - saved > 30:
            saved = now
            copy.deepcopy(kept).cpu().save(path)
            print("  held out:", held_out(kept, tested), flush=True)
    print(f"{step} steps; held out:", held_out(kept, tested), flush=True)
    return kept.cpu().eval()


def open_head() -> tuple[HeadModel, LandmarkEmbedding]:
    """The model that is drawn, and where the detector's points lie on it."""
    head = load_head("open")
    embedding = shipped_embedding(head, "mediapipe", "lit")
    assert embedding is not None
    return head, embedding


def errors_of(head: HeadModel, embedding: LandmarkEmbedding, network: EyeNetwork, path: Path) -> EyeErrors:
    """What the detector is wrong by on `_SHOWN` heads; kept in a file."""
    if not path.is_file():
        print("showing heads to the detector", flush=True)
        config = EvidencePictures(identities=_SHOWN, expressions=2, views=2, paints=20, plain_paints=10, seed=301)
        eye_errors(head, make_detector("mediapipe"), embedding, network, config).save(path)
    return EyeErrors.load(path)


def draw_parts(folder: Path, worker: int, processes: int, until: float, heads: int) -> None:
    """Draws part after part, each with heads of its own, until time (seconds since 1970) is over."""
    torch.set_num_threads(1)
    head, embedding = open_head()
    number = worker
    while time.time() < until:
        path = folder / f"eyes_{number:05d}.npz"
        number += processes
        if path.is_file():
            continue
        config = EvidencePictures(
            identities=heads, expressions=1, views=8, paints=4, plain_paints=4, seed=1000 + number, gaze=(28.0, 18.0),
            shape_sigma=1.0, expr_sigma=0.6, yaw=55.0,
        )  # fmt: skip
        views = eye_views(head, embedding, config)
        with atomic_write(path) as temporary:
            np.savez(temporary, **{f.name: getattr(views, f.name) for f in fields(EyeViews)})


def ship(network: EyeNetwork) -> None:
    """Puts the network among the files that come with the program.

    The detector's version covers it. Points do not depend on it, so the shipped embeddings only get the new version.
    """
    network.save(network_path())
    version = make_detector("mediapipe").version
    for kind in KINDS:
        path = assets.shipped_embedding_path("mediapipe", kind)
        embedding = LandmarkEmbedding.load(path)
        if embedding.detector_version.split("-")[:4] != version.split("-")[:4]:
            raise SystemExit(f"{path}: of other weights of MediaPipe. Make it again: scripts/calibrate_landmarks.py")
        replace(embedding, detector_version=version).save(path)
    print(f"{network_path()}: shipped as {version}; now run scripts/calibrate_evidence.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="folder for the pictures of eyes")
    parser.add_argument(
        "--errors", type=Path, default=None, help="what the detector is wrong by; made where it is missing"
    )
    parser.add_argument(
        "--draw", type=float, default=150.0, help="seconds, from the start, in which pictures are drawn"
    )
    parser.add_argument("--seconds", type=float, default=225.0, help="from the start, until training ends")
    parser.add_argument("--heads", type=int, default=16, help="of a part")
    parser.add_argument("--first", type=int, default=8, help="parts that are there before training begins")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=None, help="in --work where none is given")
    parser.add_argument("--ship", action="store_true", help="put the weights among the shipped files")
    parser.add_argument("--trained", type=Path, default=None, help="weights that are only shipped, not trained")
    arguments = parser.parse_args()
    if arguments.trained is not None:
        return ship(EyeNetwork.load(arguments.trained))
    if arguments.work is None:
        parser.error("--work is needed to train")
    output = arguments.output or arguments.work / "eyes.npz"
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    head, embedding = open_head()
    geometry = EvidenceGeometry(head, embedding)
    network = EyeNetwork()
    network.set_head(geometry.points, geometry.rigid)
    errors = errors_of(head, embedding, network, arguments.errors or arguments.work / "errors.npz")
    begin = time.monotonic()
    context = multiprocessing.get_context("spawn")
    until = time.time() + arguments.draw
    workers = [
        context.Process(
            target=draw_parts, args=(arguments.work, k, arguments.processes, until, arguments.heads), daemon=True
        )
        for k in range(arguments.processes)
    ]
    for worker in workers:
        worker.start()
    shown, tested = Shown(errors, arguments.device), Shown(errors, arguments.device)
    taken: set[str] = set()

    def more() -> None:
        for path in sorted(arguments.work.glob("eyes_*.npz")):
            if path.name not in taken:
                taken.add(path.name)
                with np.load(path) as arrays:
                    views = EyeViews(**arrays)
                (tested if int(path.stem.split("_")[1]) < _HELD_OUT else shown).add(views)

    first = min(arguments.first, arguments.processes + _HELD_OUT)
    while len(taken) < first or not shown.count or not tested.count:
        time.sleep(0.5)
        more()
        if not any(worker.is_alive() for worker in workers):
            if not (shown.count and tested.count):
                raise SystemExit(f"too few pictures were drawn into {arguments.work}")
            break
    print(f"{time.monotonic() - begin:.0f} s: {shown.count} views to begin with", flush=True)
    found = train(shown, tested, more, network, begin + arguments.seconds, arguments.seed, output)
    found.save(output)
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB; {shown.count} views; {time.monotonic() - begin:.0f} s")
    if arguments.ship:
        ship(found)


if __name__ == "__main__":
    main()
