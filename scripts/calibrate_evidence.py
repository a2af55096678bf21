#!/usr/bin/env python3
"""Makes the calibration of evidence (lid gaps, lip gaps, gaze) of a head model, on its own pictures.

python scripts/calibrate_evidence.py                        # the open head, into asset/open_head/
python scripts/calibrate_evidence.py --head MODEL.npz --output FILE.npz
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from flame_fitting import assets
from flame_fitting.avatar.evidence_pictures import EvidencePictures, sample
from flame_fitting.avatar.head_calibration import landmark_embedding
from flame_fitting.files import atomic_write
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.evidence import calibrate_evidence
from flame_fitting.landmarks.evidence_features import EvidenceGeometry
from flame_fitting.landmarks.evidence_fit import QUANTITIES, YAW_BINS, Samples, split_quantities, together
from flame_fitting.landmarks.registry import make_detector


def counted(rows: Sequence) -> Iterator:
    """The rows, with a line now and then."""
    start = time.monotonic()
    for number, row in enumerate(rows, start=1):
        yield row
        if number % 20 == 0 or number == len(rows):
            print(f"  {number} of {len(rows)}, {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    defaults = EvidencePictures()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", default="open", help="open, or the path of a FLAME-format file")
    parser.add_argument("--identities", type=int, default=defaults.identities)
    parser.add_argument("--expressions", type=int, default=defaults.expressions, help="of each identity")
    parser.add_argument("--views", type=int, default=defaults.views, help="of each expression")
    parser.add_argument("--size", type=int, default=defaults.size, help="side of a picture, px")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--parts", type=int, default=20, help="groups of identities, each with paints of its own")
    parser.add_argument(
        "--samples", type=Path, default=None, help="folder for what was detected, a file a part; they are used again"
    )
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    detector = make_detector("mediapipe")
    if arguments.output is None:
        if arguments.head != "open":
            parser.error("--output is needed for another head than the open one")
        arguments.output = assets.shipped_evidence_path(detector.name)

    head = load_head(arguments.head)
    embedding = landmark_embedding(head, detector, "lit", notify=print)
    print(
        f"{arguments.parts} parts of {arguments.identities} identities, {arguments.expressions} expressions,",
        f"{arguments.views} views of {arguments.size} px",
    )
    parts = []
    for number in range(arguments.parts):
        config = EvidencePictures(
            identities=arguments.identities,
            expressions=arguments.expressions,
            views=arguments.views,
            size=arguments.size,
            seed=arguments.seed + number,
        )
        path = None if arguments.samples is None else arguments.samples / f"part_{config.seed}.npz"
        if path is not None and path.is_file():
            parts.append(Samples(**np.load(path)))
            continue
        parts.append(sample(head, detector, embedding, config, counted))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                np.savez_compressed(temporary, **parts[-1].__dict__)
    samples = together(parts)
    geometry = EvidenceGeometry(head, embedding)
    found = calibrate_evidence(samples, geometry, detector.name, detector.version, head.file_hash)
    found.save(arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e3:.0f} kB")
    print(f"{'':<18}{'in pictures':>12}{'shared by':>11}{'of each picture, at yaw':>30}")
    print(f"{'':<18}{'std':>12}{'a person':>11}" + "".join(f"{yaw:>9.0f}°" for yaw in YAW_BINS))
    right, _, mouth = split_quantities(samples.truth.std(0))
    names = [*(f"lid gap {k} (mm)" for k in range(5)), "gaze yaw (deg)", "gaze pitch (deg)", *QUANTITIES[10:13]]
    rows = [*zip(found.eye.shared_std, found.eye.own_std.T, np.abs(right), strict=True)]
    rows += [*zip(found.mouth.shared_std, found.mouth.own_std.T, mouth, strict=True)]
    for name, (shared, own, spread) in zip(names, rows, strict=True):
        print(f"{name:<18}{spread:>12.2f}{shared:>11.2f}" + "".join(f"{value:>10.2f}" for value in own))


if __name__ == "__main__":
    main()
