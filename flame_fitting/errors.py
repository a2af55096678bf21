"""Errors that a user can mend. Everything else is a bug and keeps its traceback in the log."""


class InputError(Exception):
    """Wrong input: the message names the file, what is wrong and what to do. The command exits with 2."""

    exit_code = 2


class NoFaceError(InputError):
    """No human face was found where one is needed."""
