"""The two faults that are not our own: the operator's and the peer's."""


class PxebootError(Exception):
    """Something the operator can put right: what is wrong, and what to do about it.

    The message names the key or object and the value; the hint is one imperative sentence.
    Only `cli/main.py` prints it (and exits with 1) and only `web/` turns it into a response.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class MalformedPacket(Exception):
    """Bytes from a peer that are not what its protocol allows: count, debug line, drop."""
