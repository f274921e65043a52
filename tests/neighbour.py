"""A third machine on the cable between a server and its client: a macvlan in a namespace of its own."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pyroute2 import IPRoute, netns

from pxeboot.lab import network
from tests.serving import CLIENT, Cable

T = TypeVar("T")

NEIGHBOUR = "52:54:00:00:00:99"
INTERFACE = "own"


@dataclass
class Neighbour:
    """Where it lives. It hears the server's side of the cable, not the client's."""

    namespace: str

    def run(self, function: Callable[[], T]) -> T:
        return network.in_namespace(self.namespace, function)


@contextlib.contextmanager
def neighbour(cable: Cable, address: str) -> Iterator[Neighbour]:
    """Plug it in; it answers for `address` at once."""
    made = Neighbour(f"pxeboot-n{os.getpid()}")

    def plug() -> None:
        with IPRoute() as links:
            links.link(
                "add", ifname=INTERFACE, kind="macvlan", macvlan_mode="bridge", address=NEIGHBOUR,
                link=links.link_lookup(ifname=CLIENT)[0], net_ns_fd=made.namespace,
            )  # fmt: skip

    def configure() -> None:
        with IPRoute() as links:
            index = links.link_lookup(ifname=INTERFACE)[0]
            links.link("set", index=index, state="up")
            links.addr("add", index=index, address=address, prefixlen=24)

    netns.create(made.namespace)
    try:
        cable.in_client(plug)
        made.run(configure)
        yield made
    finally:
        network.delete(made.namespace)
