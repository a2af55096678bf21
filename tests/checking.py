"""Run-time type checks that cost little: in each test the first calls of every function are checked, not all of them.

A check costs more than most functions that a fit calls thousands of times; checking every call doubled the time of all
tests.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping

CHECKED_CALLS = 4
"""Of a function, in each test."""

_started = 0


def start() -> None:
    """Another test: every function's first calls are checked again."""
    global _started
    _started += 1


def install() -> None:
    """Lets jaxtyping's import hook put bounded checks around functions and dataclasses."""
    jaxtyping.jaxtyped = bounded(jaxtyping.jaxtyped)  # type: ignore[assignment]


def bounded(jaxtyped: Callable[..., Any]) -> Callable[..., Any]:
    """`jaxtyped` whose checks end after `CHECKED_CALLS`."""

    def decorated(thing: Any, typechecker: Any) -> Any:
        if inspect.isfunction(thing):
            return _first_calls(jaxtyped(thing, typechecker=typechecker), thing)
        if inspect.isclass(thing):
            plain = thing.__init__
            thing = jaxtyped(thing, typechecker=typechecker)
            if thing.__init__ is not plain:
                thing.__init__ = _first_calls(thing.__init__, plain)
            return thing
        return jaxtyped(thing, typechecker=typechecker)

    def decorator(*, typechecker: Any) -> Callable[[Any], Any]:
        return lambda thing: decorated(thing, typechecker)

    return decorator


def _first_calls(checked: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    test, calls = -1, 0

    @wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal test, calls
        if test != _started:
            test, calls = _started, 0
        if calls >= CHECKED_CALLS:
            return plain(*args, **kwargs)
        calls += 1
        return checked(*args, **kwargs)

    return call
