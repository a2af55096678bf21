"""The command `flame-fitting <stage>`: finds the stage, reads its flags, turns errors into messages and exit codes.

Exit codes: 0 good, 1 a bug (the log's path is printed), 2 bad input or no face, 3 warnings under --strict, 130 Ctrl-C,
143 SIGTERM, 129 SIGHUP (its terminal was closed).
Nothing heavy is imported before the flags are read, so that --help answers at once.
"""

import contextlib
import difflib
import errno
import importlib
import json
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from flame_fitting import assets, options, progress, short_help, stopping
from flame_fitting.commands import STAGES, Stage
from flame_fitting.errors import InputError
from flame_fitting.invocation import invoked
from flame_fitting.log import command_log, get_logger, output_folder
from flame_fitting.version import __version__

PROGRAM = "flame-fitting"
EXIT_BUG, EXIT_INPUT, EXIT_STRICT, EXIT_INTERRUPTED = 1, 2, 3, 130


_EVERY_COMMAND = """every command takes
  --strict   exit with 3 where the result comes with a warning
  --quiet    print nothing but warnings, errors and results
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else EXIT_INPUT
    if arguments[0] in ("--version", "-V"):
        print(f"{PROGRAM} {__version__}")
        return 0
    name = arguments[0].replace("_", "-")
    for stage in STAGES:
        if stage.name == name:
            return run_stage(stage, arguments[1:])
    names = [stage.name for stage in STAGES]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return _complain(f"{arguments[0]}: no such command.{hint} The commands are: {', '.join(names)}.")


def main_of(name: str) -> None:
    """Runs the command `name` with the process's arguments and exits: for `python flame_fitting/<stage>.py`."""
    sys.exit(main([name, *sys.argv[1:]]))


def help_text() -> str:
    """What `flame-fitting --help` prints."""
    width = max(len(stage.name) for stage in STAGES) + 2
    lines = [
        f"usage: {PROGRAM} COMMAND [OPTIONS]     ({PROGRAM} COMMAND --help explains one command)",
        "",
        "Fits a FLAME head to any static 3D head avatar and exports a NeRF-style dataset.",
        "",
        "commands",
        *(f"  {stage.name:<{width}}{stage.summary}" for stage in STAGES),
        "",
        _EVERY_COMMAND.rstrip(),
        "  --version  (without a command) print the version",
        "",
        _examples(("run A.glb --output output/a", "doctor")),
    ]
    return "\n".join(lines)


def run_stage(stage: Stage, arguments: list[str]) -> int:
    """Reads a stage's flags and runs it."""
    module = _module(stage)
    config_type = getattr(module, stage.config)
    own = {field.name for field in fields(config_type)}
    common = {flag: f"--{flag}" in arguments and flag not in own for flag in ("strict", "quiet")}
    typed = arguments
    arguments = [a for a in arguments if not any(a == f"--{flag}" for flag, given in common.items() if given)]
    config = _parse(stage, config_type, arguments)
    if isinstance(config, int):
        return config
    with progress.quiet(common["quiet"]), invoked(PROGRAM, stage.name, arguments=typed):
        return execute(stage, getattr(module, stage.function), config, arguments, strict=common["strict"])


def execute(
    stage: Stage, function: Callable[[Any], Any], config: Any, arguments: Sequence[str] = (), strict: bool = False
) -> int:
    """Runs a stage's function under its log; every error becomes a message and an exit code."""
    output = None if stage.only_shows else output_folder(config)
    with stopping.terminates_in_order(), progress.once(), command_log(output) as log:
        logger = get_logger("flame_fitting.cli")
        logger.info("%s %s, version %s, %r", PROGRAM, stage.name, __version__, config)
        try:
            progress.say(head_line(config, arguments))
            result = function(config)
        except InputError as error:
            logger.error("%s", error, exc_info=True)
            log.fails()
            return _complain(str(error), error.exit_code)
        except KeyboardInterrupt as stop:
            signalled = stop if isinstance(stop, stopping.Terminated) else None
            logger.error("stopped by %s", signalled.signal.name if signalled else "Ctrl-C")
            text = f"stopped. {stopping.how_to_go_on(stop, getattr(config, 'force', False))}"
            print(file=sys.stderr)
            return _complain(text, signalled.exit_code if signalled else EXIT_INTERRUPTED)
        except BrokenPipeError:
            return EXIT_BUG
        except Exception as error:
            logger.exception("unexpected error")
            log.fails()
            if environment := _environment_problem(error):
                return _complain(environment)
            log.keep = True
            text = f"{stage.name}: {type(error).__name__}: {error}".splitlines()[0][:300]
            return _complain(
                f"{text}\nThis is a bug, not your input. Please report it with the log: {log.path_after}", EXIT_BUG
            )
    if isinstance(result, int) and not isinstance(result, bool):
        return result
    warnings = list(getattr(result, "warnings", None) or ())
    if strict and warnings:
        return _complain(f"{len(warnings)} warning(s), and --strict was given: {warnings[0]}", EXIT_STRICT)
    return 0


