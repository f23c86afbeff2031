"""What the command tells its user: one sentence for what was given wrongly, a traceback for a bug."""

from __future__ import annotations

import errno
import sys

from dvae.errors import InputError, NonFiniteError

__all__ = ["NothingToDo", "UsageError", "first_line", "told"]


class UsageError(Exception):
    """The command line is not one that the command understands; exit status 2."""


class NothingToDo(Exception):
    """What was asked for is done already; exit status 0."""


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def told(error: BaseException | None) -> str | None:
    """The sentence meant for the user, which jsonargparse wraps in errors of its own; None for an error that is a bug."""
    while error is not None and not isinstance(error, (InputError, NonFiniteError, *_of_lightning())):
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return f"cannot write {error.filename or 'the logs'}: {error.strerror}"
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    if isinstance(error, _of_lightning()) and "manual optimization" in str(error):
        return f"{error} Use --model.gradient_clip_norm and --model.accumulate_grad_batches instead."
    return str(error)


def _of_lightning() -> tuple[type[BaseException], ...]:
    """Lightning's own class of errors about arguments; none where Lightning was not imported."""
    module = sys.modules.get("pytorch_lightning.utilities.exceptions")
    return () if module is None else (module.MisconfigurationException,)


def first_line(error: BaseException) -> str:
    """An error's message without its line breaks, shortened."""
    return " ".join(str(error).split())[:200]
