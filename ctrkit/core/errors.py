"""The errors that ctrkit raises, each with its exit code. Only the command line exits."""

from __future__ import annotations


class CtrkitError(Exception):
    """Base of all errors that the command line reports in one line.

    `exit_code` is the process's exit status. `is_shown`: a report has said it already, in the place
    where the line would be.
    """

    exit_code = 1
    is_shown = False


class UsageError(CtrkitError):
    """Wrong use or bad input: the message says what is wrong, where, and what to do next."""

    exit_code = 2


class InconclusiveError(CtrkitError):
    """Nothing could be projected; what was measured is saved."""

    exit_code = 3


class NoViableCellError(CtrkitError):
    """No cell of the matrix can run; the message has the reasons."""

    exit_code = 4


class RegressionError(CtrkitError):
    """A comparison found that the new run is slower than the threshold allows."""

    exit_code = 5


class RunEndedError(CtrkitError):
    """A real run was ended by the supervisor."""

    exit_code = 6


class InterruptedRunError(CtrkitError):
    """Ctrl-C or SIGTERM: everything measured so far is saved."""

    exit_code = 130


class ScriptEndedError(CtrkitError):
    """A script ended by itself with an exit code other than 0; ctrkit exits with the same code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
