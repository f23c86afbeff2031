"""The errors that a user is meant to read: one clear sentence each."""

import difflib
import signal
from collections.abc import Iterable

__all__ = ["InputError", "Interrupted", "NonFiniteError", "did_you_mean", "reason_of"]


# A damaged file can put a page of noise where a name should be.
_LONGEST = 1000


class InputError(ValueError):
    """An argument, file or batch is not what was expected; the message names it, what was given and what was expected."""

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} [...] {message[-_LONGEST // 2 :]}"
        super().__init__(message)


class NonFiniteError(ArithmeticError):
    """A training step produced a NaN or an infinity; the message names the step and the quantity."""


class Interrupted(Exception):
    """A signal stopped training, after a checkpoint was saved."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}")
        self.signum = signum


def reason_of(error: Exception, longest: int = 120) -> str:
    """An error of another library in one short line.

    Arguments:
        error: whose.
        longest: characters of its message.
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:longest]}"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, or nothing where no known name is like the given one."""
    known = list(known)
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(given.lower(), lowered, 1, 0.6)
    return f"; did you mean {lowered[found[0]]}?" if found else ""
