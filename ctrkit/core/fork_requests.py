"""The messages between the supervisor and the fork server of trials.

Standard library only: the server reads it before it has imported anything else.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from typing import Any

#: First argument of `python -m ctrkit.child` where it is to serve; its second is a descriptor.
SERVE = "--serve"
#: A variable of the server whose value is padding: room for the environment of a trial.
ROOM_VARIABLE = "CTRKIT_ROOM"
MOST_BYTES = 64_000


@dataclass(frozen=True, kw_only=True)
class ForkRequest:
    """A trial to be forked.

    Args:
        arguments: of `python -m ctrkit.child`.
        stdout: the file that its output is added to.
        stderr: the same for its errors.
        environment: variables that it has beside those of the server, or in place of them.
    """

    arguments: list[str]
    stdout: str
    stderr: str
    environment: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ForkReply:
    """What came of it. First the server says `ready`; then for each request two replies come.

    Args:
        pid: of the trial: it has been forked, or is ready to run.
        ready: it goes on by itself from here.
        problem: why there is no server, or no trial; empty where there is.
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
    """The next message's fields; None where the other end is gone.

    Raises:
        OSError: none came in time, where the connection has a limit.
    """
    data = connection.recv(MOST_BYTES)
    return dict(json.loads(data)) if data else None
