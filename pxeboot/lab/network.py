"""A private network in a namespace of its own: one bridge, one tap for each virtual machine.

Nothing in it reaches another network: the namespace has no link to the outside, and every interface
ends with it. Interface names are fixed, since no other interface lives there; only the namespace's
name (`ip netns list`) tells two labs apart. A client of the machines' service has a namespace beside it,
with one cable into the bridge.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TypeVar, cast

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

from pxeboot.errors import PxebootError

BRIDGE = "lab0"
ADDRESS = IPv4Interface("10.77.0.1/24")
"""The bridge's own address: the boot server's, and every node's router."""
FOREIGN = "foreign0"
"""The interface of somebody else's DHCP server, where the lab has one; its cable ends in the bridge."""
FOREIGN_ADDRESS = IPv4Interface("10.77.0.2/24")
NEAR_CLIENT = IPv4Interface("10.77.0.3/24")
"""A client in the machines' own subnet, whom they answer directly."""
OUTSIDE = IPv4Interface("10.78.0.1/24")
"""The director's address towards clients who are not in that subnet."""
FAR_CLIENT = IPv4Interface("10.78.0.2/24")
"""A client behind the director: with address translation, answers must go back through that."""

_CLIENT = "client0"
_TUN = Path("/dev/net/tun")

T = TypeVar("T")


def check() -> None:
    """Refuse early, with the remedy, where no namespace or tap can be made. Raises PxebootError."""
    if os.geteuid() != 0:
        raise PxebootError("the lab makes a network namespace, which only root may", "run it with sudo")
    if not _TUN.exists():
        raise PxebootError(f"{_TUN} is missing, so no tap can be made", "load the module: modprobe tun")


def create(
    namespace: str,
    taps: Sequence[str],
    *,
    addresses: Sequence[IPv4Interface] = (ADDRESS,),
    foreign: bool = False,
    client: IPv4Interface | None = None,
) -> None:
    """Make the namespace with its bridge (with those addresses), lo and `taps`, all up; FOREIGN too if it is
    wanted, and the client's namespace (see `client_of`) where there is one.

    What an earlier one of that name left behind is deleted first; nothing stays after a failure.
    Raises PxebootError when the kernel refuses.
    """
    check()
    delete(namespace)
    try:
        netns.create(namespace)
        in_namespace(namespace, lambda: _plug(taps, addresses, foreign))
        if client is not None:
            netns.create(client_of(namespace))
            in_namespace(namespace, lambda: _cable(_CLIENT, _CLIENT, client_of(namespace)))
            in_namespace(client_of(namespace), lambda: _settle_client(client))
    except BaseException as error:
        delete(namespace)
        if isinstance(error, OSError | NetlinkError):
            raise PxebootError(
                f"the kernel refused network namespace {namespace}: {error}",
                "in a container, allow it CAP_SYS_ADMIN, CAP_NET_ADMIN and /dev/net/tun",
            ) from error
        raise


def client_of(namespace: str) -> str:
    """The namespace of the client beside a lab's."""
    return f"{namespace}-client"


def delete(namespace: str) -> None:
    """Remove its name and its client's, and with them every interface once the last process has ended.

    One that is not there is fine. End the processes first: see `processes`.
    """
    for name in (client_of(namespace), namespace):
        try:
            netns.remove(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise PxebootError(
                f"cannot delete network namespace {name}: {error}", "run it as root"
            ) from error


def exists(namespace: str) -> bool:
    """Whether a namespace of that name is there, whole or as a leftover."""
    return namespace in netns.listnetns()


def processes(namespace: str) -> list[int]:
    """Pids of all processes (not: single threads) that live in the namespace now."""
    try:
        wanted = (Path(netns.NETNS_RUN_DIR) / namespace).stat()
    except FileNotFoundError:
        return []
    return [pid for pid in _pids() if _lives_in(pid, wanted)]


def in_namespace(namespace: str, function: Callable[[], T]) -> T:
    """Call `function` in a fresh thread inside the namespace; give back what it returns or raises.

    The thread ends with the call, so no other code of this process ever finds itself in there. Sockets
    opened and processes started by `function` stay in the namespace: `subprocess.Popen` forks from the
    calling thread, so a program needs no wrapper to run inside.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def enter_and_call() -> None:
        try:
            netns.setns(namespace, flags=0)
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=enter_and_call, name=f"in {namespace}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def interfaces(namespace: str) -> dict[str, str]:
    """Each interface in the namespace, with its operational state ("UP", "DOWN", "UNKNOWN")."""

    def read() -> dict[str, str]:
        with IPRoute() as links:
            return {link.get("ifname"): link.get("operstate") for link in links.get_links()}

    return in_namespace(namespace, read)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _lives_in(pid: int, namespace: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), namespace)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # it has ended meanwhile, or it is not even root's to look at, so no child of ours


def _plug(taps: Sequence[str], addresses: Sequence[IPv4Interface], foreign: bool) -> None:
    """Runs inside the namespace: lo, the bridge, its taps, and a cable for another server."""
    with IPRoute() as links:
        _up(links, "lo")
        # Without STP a port forwards at once; with it every boot would wait 30 s for its first DISCOVER.
        links.link(
            "add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0
        )
        bridge = _index(links, BRIDGE)
        for address in addresses:
            _assign(links, bridge, address)
        _up(links, BRIDGE)
        for tap in taps:
            links.link("add", ifname=tap, kind="tuntap", mode="tap")
            links.link("set", index=_index(links, tap), master=bridge)
            _up(links, tap)
    if foreign:
        _cable("foreign1", FOREIGN)
        with IPRoute() as links:
            _assign(links, _index(links, FOREIGN), FOREIGN_ADDRESS)
            _up(links, FOREIGN)


def _cable(port: str, far: str, namespace: str | None = None) -> None:
    """A cable from the bridge, in this namespace, to an interface called `far` here or in another one."""
    with IPRoute() as links:
        peer = {"ifname": far} | ({"net_ns_fd": namespace} if namespace else {})
        links.link("add", ifname=port, kind="veth", peer=peer)
        links.link("set", index=_index(links, port), master=_index(links, BRIDGE))
        _up(links, port)


def _settle_client(address: IPv4Interface) -> None:
    """Runs inside the client's namespace: its address, and the director as the way to all others."""
    with IPRoute() as links:
        _up(links, "lo")
        _assign(links, _index(links, _CLIENT), address)
        _up(links, _CLIENT)
        router = next(own for own in (ADDRESS, OUTSIDE) if own.ip in address.network)
        links.route("add", dst="default", gateway=str(router.ip))


def _assign(links: IPRoute, index: int, address: IPv4Interface) -> None:
    links.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)


def _up(links: IPRoute, interface: str) -> None:
    links.link("set", index=_index(links, interface), state="up")


def _index(links: IPRoute, interface: str) -> int:
    found = links.link_lookup(ifname=interface)
    if not found:
        raise OSError(errno.ENODEV, f"interface {interface} was not made")
    return cast(int, found[0])
