"""A real `pxeboot serve` as the director of a rack, its nodes as their agents, and a client that counts."""

import asyncio
import contextlib
import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from pxeboot.cli.client import ask
from pxeboot.errors import PxebootError
from pxeboot.image.library import Library
from pxeboot.lab import network
from tests.balancer import commands
from tests.balancer.answers import SLOW_SECONDS, fetch
from tests.balancer.rack import DIRECTOR, Node, Rack, rack
from tests.parts import put_image
from tests.serving import wait_for

VIP = "10.77.0.10"
INTERVAL, FALL = 1.0, 2
TIMEOUT = 0.4
CONFIG = f"""
[server]
state_dir = "STATE"

[[network]]
interface = "eth0"
subnet = "10.77.0.0/24"

[[group]]
name = "web"
image = "web"
match = ["52:54:00:77:*"]

[[service]]
name = "www"
vip = "{VIP}"
port = 80
group = "web"
scheduler = "rr"
check = {{ kind = "http", path = "/health", interval_seconds = {INTERVAL}, timeout_seconds = {TIMEOUT}, rise = 1, fall = {FALL} }}
drain_seconds = 20
"""  # noqa: E501
BEAT_SECONDS = 10.0
PAUSE_SECONDS = 0.1
"""Between two requests of a stream."""
ASK_SECONDS = 0.3
LIMIT_SECONDS = 120.0
"""What nothing takes that works, however slow the computer."""


