#!/usr/bin/env python3
"""Trains the network that looks at eyes (asset/open_head/eyes.npz), on pictures of the open head's eyes.

python scripts/train_eyes.py --work FOLDER --processes 15 --device cuda

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
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flame_fitting.avatar.evidence_pictures import EvidencePictures
from flame_fitting.avatar.eye_pictures import EyeErrors, eye_errors, eye_views
from flame_fitting.avatar.head_calibration import shipped_embedding
from flame_fitting.files import atomic_write
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.evidence_features import EvidenceGeometry
from flame_fitting.landmarks.eye_network import EyeNetwork, EyeViews
from flame_fitting.landmarks.eyes import INNER, IRIS, LOWER, OUTER, PATCH, UPPER, WIDTH, network_path
from flame_fitting.landmarks.registry import make_detector

_BATCH = 192
"""Pictures of both eyes."""
_HELD_OUT = 2
"""Parts, the first ones, that nothing is learned of."""
_CORNER_NOISE = 0.03
"""Of corners that were found by a first look, in their distance."""
_HIDDEN_MM = 1.5
"""Lid gap below which an iris is not seen, so that nothing is learned of it."""
_OPEN_MM = 4.0
_SHOWN = 240
"""Heads in two expressions and two views each, by which the detector's errors are known."""
_LEAST = 8.0
"""Distance of an eye's corners, px, from which on anything is learned of it."""
_RATE = 2e-3
_KEPT = 0.998
"""Of the mean of weights, each step."""


class Shown:
    """Views as they are shown to the network: patches whose corners, lights, lashes and sharpness differ each time."""

    def __init__(self, errors: EyeErrors, device: str) -> None:
        self.device, self.count = device, 0
        self.arrays: dict[str, Tensor] = {}
        as_is, mirrored = errors, errors.mirrored()
        both = {f.name: np.concatenate([getattr(as_is, f.name), getattr(mirrored, f.name)]) for f in fields(EyeErrors)}
        self.errors = {name: torch.from_numpy(value).float().to(device) for name, value in both.items()}

    def add(self, views: EyeViews) -> None:
        """More of them; room is doubled where it ends."""
        more = len(views.images)
        for f in fields(EyeViews):
            value = torch.from_numpy(np.ascontiguousarray(getattr(views, f.name)))
            have = self.arrays.get(f.name)
            if have is None or self.count + more > len(have):
                room = torch.empty(max(2 * (self.count + more), 4096), *value.shape[1:], dtype=value.dtype)
                room = room.to(self.device)
                if have is not None:
                    room[: self.count] = have[: self.count]
                self.arrays[f.name] = have = room
            have[self.count : self.count + more] = value.to(self.device)
        self.count += more

    def batch(self, rows: Tensor, random: torch.Generator, plain: bool = False) -> dict[str, Tensor]:
        """Patches (B, 2, 3, h, w) in 0..255, the head's turn as the detector would tell it, and what is true: places
        (B, 2, P, 2) in distances of the corners, gaze, eyeball and gaps. `plain`: corners as of the detector alone."""
        device, count = self.device, 2 * len(rows)
        own = {name: value[rows] for name, value in self.arrays.items()}

        def normal(*shape: int) -> Tensor:
            return torch.randn(count, *shape, generator=random, device=device)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=random, device=device)

        # what the detector was wrong by on one of the heads that were seen from about there
        away = torch.cdist(own["turn"], self.errors["turn"])
        near = away.topk(min(16, away.shape[1]), largest=False).indices
        one = near.gather(1, torch.randint(near.shape[1], (len(rows), 1), generator=random, device=device))[:, 0]
        turn = own["turn"] + self.errors["turn_error"][one] + 0.01 * normal(2)[: len(rows)]
        wrong = self.errors["corners"][one].flatten(0, 1)
        places = own["places"].flatten(0, 1)
        corners = places[:, [OUTER, INNER]]
        width, axes = (corners[:, 1] - corners[:, 0]).norm(dim=1), _axes(corners)
        again = (uniform(0, 1, 1, 1) < (0.0 if plain else 0.6)).float()
        wrong = (1 - again) * (wrong + 0.01 * normal(2, 2)) + again * _CORNER_NOISE * uniform(0.1, 1.2, 1, 1) * normal(
            2, 2
        )
        given = corners + wrong @ axes.mT
        axes, middle = _axes(given), given.mean(1, keepdim=True)
        told = (places - middle) @ axes / (axes[:, :, :1] ** 2).sum(1, keepdim=True)
        # in the patch: along and down, in distances of the corners
        y, x = torch.meshgrid(
            *((torch.arange(n, device=device) + 0.5 - n / 2) / WIDTH for n in PATCH[::-1]), indexing="ij"
        )
        grid = torch.stack([x, -y], -1).reshape(1, -1, 2)
        at = (middle + grid @ axes.mT).reshape(count, PATCH[1], PATCH[0], 2)
        image = own["images"].flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        size = torch.tensor([image.shape[3], image.shape[2]], device=device)
        out = torch.nn.functional.grid_sample(image, 2 * at / size - 1, padding_mode="border", align_corners=False)
        spot = grid.reshape(1, PATCH[1], PATCH[0], 2)
        gaps = own["gaps"].flatten(0, 1)
        out = _lashes(out, spot, told, uniform)
        out = _specular(out, spot, told, gaps[:, 2] >= _HIDDEN_MM, normal, uniform)
        out = 255 * _camera(out, x, y, normal, uniform)
        # now and then only one eye of a face is seen
        gone = (uniform(0, 1, 1, 1, 1) < 0.03).reshape(-1, 2, 1, 1, 1)
        gone[:, 1] &= ~gone[:, 0]
        patches = out.reshape(-1, 2, *out.shape[1:]) * ~gone
        return {
            "patches": patches,
            "turn": turn,
            "places": told.reshape(-1, 2, *told.shape[1:]),
            "gaze": own["gaze"],
            "ball": own["ball"],
            "gaps": own["gaps"],
            # an eye that is turned away says nothing
            "seen": ~gone[:, :, 0, 0, 0] & (width >= _LEAST).reshape(-1, 2),
            "width": width.reshape(-1, 2),
        }


