"""What a user can put right, and what is one subject's fault."""

import errno

EVERYBODYS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # a full or protected disk: no other subject would do better


class UserError(Exception):
    """A mistake in input or options: shown as one line, without a traceback."""


def reason(error: Exception) -> str:
    """Why one subject of a cohort failed, in one line for its row, so that the others go on.

    Raises:
        OSError: the error itself, if it isn't the subject's: the disk is full or can't be written to.
    """
    if isinstance(error, OSError) and error.errno in EVERYBODYS:
        raise error
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