class Agent:
    """What stands for a node's boot and its agent: the endpoints it uses, from its own address."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._token = ""
        self._alive = False
        self._thread: threading.Thread | None = None

    def boot(self) -> None:
        """From asking for the script to `ready`, and heartbeats from then on, until `die`."""
        script = self._node.run(lambda: _http(f"http://{DIRECTOR}/ipxe/{self._node.mac}")).decode()
        found = re.search(r"/boot/([^/ ]+)/kernel", script)
        assert found is not None, script
        self._token = found[1]
        for stage in ("network", "image", "root", "ready"):
            self._report(stage)
        if not self._alive:
            self._alive = True
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()

    def begin_to_boot(self) -> None:
        """Ask for a script: the machine has been restarted."""
        self._node.run(lambda: _http(f"http://{DIRECTOR}/ipxe/{self._node.mac}"))

    def die(self) -> None:
        self._alive = False

    def _beat(self) -> None:
        while self._alive:
            time.sleep(BEAT_SECONDS)
            with contextlib.suppress(OSError):  # the server is restarted now and then
                self._report("ready")

    def _report(self, stage: str) -> None:
        url = f"http://{DIRECTOR}/boot/{self._token}/event"
        self._node.run(lambda: _http(url, json.dumps({"stage": stage}).encode()))


def _http(url: str, body: bytes | None = None) -> bytes:
    try:
        with urllib.request.urlopen(url, body, timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise


@dataclass
class Load:
    """Requests from the far client, one after the other in each of its streams; every one is counted."""

    seconds: float
    """What an answer may take, beside what it is made to."""
    good: Counter[int] = field(default_factory=Counter)
    """By the node that answered."""
    failed: list[tuple[float, str]] = field(default_factory=list)
    """When each began, monotonic seconds, and how it ended."""
    running: bool = True

    async def run(self, streams: int) -> None:
        """So many streams of short requests, and one of those that take a second each."""
        short = (self._ask("/", self.seconds, PAUSE_SECONDS) for _ in range(streams))
        await asyncio.gather(*short, self._ask("/slow", self.seconds + SLOW_SECONDS, 0.0))

    async def _ask(self, path: str, seconds: float, pause: float) -> None:
        while self.running:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(seconds):
                    self.good[await fetch(VIP, 80, path)] += 1
            except (OSError, ValueError) as error:
                self.failed.append((begun, f"{type(error).__name__}: {error}"))
            await asyncio.sleep(pause)


@contextlib.contextmanager
def load(built: Rack, seconds: float = 15.0, streams: int = 8) -> Iterator[Load]:
    """Requests as long as the block lasts: at most 10 a second by each stream, so that nobody is starved."""
    made = Load(seconds)

    def run() -> None:
        network.in_namespace(built.far, lambda: asyncio.run(made.run(streams)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.running = False
        thread.join(seconds + 5)


@dataclass
class Cluster:
    """The rack, its server and its nodes' agents."""

    rack: Rack
    state_dir: Path
    agents: dict[int, Agent] = field(default_factory=dict)
    process: ForkServerProcess | None = None

    @property
    def log(self) -> str:
        return (self.state_dir / "log").read_text()

    def start(self) -> None:
        self.process = commands.start(self.rack.director, ["serve", *self._config], self.state_dir / "log")
        _until(self._answers)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self._signal(how)
        assert self.process is not None
        self.process.join(LIMIT_SECONDS)
        assert self.process.exitcode is not None

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def _config(self) -> list[str]:
        return ["-c", str(self.state_dir / "pxeboot.toml")]

    def reread(self, text: str) -> None:
        """Another configuration, by SIGHUP."""
        (self.state_dir / "pxeboot.toml").write_text(text.replace("STATE", str(self.state_dir)))
        self._signal(signal.SIGHUP)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.is_alive(), self.log
        with contextlib.suppress(PxebootError):
            self.ask("GET", "/status")
            return True
        return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(self.state_dir, method, path, body)

    def cli(self, *arguments: str) -> str:
        """The `pxeboot` command on the director; what it said."""
        output = self.state_dir / "said"
        output.unlink(missing_ok=True)
        process = commands.start(self.rack.director, [*arguments, *self._config], output)
        process.join(LIMIT_SECONDS)
        assert process.exitcode is not None
        return output.read_text()

    def boot(self, *numbers: int) -> None:
        """Have nodes boot and answer HTTP; they are in service when it returns."""
        for number in numbers:
            node = self.rack.nodes[number - 1]
            self.ask("PATCH", f"/nodes/{node.mac}", {"name": f"web{number}"})
            node.hush()
            node.listen()
            self.agents.setdefault(number, Agent(node)).boot()
        self.wait_for_states(dict.fromkeys(numbers, "serving"))

    def states(self) -> dict[int, str]:
        """Of each node in the service."""
        servers = self.ask("GET", "/services/www")["servers"]
        return {int(item["mac"][-2:], 16): item["state"] for item in servers if item["mac"]}

    def wait_for_states(self, wanted: dict[int, str]) -> None:
        try:
            _until(lambda: wanted.items() <= self.states().items())
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.states()}\n{self.log[-4000:]}") from None

    def wait_for_service(self, name: str, *, up: bool) -> None:
        def is_so() -> bool:
            listed = {item["name"]: item["up"] for item in self.ask("GET", "/services")["services"]}
            return bool(listed.get(name) is up)

        _until(is_so)

    @property
    def sorry(self) -> Node:
        """A machine that never boots from us."""
        return self.rack.nodes[-1]

    def stage(self, number: int) -> str:
        """Of the node's boot."""
        return str(self.ask("GET", f"/nodes/{self.rack.nodes[number - 1].mac}")["stage"])


@contextlib.contextmanager
def cluster(nodes: int, state_dir: Path, text: str = CONFIG) -> Iterator[Cluster]:
    """A server that runs, with nodes that are off, and one machine more."""
    put_image(Library(state_dir / "images"))
    (state_dir / "pxeboot.toml").write_text(text.replace("STATE", str(state_dir)))
    with rack(nodes + 1) as built:
        made = Cluster(built, state_dir)
        try:
            made.start()
            yield made
        finally:
            for agent in made.agents.values():
                agent.die()
            if made.process is not None:
                made.process.kill()
                made.process.join()


def _until(condition: Callable[[], bool]) -> None:
    """Ask now and then: who asks all the time has a share in what the server is too slow for."""
    wait_for(condition, LIMIT_SECONDS, ASK_SECONDS)
