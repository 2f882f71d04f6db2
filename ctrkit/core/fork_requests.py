"""The messages between the supervisor and the fork server of trials.

Standard library only: the server imports it before anything else.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from typing import Any

#: First argument of `python -m ctrkit.child` for a server; the second is a file descriptor.
SERVE = "--serve"
#: A variable of the server whose value is padding: it reserves room for a trial's environment.
ROOM_VARIABLE = "CTRKIT_ROOM"
MOST_BYTES = 64_000


@dataclass(frozen=True, kw_only=True)
class ForkRequest:
    """A request to fork a trial.

    Args:
        arguments: arguments of `python -m ctrkit.child`.
        stdout: the file to append its output to.
        stderr: the file to append its errors to.
        environment: variables to add to the server's, or to replace there.
    """

    arguments: list[str]
    stdout: str
    stderr: str
    environment: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ForkReply:
    """The server's reply. It says `ready` once at the start, and then replies twice per request.

    Args:
        pid: the trial's process id: it has been forked, or (with `ready`) can run.
        ready: the server is ready, or the trial continues on its own.
        problem: why there is no server or no trial; empty if there is.
    """

    pid: int = 0
    ready: bool = False
    problem: str = ""


def send(connection: socket.socket, message: ForkRequest | ForkReply) -> None:
    """Send a message whole.

    Raises:
        OSError: the other end is gone, or the message is too long.
    """
    data = json.dumps(asdict(message)).encode()
    if len(data) > MOST_BYTES:
        raise OSError(f"a message of {len(data)} bytes is too long")
    connection.send(data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The fields of the next message; None if the other end is gone.

    Raises:
        OSError: no message came within the connection's timeout, if it has one.
    """
    data = connection.recv(MOST_BYTES)
    return dict(json.loads(data)) if data else None
