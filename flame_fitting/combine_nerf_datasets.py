"""Stage `combine`: exported datasets of one subject become one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.export.options import FROM_EXPORT
from flame_fitting.folders import locked_folder
from flame_fitting.options import PLACE, own_first, place, refusals
from flame_fitting.shared_options import OutputOptions

if TYPE_CHECKING:
    from flame_fitting.export.union import UnionSummary
    from flame_fitting.manifest import Manifest


@own_first
@dataclass
class CombineConfig(OutputOptions):
    """Unites exported datasets of one subject."""

    src_folders: tuple[Path, ...] = field(metadata=place("folder", advice=FROM_EXPORT))
    """Folders that export wrote, one or more, beside the target."""
    tgt_folder: Path = field(metadata=PLACE)
    """Folder to write the union to."""
    division_mode: Literal["random_single", "random_group", "last"] = "random_group"
    """Which source is for testing: one at random, one of every ten at random, or the last."""
    copy_images: bool = False
    """Copy pictures and parameters into the union: the sources may lie anywhere, and may go."""
    subject: str | None = None
    """Whose datasets they are (default: what stands before the first _ of all their names); seeds the choice."""


def combine(config: CombineConfig, manifest: "Manifest | None" = None) -> "UnionSummary":
    """Writes the union and says what is in it.

    `manifest` is the `plan` of this very moment, where the caller has it.
    """
    if not config.src_folders:
        raise InputError("--src-folders: names no folder. Give one or more folders that export wrote.")
    for problem in refusals(config):
        raise InputError(problem)

    from flame_fitting.export.union import UnionOptions, write_union
    from flame_fitting.export.union_sources import read_source

    target = config.tgt_folder
    options = UnionOptions(config.division_mode, config.copy_images, config.subject)
    with progress.stage("combine") as line, locked_folder(target, config.force, "combine", config.src_folders):
        manifest = manifest or plan(config)
        sources = [read_source(folder) for folder in config.src_folders]
        total = sum(len(source.entries) for source in sources) if config.copy_images else 0
        with progress.Bar(total, "combine", "picture") as bar:
            summary = write_union(
                sources,
                target,
                options,
                config.force,
                manifest,
                lambda: plan(config),
                lambda: bar.advance(),
            )
        counts = ", ".join(f"{count} {split}" for split, count in summary.counts.items())
        line.result(f"{counts} views in {summary.folder}")
    progress.say(f"trains and validates: {', '.join(summary.trainval)}; tests: {', '.join(summary.test)}")
    for text in summary.warnings:
        progress.warn(text)
    return summary


def plan(config: CombineConfig) -> "Manifest":
    """What decides the result."""
    from flame_fitting.export.union_sources import source_hash
    from flame_fitting.manifest import Manifest, config_as_dict, input_record

    inputs = {
        f"source_{index:02d}": input_record(folder, config.tgt_folder, source_hash(folder))
        for index, folder in enumerate(config.src_folders)
    }
    return Manifest(stage="combine", config=config_as_dict(config), inputs=inputs)


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("combine")
