"""What this computer lacks for a test, said in the skip."""

from collections.abc import Callable

import pytest

from pxeboot.errors import PxebootError
from pxeboot.lab import network, qemu, uml


def _lack(check: Callable[[], None]) -> str:
    try:
        check()
    except PxebootError as error:
        return f"{error}: {error.hint}"
    return ""


_NETWORK = _lack(network.check)
_EMULATOR = _lack(lambda: qemu.check(qemu.Firmware.BIOS))
_GUEST = _lack(uml.check)

needs_network = pytest.mark.skipif(bool(_NETWORK), reason=_NETWORK)
needs_emulator = pytest.mark.skipif(bool(_EMULATOR), reason=_EMULATOR)
needs_guest = pytest.mark.skipif(bool(_GUEST), reason=_GUEST)
