"""`view`: a fit in the browser."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from flame_fitting import progress, stopping
from flame_fitting.errors import InputError
from flame_fitting.fit.places import find_fit_folder
from flame_fitting.folders import capture_folder, fit_folder
from flame_fitting.manifest import read_manifest
from flame_fitting.options import PLACE, option, own_first, refusals
from flame_fitting.shared_options import FitSources

FOLDER = "view"
"""In a fit's folder: pictures and poses that were saved."""
FIRST_PORT = 8080
INSTALL_LINE = "pip install 'flame-fitting[view]'"


@own_first
@dataclass
class ViewConfig(FitSources):
    """Shows a fit in the browser."""

    fit: tyro.conf.Positional[Path] = field(metadata=PLACE)
    """Folder of a fit, the folder above it, or one that was exported of it."""
    avatar: Path | None = option(None, decides=False, reads="file")
    """Avatar file, if it is not where the capture was made of it."""
    pose: Path | None = option(None, decides=False, reads="file")
    """A saved pose to begin with (.npz)."""
    save_to: Path | None = option(None, decides=False)
    """Folder for pictures and poses that are saved (default: `view` in the fit's folder)."""
    host: str = option("127.0.0.1", decides=False)
    """Address to listen at: by default this machine alone; 0.0.0.0 is everybody who reaches it."""
    port: int | None = option(None, at_least=1, at_most=65535, decides=False)
    """Port to listen at (default: 8080, or the first free one after it)."""


def view(config: ViewConfig) -> int:
    """Shows the fit until Ctrl-C; returns the exit code."""
    for problem in refusals(config):
        raise InputError(problem)
    folder = fit_of(fit_folder(config.fit))
    capture = None if config.capture_folder is None else capture_folder(config.capture_folder)
    from flame_fitting.viewer.address import addresses, free_port, named_port, taken

    port = free_port(config.host, FIRST_PORT) if config.port is None else named_port(config.host, config.port)
    check_viser()
    from flame_fitting.viewer.opening import open_viewed
    from flame_fitting.viewer.page import Page

    with contextlib.ExitStack() as stack:
        with progress.stage("view") as line:
            viewed = open_viewed(folder, capture, config.avatar, config.head, config.flame_dir, config.flame_masks)
            page = stack.enter_context(Page(viewed, config.save_to or folder / FOLDER, config.host, port))
            if config.pose is not None:
                page.load(config.pose)
            if config.port not in (None, page.port):  # taken by another program just now
                raise InputError(taken(config.host, port))
            url, *more = addresses(config.host, page.port)
            line.result(url)
        if config.port is None and page.port != FIRST_PORT:
            progress.say(f"port {FIRST_PORT} is taken by another program, port {page.port} is used instead")
        for note in viewed.notes:
            progress.warn(note)
        for text in (*more, "Ctrl-C ends it."):
            progress.say(text)
        try:
            page.run()
        except stopping.Terminated as stop:
            return stop.exit_code
        except KeyboardInterrupt:
            return 0
    return 0


def fit_of(folder: Path) -> Path:
    """The fit that is meant: the folder itself, its last child, or what an exported folder was made of."""
    made = read_manifest(folder) if folder.is_dir() else None
    if made is not None and made.stage == "export":
        fit = made.input_path("fit", folder)
        if fit is None or not fit.is_dir():
            raise InputError(f"{folder}: is an export, and the fit that it was made of is not there ({fit}). Give it.")
        return find_fit_folder(fit)
    return find_fit_folder(folder)


def check_viser() -> None:
    """Raises InputError where viser is not installed, or cannot be loaded."""
    try:
        import viser  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the viewer needs the package viser, which cannot be loaded ({error}): {INSTALL_LINE}"
        ) from None


if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("view")
