"""UDP sockets as TFTP wants them: bound to one address, DF clear, large buffers; and the MTU of a path."""

import contextlib
import errno
import socket

from pxeboot.errors import PxebootError

BUFFER_BYTES = 8 << 20
"""For ACKs of a rack switched on at once, and for windows that wait for a slow card."""

_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT, _IP_MTU = 10, 0, 14  # linux/in.h; not in Python's socket module
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h: past rmem_max, for root


def bound_socket(address: str, port: int, interface: str | None) -> socket.socket:
    """A UDP socket that sends from `address`. DF is clear: boot ROMs do not know path MTU discovery, and
    a router that must fragment may. Raises PxebootError.
    """
    try:
        return _open(address, port, interface)
    except OSError as error:
        raise _bind_error(error, address, port, interface) from error


def _open(address: str, port: int, interface: str | None) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        for forced, polite in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            sock.setsockopt(socket.SOL_SOCKET, polite, BUFFER_BYTES)
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        if interface is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def path_mtu(address: str, peer: tuple[str, int]) -> int:
    """The MTU of the way from our `address` to `peer` as the kernel knows it, bytes. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        probe.connect(peer)  # a UDP socket sends nothing for it
        return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)


def _bind_error(error: OSError, address: str, port: int, interface: str | None) -> PxebootError:
    where = f"TFTP at {address} port {port}"
    match error.errno:
        case errno.EADDRINUSE:
            return PxebootError(f"{where}: in use", f"Stop its user; `ss -lunp sport = :{port}` shows it.")
        case errno.EADDRNOTAVAIL:
            return PxebootError(f"{where}: not an address of this machine", "Give it to the interface.")
        case errno.EACCES | errno.EPERM:
            return PxebootError(f"{where}: not allowed", "Run as root.")
        case errno.ENODEV:
            return PxebootError(f"{where}: no interface {interface!r}", "`ip link` lists the interfaces.")
    return PxebootError(f"{where}: {error.strerror}", "Check the address and the interface.")
