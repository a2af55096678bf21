"""The union of exported datasets of one subject: several sequences, or several static avatars, to train on together.

    transforms.json, transforms_train.json, transforms_val.json, transforms_test.json
    canonical_flame_param.npz (or canonical.obj), sequences_trainval.txt, sequences_test.txt

Pictures and parameters stay where they are (`../<source>/images/...`), or are copied.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Literal

from flame_fitting.export.frame_pictures import sidecar_of
from flame_fitting.export.splits import SPLITS, Split
from flame_fitting.export.transforms_files import DATASET_ENTRIES, EYELIDS_NAME, Entry, write_transforms
from flame_fitting.export.union_checks import check_placement, consistent_cameras, differences, subject_of
from flame_fitting.export.union_sources import FILE_KEYS, Source, canonical_name
from flame_fitting.folders import staged_folder
from flame_fitting.manifest import Manifest

DivisionMode = Literal["random_single", "random_group", "last"]
GROUP = 10
"""Sources of which `random_group` keeps one for testing."""


@dataclass(frozen=True)
class UnionOptions:
    """What may be chosen about a union."""

    division_mode: DivisionMode = "random_group"
    copy_images: bool = False
    """Whether pictures and parameters are copied into the union; sources may then lie anywhere."""
    subject: str | None = None
    """Whose sources they are; None takes what their names begin with."""


@dataclass
class UnionSummary:
    """What a union holds."""

    folder: Path
    counts: dict[str, int]
    """Pictures in each split."""
    trainval: list[str]
    """Sources whose timesteps train and validate."""
    test: list[str]
    """Sources that test."""
    warnings: list[str]


def divide(names: list[str], mode: DivisionMode, subject: str) -> tuple[list[str], list[str]]:
    """Which sources train and which test, each in the order given; a single source does both.

    `last` tests the last one, `random_single` one, `random_group` one of every ten. What is drawn depends on the
    subject and on the number of sources alone.
    """
    if len(names) == 1:
        return names, names
    draw = Random(subject)
    if mode == "last":
        chosen = {len(names) - 1}
    else:
        groups = 1 if mode == "random_single" else max(1, len(names) // GROUP)
        bounds = [len(names) * group // groups for group in range(groups + 1)]
        chosen = {draw.randrange(first, last) for first, last in pairwise(bounds)}
    train = [name for index, name in enumerate(names) if index not in chosen]
    return train, [name for index, name in enumerate(names) if index in chosen]


def write_union(
    sources: list[Source],
    target: Path,
    options: UnionOptions,
    force: bool,
    manifest: Manifest,
    plan: Callable[[], Manifest],
    progress: Callable[[], None] | None = None,
) -> UnionSummary:
    """Writes the union to the folder `target`, which appears whole or not at all.

    Timesteps are counted on from source to source, those that train first. A source of several timesteps trains with
    all of them, and the cameras that validate in it validate; one of a single timestep keeps its split. A source that
    tests does so with all its pictures. `progress` is called for every picture that is copied. Raises InputError where
    sources do not belong together or lie where the union cannot reach them.
    """
    if not options.copy_images:
        check_placement(sources, target)
    subject = options.subject or subject_of(sources)
    warnings = differences(sources)
    numbers, renumbered = consistent_cameras(sources)
    warnings += renumbered
    train, test = divide([source.name for source in sources], options.division_mode, subject)
    ordered = [s for s in sources if s.name in train] + [s for s in sources if s.name in test and s.name not in train]
    entries: list[Entry] = []
    splits: list[Split] = []
    records: list[dict[str, Any]] = []
    start = 0
    with staged_folder(target, force, stale=DATASET_ENTRIES) as folder:
        for source in ordered:
            tests = source.name in test and len(sources) > 1
            split_of = _splits(source, tests, alone=len(sources) == 1)
            for entry in source.entries:
                moved = entry | {"sequence": source.name, "timestep_index": entry["timestep_index"] + start}
                moved["camera_index"] = numbers[source.name][entry["camera_index"]]
                entries.append(_placed(moved, source, folder, options.copy_images, progress))
                splits.append(split_of(entry))
            record = {"folder": source.name, "first_timestep_index": start, "tests": tests}
            records.append(record | {"provenance": source.provenance})
            start += source.n_timesteps
        first = ordered[0]
        shutil.copyfile(first.folder / canonical_name(first), folder / canonical_name(first))
        if shapes := next((s.folder / EYELIDS_NAME for s in ordered if (s.folder / EYELIDS_NAME).is_file()), None):
            shutil.copyfile(shapes, folder / EYELIDS_NAME)
        (folder / "sequences_trainval.txt").write_text("".join(f"{name}\n" for name in train), encoding="utf-8")
        (folder / "sequences_test.txt").write_text("".join(f"{name}\n" for name in test), encoding="utf-8")
        write_transforms(folder, entries, splits, first.up, {"subject": subject, "sources": records})
        warnings += manifest.finish(plan)
        manifest.write(folder)
    counts: dict[str, int] = {split: splits.count(split) for split in SPLITS}
    return UnionSummary(Path(target), counts, train, test, warnings)


def _splits(source: Source, tests: bool, alone: bool) -> Callable[[Entry], Split]:
    own = source.split_of
    if tests:
        return lambda entry: "test"
    if alone or source.n_timesteps == 1:
        return lambda entry: own[entry["file_path"]]
    validating = {entry["camera_index"] for entry in source.entries if own[entry["file_path"]] == "val"}
    return lambda entry: "val" if entry["camera_index"] in validating else "train"


def _placed(entry: Entry, source: Source, folder: Path, copies: bool, progress: Callable[[], None] | None) -> Entry:
    """The entry with its files' paths as they are seen from the union; files are copied where `copies` says so."""
    for key in FILE_KEYS:
        if (name := entry.get(key)) is None:
            continue
        if not copies:
            entry[key] = f"../{source.name}/{name}"
            continue
        old = Path(name)
        stem = f"{entry['timestep_index']:05d}"
        if key in ("file_path", "fg_mask_path"):
            stem += f"_{entry['camera_index']:02d}"
        new = old.with_name(stem + old.suffix)
        if not (folder / new).exists():
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.folder / old, folder / new)
            if (alpha := source.folder / old.with_name(sidecar_of(old.name))).is_file():
                shutil.copyfile(alpha, folder / new.with_name(sidecar_of(new.name)))
        entry[key] = new.as_posix()
    if copies and progress is not None:
        progress()
    return entry
