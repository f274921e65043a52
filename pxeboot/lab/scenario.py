"""A whole lab: a private network, the server as an operator runs it, and machines switched on before it."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, Field

from pxeboot.errors import PxebootError
from pxeboot.image.library import Library
from pxeboot.lab import foreign, network, qemu, record
from pxeboot.lab.api import Api
from pxeboot.lab.director import ADMIN, VIP, Forward, Seat, client_for
from pxeboot.lab.logs import last_lines
from pxeboot.lab.pages import fetch_page, titles
from pxeboot.lab.qemu import MEMORY_MB, Firmware, Machine
from pxeboot.lab.record import Process, Record
from pxeboot.mac import Mac
from pxeboot.web import tls
from pxeboot.web.views import NodeDetail, NodeView

NAME = "lab"
POLL_SECONDS = 0.5
SERVER_START_SECONDS = 60.0
"""A guest of its own starts first, perhaps; on a busy computer that took 24 s."""
TIMEOUT_SECONDS = 300.0
"""For a machine from power-on to ready. Emulated on a busy computer it takes a minute or two."""

_MAC_PREFIX = "52:54:00:77:00"  # 52:54:00 is QEMU's; the rest keeps clear of machines made by hand
_UNIX_SOCKET_PATH_BYTES = 107  # unix(7): sun_path, less the final zero


class Loader(StrEnum):
    """What the lab's group boots with."""

    IPXE = "ipxe"
    PXELINUX = "pxelinux"


class Scenario(BaseModel, frozen=True, extra="forbid"):
    """What a lab is made of."""

    state_dir: Path
    """Where the image library is (`images`); the lab's own files go to `lab/NAME` in it."""
    name: str = Field(default=NAME, pattern=r"^[a-z0-9-]{1,32}$")
    nodes: int = Field(default=2, ge=1, le=99)
    firmware: Firmware = Firmware.BIOS
    proxy: bool = False
    """Somebody else's DHCP server (dnsmasq) gives the addresses, ours tells only what to boot."""
    https: bool = False
    """With an own authority, nodes speak HTTPS from the initrd on."""
    forward: Forward | None = None
    """The machines stand behind a virtual service whose director forwards so; None: no service."""
    loaders: dict[str, Path] = {}
    """Loaders for firmware that Debian has none for, as in the configuration's `[loaders]`."""
    image: str = "web"
    loader: Loader = Loader.IPXE
    memory_mb: int = Field(default=MEMORY_MB, ge=64)
    timeout_seconds: float = Field(default=TIMEOUT_SECONDS, gt=0)

    @property
    def folder(self) -> Path:
        """Where this lab's files are."""
        return self.state_dir.absolute() / "lab" / self.name


class Progress(BaseModel, frozen=True):
    """How far one machine is."""

    machine: Machine
    powered_on: float
    node: NodeView | None = None
    """None until the server has heard of it."""

    @property
    def stage(self) -> str:
        """The server's word for where it is; `firmware` until it has been heard of."""
        return (self.node.stage if self.node else None) or "firmware"

    @property
    def ready(self) -> bool:
        """Whether its system has come up."""
        return self.stage in ("ready", "serving")


def stage_seconds(powered_on: float, reached: Mapping[str, float]) -> dict[str, float]:
    """Seconds spent in each stage but the last, in order; `firmware` comes first. Times in Unix seconds."""
    starts = [("firmware", powered_on), *sorted(reached.items(), key=lambda item: item[1])]
    return {stage: following - at for (stage, at), (_, following) in pairwise(starts)}


def configuration(scenario: Scenario, state_dir: Path, interface: str = network.BRIDGE) -> str:
    """The lab server's pxeboot.toml. A JSON string is a TOML string too."""
    pool = f'pool = ["{network.ADDRESS.ip + 99}-{network.ADDRESS.ip + 198}"]'
    loaders = "".join(f"{key} = {json.dumps(str(path))}\n" for key, path in scenario.loaders.items())
    return f"""\
[server]
state_dir = {json.dumps(str(state_dir))}
{_admin(interface)}
[[network]]
interface = "{interface}"
mode = "{"proxy" if scenario.proxy else "dhcp"}"
subnet = "{network.ADDRESS.network}"
{"" if scenario.proxy else pool}

[[group]]
name = "lab"
image = {json.dumps(scenario.image)}
match = ["*"]
loader = "{scenario.loader}"
kernel_args = "console=ttyS0"

{"" if scenario.forward is None else _service(scenario.forward)}
[loaders]
{loaders}
{"[https]" if scenario.https else ""}
"""


def _admin(interface: str) -> str:
    """Where the API is: on this box by default, in the lab's network where the server is in a guest."""
    return "" if interface == network.BRIDGE else f'admin = "{ADMIN[0]}:{ADMIN[1]}"\n'


def _service(forward: Forward) -> str:
    """The virtual service of the machines; in turn, so that one can see it."""
    return f"""\
[[service]]
name = "www"
vip = "{VIP}"
port = 80
group = "lab"
forward = "{forward}"
scheduler = "rr"
check = {{ kind = "http", path = "/", status = 200, interval_seconds = 2, timeout_seconds = 2 }}
drain_seconds = 10
"""


