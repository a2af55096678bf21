#!/usr/bin/env python3
"""Makes asset/open_head/action_scores_<detector>.npz: how a detector's expression scores tell facial actions.

python scripts/calibrate_actions.py [--jobs 2] [--samples FOLDER]
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from flame_fitting import assets
from flame_fitting.avatar.action_pictures import ActionPictures, sample_actions
from flame_fitting.avatar.head_calibration import landmark_embedding
from flame_fitting.files import atomic_write
from flame_fitting.head.actions import actions_of
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.action_scores import ActionSamples, fit_action_scores
from flame_fitting.landmarks.registry import make_detector


def counted(rows: Sequence, label: str) -> Iterator:
    """The rows, with a line now and then."""
    start = time.monotonic()
    for number, row in enumerate(rows, start=1):
        yield row
        if number % 40 == 0 or number == len(rows):
            print(f"  {label}: {number} of {len(rows)}, {time.monotonic() - start:.0f} s", flush=True)


def part(config: ActionPictures, folder: Path | None) -> ActionSamples:
    """Samples of one part; those of the folder where they are there."""
    path = None if folder is None else folder / f"part_{config.seed}.npz"
    if path is not None and path.is_file():
        with np.load(path) as data:
            names, scores = (tuple(str(name) for name in data[key]) for key in ("actions", "scores"))
            return ActionSamples(names, scores, data["amounts"], data["odds"], data["identity"])
    head, detector = load_head("open"), make_detector("mediapipe")
    actions, embedding = actions_of(head), landmark_embedding(head, detector, "lit", notify=print)
    assert actions is not None
    found = sample_actions(head, actions, detector, embedding, config, partial(counted, label=str(config.seed)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **found.__dict__)
    return found


def main() -> None:
    defaults = ActionPictures()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=16, help="groups of identities, each with paints of its own")
    parser.add_argument("--identities", type=int, default=defaults.identities, help="of each part")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--samples", type=Path, default=None, help="folder for what was detected; it is used again")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    detector = make_detector("mediapipe")
    configs = [
        replace(defaults, identities=arguments.identities, seed=defaults.seed + number)
        for number in range(arguments.parts)
    ]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(partial(part, folder=arguments.samples), configs))
    samples = ActionSamples(
        parts[0].actions,
        parts[0].scores,
        np.concatenate([one.amounts for one in parts]),
        np.concatenate([one.odds for one in parts]),
        np.concatenate([1000 * number + one.identity for number, one in enumerate(parts)]),
    )
    found = fit_action_scores(samples, detector.name, detector.version)
    output = arguments.output or assets.shipped_action_scores_path(detector.name)
    found.save(output)
    print(f"{output}: {len(samples.odds)} faces, {output.stat().st_size / 1e3:.0f} kB")
    precision = np.linalg.inv(found.covariance)
    for name, slope in zip(found.actions, found.slopes, strict=True):
        if slope.any():
            print(f"  {name:<22} an amount is told to {1 / np.sqrt(slope @ precision @ slope):.2f}")


if __name__ == "__main__":
    main()
