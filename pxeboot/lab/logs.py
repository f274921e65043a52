"""What the lab's programs said last, for errors that quote them."""

from pathlib import Path

LINES = 15


def last_lines(log: Path) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LINES:])