def head_line(config: Any, arguments: Sequence[str] = ()) -> str:
    """The first line of every command: which head model, and why that one."""
    head = getattr(config, "head", None) or getattr(getattr(config, "model", None), "head", None)
    if isinstance(head, str):
        asked = any(a.split("=")[0].replace("_", "-") in ("--head", "--model.head") for a in arguments)
        found = assets.find_head(head, getattr(config, "flame_dir", None), getattr(config, "flame_masks", None))
        return f"head: {found.name} ({found.why if asked or head == 'auto' else 'default'})"
    for name in ("fit", "src_folder", "capture"):
        folder = getattr(config, name, None)
        if isinstance(folder, Path) and (recorded := _recorded_head(folder)):
            return f"head: {recorded} (recorded in {folder})"
        if name in ("fit", "src_folder") and isinstance(folder, Path):
            return f"head: that of the fit in {folder}"
    return "head: none (this command needs no head model)"


def _module(stage: Stage) -> Any:
    return importlib.import_module(f"flame_fitting.{stage.module}")


def _parse(stage: Stage, config_type: Any, arguments: list[str]) -> Any:
    """The stage's configuration, or an exit code where the flags asked for help or were wrong."""
    import tyro

    prog = f"{PROGRAM} {stage.name}"
    description = f"{stage.summary}\n\n{stage.note}" if stage.note else stage.summary
    hidden, more = options.hidden(config_type), _more_options(config_type)
    everything = bool(hidden) and "--help-all" in arguments
    asked_for_help = everything or any(a in ("-h", "--help") for a in arguments)
    try:
        given = {"default": getattr(_module(stage), stage.defaults)(arguments)} if stage.defaults else {}
        if everything:
            arguments = ["--help"]
        elif asked_for_help and hidden:
            config_type, given["default"] = short_help.without(config_type, given["default"], hidden)
        return tyro.cli(config_type, prog=prog, description=description, args=arguments, **given)
    except InputError as error:
        return _complain(str(error), error.exit_code)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else EXIT_INPUT
        if asked_for_help and code == 0:
            print(_EVERY_COMMAND)
            print(("" if everything else more) + _examples(stage.examples))
        return code


def _more_options(config_type: Any) -> str:
    """Where the options are that this help leaves out; empty where there are none."""
    groups = {name.partition(".")[0] for name in options.hidden(config_type)}
    if not groups:
        return ""
    whole = {one.name.partition(".")[0] for one in options.options_of(config_type) if "." in one.name}
    names = [one.name for one in fields(config_type) if one.name in groups]
    listed = " ".join(options.flag(name) + (".*" if name in whole else "") for name in names)
    text = textwrap.fill(listed, 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return f"more options, seldom used or without effect here: --help-all\n{text}\n\n"


def _examples(examples: Sequence[str]) -> str:
    return "\n".join(["examples", *(f"  {PROGRAM} {example}" for example in examples)])


def _complain(message: str, code: int = EXIT_INPUT) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)
    return code


def _environment_problem(error: Exception) -> str | None:
    """A message for failures of the machine rather than of the program: no permission, no space, no memory."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename}: no permission ({error.strerror}). Choose another folder or mend its rights."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.filename or 'the output folder'}: no space is left on the disk. Free some and run again."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory. Use fewer views or a lower resolution (--views 16 --resolution 256)."
    return None


def _recorded_head(folder: Path) -> str | None:
    try:
        head = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("head")
        return head.get("name") if head else None
    except (OSError, ValueError, AttributeError):
        return None


def script() -> None:
    """Entry point of the console script."""
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of a pipe is gone; what is left to flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BUG)


if __name__ == "__main__":
    script()
