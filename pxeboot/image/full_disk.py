"""A disk that gets full, whoever hits it: told as one error, with the way out."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image.command import CommandFailed

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = re.compile("No space left on device|Disk quota exceeded|don't have enough free space")
"""What programs say: strerror(3) of both numbers, and apt before it downloads."""


def reason(error: Exception) -> str | None:
    """How the error says that a disk is full; None: it is about something else."""
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return str(error)
    lines = error.lines if isinstance(error, CommandFailed) else []
    return next(filter(_WORDS.search, lines), None)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Whatever in the block finds the disk of `folder` full raises PxebootError instead."""
    try:
        yield
    except (OSError, CommandFailed) as error:
        if (why := reason(error)) is None:
            raise
        raise PxebootError(
            f"no space is left in {folder}: {why}",
            "make room on that disk: `pxeboot image gc` removes images that nobody needs, and the folder"
            " cache/packages in the state directory may go",
        ) from error