class Lab:
    """A lab that is up inside `async with`, and gone without trace (but its logs) after it.

    `say` gets one line of plain words for each thing that is done.
    """

    def __init__(self, scenario: Scenario, say: Callable[[str], None] = lambda line: None) -> None:
        self.scenario = scenario
        self.machines = _machines(scenario)
        self.server: subprocess.Popen[bytes] | None = None
        """The server's process, or the guest's that it runs in."""
        self._say = say
        self._children: list[subprocess.Popen[bytes]] = []
        self._emulators: dict[Mac, subprocess.Popen[bytes]] = {}
        self._powered_on: dict[Mac, float] = {}
        owner = record.process(os.getpid())
        assert owner is not None
        self._record = Record(
            name=scenario.name, owner=owner, folder=scenario.folder, machines=tuple(self.machines)
        )
        self._seat = Seat(scenario.folder, self._record.server_folder, self.namespace, scenario.forward)
        self._api = Api(self._seat.socket, self._seat.log)

    @property
    def namespace(self) -> str:
        """The network namespace that everything is in."""
        return record.namespace_of(self.scenario.name)

    @property
    def socket(self) -> Path:
        """The Unix socket of the server's API."""
        return self._seat.socket

    @property
    def server_log(self) -> Path:
        """What the server logs."""
        return self._seat.log

    async def __aenter__(self) -> Self:
        """Make the network and start the server; machines are still off. Raises PxebootError."""
        self._check()
        if record.claim(self._record):
            self._say("Cleared away what a crashed lab had left behind.")
        try:
            self._make_files()
            taps = [*self._seat.taps, *(machine.tap for machine in self.machines)]
            client = client_for(self.scenario.forward)
            addresses = self._seat.addresses
            network.create(
                self.namespace, taps, addresses=addresses, foreign=self.scenario.proxy, client=client
            )
            self._say(
                f"Made network namespace {self.namespace}: bridge {network.BRIDGE}"
                f"{' with ' if addresses else ''}{', '.join(map(str, addresses))}"
                f" and taps {', '.join(taps)}. Nothing in it reaches another network."
            )
            if client is not None:
                self._say(f"Made {network.client_of(self.namespace)} beside it, for a client with {client}.")
            if self.scenario.proxy:
                log = self.scenario.folder / "dnsmasq.log"
                await foreign.start(self._start, log)
                self._say(
                    f"Started dnsmasq at {network.FOREIGN_ADDRESS.ip} for the addresses; it logs to {log}"
                )
            await self.start_server()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def start_server(self) -> None:
        """Start `pxeboot serve` and wait until its API answers. Raises PxebootError."""
        self.server = await self._seat.start(self._start)
        self._say(f"Started {self._seat.words}; it logs to {self.server_log}")
        deadline = time.monotonic() + SERVER_START_SECONDS
        while await self._api.nodes() is None:
            self._server_lives()
            if time.monotonic() > deadline:
                raise PxebootError(
                    f"the server did not answer within {SERVER_START_SECONDS:.0f} s", f"see {self.server_log}"
                )
            await asyncio.sleep(POLL_SECONDS / 5)

    async def power_on(self) -> None:
        """Name every machine to the server as it is called here, and switch it on."""
        for machine in self.machines:
            await self._api.request("PATCH", f"/api/v1/nodes/{machine.mac}", {"name": machine.name})
            self.switch_on(machine)
        names = ", ".join(machine.name for machine in self.machines)
        self._say(
            f"Switched on {names}: {qemu.BOARDS[self.scenario.firmware].words},"
            f" {self.scenario.memory_mb} MB, no disk. Console logs are in {self.scenario.folder}"
        )

    def switch_on(self, machine: Machine) -> None:
        """Give one machine its power."""
        qemu.prepare(machine)
        self._powered_on[machine.mac] = time.time()
        self._emulators[machine.mac] = self._start(qemu.command_line(machine), machine.output_log)

    def destroy(self, machine: Machine) -> None:
        """Take one machine's power away, without a word to anybody. `switch_on` brings it back."""
        child = self._emulators.pop(machine.mac)
        child.kill()
        child.wait()

    async def follow(self) -> AsyncIterator[list[Progress]]:
        """How far every machine is, twice a second, until all are ready, and in service where there is one.

        Raises PxebootError when the server or a machine ends, or after `timeout_seconds`; then it names
        who is stuck.
        """
        deadline = time.monotonic() + self.scenario.timeout_seconds
        while True:
            progress = await self.progress()
            yield progress
            if all(item.stage == "serving" if self.scenario.forward else item.ready for item in progress):
                return
            self._server_lives()
            self._machines_live()
            if time.monotonic() > deadline:
                raise _stuck(progress, self.scenario.timeout_seconds)
            await asyncio.sleep(POLL_SECONDS)

    async def progress(self) -> list[Progress]:
        """How far every machine is now; without news where the server does not answer."""
        nodes = {node.mac: node for node in await self._api.nodes() or []}
        return [
            Progress(machine=machine, powered_on=self._powered_on[machine.mac], node=nodes.get(machine.mac))
            for machine in self.machines
        ]

    async def stage_seconds(self, machine: Machine) -> dict[str, float]:
        """Seconds the machine has spent in each stage of its present boot; `firmware` comes first."""
        answer = await self._api.request("GET", f"/api/v1/nodes/{machine.mac}")
        boots = NodeDetail.model_validate(answer).boots
        return stage_seconds(self._powered_on[machine.mac], boots[0].reached if boots else {})

    async def page(self, address: str, path: str = "/") -> str:
        """A page that the node at `address` serves, fetched from inside. Raises PxebootError."""
        inside = self.namespace if self.scenario.forward is None else network.client_of(self.namespace)
        return await asyncio.to_thread(network.in_namespace, inside, lambda: fetch_page(address, path=path))

    async def visit(self, times: int) -> list[str]:
        """Ask the virtual address so many times, as its client; who answered. Raises PxebootError."""
        client = network.client_of(self.namespace)
        return await asyncio.to_thread(network.in_namespace, client, lambda: titles(VIP, times))

    def _check(self) -> None:
        """Everything that can be known to be missing, before anything is started. Raises PxebootError."""
        network.check()
        qemu.check(self.scenario.firmware)
        self._seat.check()
        if self.scenario.proxy:
            foreign.check()
        library = Library(self.scenario.state_dir / "images")
        if library.tag(self.scenario.image) is None:
            raise PxebootError(
                f"there is no image {self.scenario.image!r} in {self.scenario.state_dir}",
                f"build it: pxeboot image build {self.scenario.image} --state-dir {self.scenario.state_dir}",
            )
        library.resolve(self.scenario.image)
        longest = max((*(machine.console_socket for machine in self.machines), self.socket), key=_length)
        if _length(longest) > _UNIX_SOCKET_PATH_BYTES:
            raise PxebootError(f"{longest} is too long for a Unix socket", "choose a shorter --state-dir")

    def _make_files(self) -> None:
        """The server's folder, new: its configuration, and the library of the real one."""
        folder = self._record.server_folder
        shutil.rmtree(folder, ignore_errors=True)
        state_dir = self._seat.state_dir
        state_dir.mkdir(parents=True)
        (state_dir / "images").symlink_to(self.scenario.state_dir.absolute() / "images")
        self._seat.config.write_text(configuration(self.scenario, state_dir, self._seat.interface))
        if self.scenario.https:
            tls.init(state_dir / tls.FOLDER, [network.ADDRESS.ip])

    def _start(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program in the namespace, in a session of its own so that a Ctrl-C reaches only us."""
        with log.open("ab") as output:
            child = network.in_namespace(
                self.namespace,
                lambda: subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                ),
            )
        self._children.append(child)
        started = record.process(child.pid)
        if started is not None:  # otherwise it has ended already, which its log explains
            self._remember(started)
        return child

    def _remember(self, started: Process) -> None:
        self._record = self._record.model_copy(update={"processes": (*self._record.processes, started)})
        record.write(self._record)

    def _server_lives(self) -> None:
        assert self.server is not None
        if self.server.poll() is not None:
            raise PxebootError(
                f"pxeboot serve ended with status {self.server.returncode}:\n{last_lines(self.server_log)}",
                f"its whole log is {self.server_log}",
            )

    def _machines_live(self) -> None:
        for machine in self.machines:
            child = self._emulators.get(machine.mac)
            if child is not None and child.poll() is not None:
                raise PxebootError(
                    f"{machine.name} is off: QEMU ended with status {child.returncode}:\n"
                    f"{last_lines(machine.output_log)}",
                    f"see its console log: {machine.console_log}",
                )

    async def _end(self) -> None:
        await self._seat.close()
        record.clear(self.scenario.name, self._record)
        for child in self._children:
            child.wait()


def _machines(scenario: Scenario) -> list[Machine]:
    return [
        Machine(
            name=f"node{number}",
            mac=Mac.parse(f"{_MAC_PREFIX}:{number:02x}"),
            tap=f"tap{number}",
            folder=scenario.folder,
            firmware=scenario.firmware,
            memory_mb=scenario.memory_mb,
        )
        for number in range(1, scenario.nodes + 1)
    ]


def _stuck(progress: list[Progress], seconds: float) -> PxebootError:
    """The error that names every machine that is not ready, where it is, and where to look."""
    late = [item for item in progress if not item.ready]
    lines = [f"not ready after {seconds:.0f} s:"]
    for item in late:
        why = (item.node.failure or item.node.detail) if item.node else None
        lines.append(f"  {item.machine.name} is in stage {item.stage}" + (f" ({why})" if why else ""))
    logs = ", ".join(str(item.machine.console_log) for item in late)
    return PxebootError("\n".join(lines), f"see what it said on its console: {logs}")


def _length(path: Path) -> int:
    return len(os.fsencode(path))
