"""What runs inside the lab's User Mode Linux: its network interface, then `pxeboot serve`.

Started as a program by `director.py`: python -m pxeboot.lab.guest CONFIGURATION
"""

import os
import sys
from pathlib import Path

from pyroute2 import IPRoute

from pxeboot.lab.network import ADDRESS, OUTSIDE

INTERFACE = "vec0"
"""The guest's end of its tap (Documentation/virt/uml/user_mode_linux_howto_v2.rst, vector transports)."""


def main(config: str) -> None:
    """Never returns: becomes the server."""
    with IPRoute() as links:
        for name in ("lo", INTERFACE):
            (index,) = links.link_lookup(ifname=name)
            links.link("set", index=index, state="up")
        for address in (ADDRESS, OUTSIDE):
            links.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # the client of the lab is behind us
    os.execv(sys.executable, [sys.executable, "-m", "pxeboot.cli.main", "serve", "-c", config])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1])