def _axes(corners: Tensor) -> Tensor:
    """(B, 2, 2) as of `eyes.frame_of`: along and up, as columns."""
    along = corners[:, 1] - corners[:, 0]
    # corners of an eye seen from far aside fall together
    length = along.norm(dim=1, keepdim=True)
    along = torch.where(length > 0.5 * _LEAST, along, torch.tensor([0.5 * _LEAST, 0.0], device=along.device))
    return torch.stack([along, torch.stack([along[:, 1], -along[:, 0]], 1)], 2)


def _lashes(out: Tensor, spot: Tensor, told: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """A dark line along the upper lid, which the head model has none of."""
    line = told[:, [OUTER, 0, 1, 2, 3, 4, INNER]] + uniform(-0.01, 0.05, 1, 1) * torch.tensor([0.0, 1.0]).to(told)
    begin, step = line[:, :-1, None, None], (line[:, 1:] - line[:, :-1])[:, :, None, None]
    away = spot[:, None] - begin
    share = ((away * step).sum(-1) / (step**2).sum(-1).clamp_min(1e-6)).clamp(0, 1)
    distance = (away - share[..., None] * step).norm(dim=-1).amin(1)
    cover = torch.exp(-((distance / uniform(0.01, 0.05, 1, 1)) ** 2)) * (uniform(-0.4, 0.95, 1, 1)).clamp_min(0)
    return out * (1 - cover[:, None]) + cover[:, None] * uniform(0.02, 0.2, 1, 1, 1)


def _specular(
    out: Tensor, spot: Tensor, told: Tensor, seen: Tensor, normal: Callable[..., Tensor], uniform: Callable[..., Tensor]
) -> Tensor:
    """Lights that a wet eye mirrors."""
    for _ in range(2):
        at = told[:, IRIS] + 0.1 * normal(2)
        inside = (at[:, 1] < told[:, UPPER, 1].amax(1)) & (at[:, 1] > told[:, LOWER, 1].amin(1)) & seen
        blob = torch.exp(-(((spot - at[:, None, None]) / uniform(0.015, 0.06, 1, 1, 1)) ** 2).sum(-1) / 2)
        blob = blob * (inside[:, None, None] * uniform(-0.6, 1.0, 1, 1)).clamp_min(0)
        out = out + blob[:, None] * (1 - out)
    return out


def _camera(out: Tensor, x: Tensor, y: Tensor, normal: Callable[..., Tensor], uniform: Callable[..., Tensor]) -> Tensor:
    """Light from a side, contrast, colour, blur and noise: of two pictures in five only a little."""
    much = torch.where(uniform(0, 1, 1, 1, 1) < 0.4, 0.25, 1.0)
    slope = 0.25 * much[..., 0] * normal(2, 1, 1)[..., 0]
    light = (1 + slope[:, :1, None] * x + 1.5 * slope[:, 1:, None] * y).clamp(0.3, 1.8)
    out = (out * light).clamp(1e-3, 1) ** torch.exp(0.3 * much * normal(1, 1, 1))
    gray = out.mean(1, keepdim=True)
    out = gray + (out - gray) * (1 + much * uniform(-1, 0.5, 1, 1, 1))
    out = out * torch.exp(0.1 * much * normal(3, 1, 1)) * (1 + much * uniform(-0.6, 0.2, 1, 1, 1))
    out = out + much * uniform(0, 0.15, 1, 1, 1)
    sigma = (much.reshape(-1, 1) * uniform(-1.5, 1.8, 1)).clamp_min(0.05)
    reach = torch.arange(-5, 6, device=out.device)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    flat = torch.nn.functional.pad(out.reshape(1, -1, *out.shape[2:]), (5, 5, 5, 5), mode="replicate")
    flat = torch.nn.functional.conv2d(flat, kernel[:, :, None, :], groups=len(kernel))
    out = torch.nn.functional.conv2d(flat, kernel[..., None], groups=len(kernel)).reshape(out.shape)
    return (out + uniform(-0.01, 0.03, 1, 1, 1).clamp_min(0) * normal(*out.shape[1:])).clamp(0, 1)


def loss_of(network: EyeNetwork, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of what is wrong by, and its parts; small errors count by their square, large ones linearly."""
    places, shown, gaze, ball = network(batch["patches"], batch["turn"])
    seen = batch["seen"][..., None].float()
    iris = seen[..., 0] * (batch["gaps"][..., 2] >= _HIDDEN_MM).float()
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
        seen = (batch["gaps"][..., 2] >= _OPEN_MM) & batch["seen"]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the pictures of eyes")
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
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    output = arguments.output or network_path()
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


if __name__ == "__main__":
    main()
