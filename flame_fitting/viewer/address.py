"""Where the viewer is reached: checked before a server starts, and told so that it works over SSH, too."""

import errno
import getpass
import os
import socket

from flame_fitting.errors import InputError

LOCAL = ("127.0.0.1", "localhost", "::1")
_TRIED = 50


def free_port(host: str, port: int) -> int:
    """`port`, or the first free one after it. Raises InputError where there is none, or the host is not this one."""
    problem: OSError | None = None
    for number in range(port, min(port + _TRIED, 65536)):
        problem = _problem(host, number)
        if problem is None:
            return number
    raise InputError(
        f"--host {host}: neither port {port} nor the {_TRIED - 1} ports after it can be listened at ({problem}). "
        "Give another port with --port, or leave --host out."
    )


def named_port(host: str, port: int) -> int:
    """`port`. Raises InputError where it is taken, or cannot be listened at."""
    problem = _problem(host, port)
    if problem is None:
        return port
    if problem.errno == errno.EADDRINUSE:
        raise InputError(taken(host, port))
    raise InputError(f"--host {host} --port {port}: cannot be listened at ({problem.strerror}). Give another one.")


def taken(host: str, port: int) -> str:
    """What is said where another program listens at a port."""
    return (
        f"--port {port}: is taken by another program at {host}, perhaps a viewer that still runs. End that one, give "
        "another port, or leave --port out."
    )


def _problem(host: str, port: int) -> OSError | None:
    """Why nobody can listen there; None where one can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"--host {host}: is no address ({error}). Leave it out, or give 0.0.0.0.") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error
    return None


def addresses(host: str, port: int) -> list[str]:
    """What a user is told: the page's URL, and how it is reached from another machine."""
    machine = _this_machine()
    if host in LOCAL:
        tunnel = f"ssh -L {port}:localhost:{port} {machine}"
        return [f"http://localhost:{port}", f"from another machine: {tunnel}   then open the same address there"]
    shown = machine.partition("@")[2] if host in ("0.0.0.0", "::") else host
    return [f"http://{shown}:{port}", "every machine that reaches this one can open it: there is no password"]


def _this_machine() -> str:
    """`user@host` as an SSH client would say it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "user"
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return f"{user}@{connection[2] if len(connection) == 4 else socket.gethostname()}"
