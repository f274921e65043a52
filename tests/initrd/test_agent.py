import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .server import TOKEN, BootServer
from .shell import INITRD, environment

SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$PXEBOOT_RUN/systemctl.log"
case "$*" in
    "is-system-running --wait") while [ "$(cat "$PXEBOOT_RUN/state")" = starting ]; do sleep 0.1; done ;;
    is-system-running) cat "$PXEBOOT_RUN/state" ;;
    *list-units) echo "apache2.service loaded failed failed The Apache HTTP Server" ;;
    *list-jobs) echo "12 slow.service start running"; echo "13 multi-user.target start waiting" ;;
esac
"""


def run_script(path: Path, *arguments: str, environment: dict[str, str]) -> None:
    """Run a script of `initrd/` to its end."""
    subprocess.run(["busybox", "sh", str(path), *arguments], env=environment, check=True, timeout=10)


@dataclass
class Node:
    """A node's /run/pxeboot, with a systemctl that says what the test wants."""

    run: Path

    def system_is(self, state: str) -> None:
        (self.run / "state.new").write_text(state + "\n")
        (self.run / "state.new").rename(self.run / "state")

    @property
    def systemctl(self) -> list[str]:
        log = self.run / "systemctl.log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def journal(self) -> str:
        return (self.run / "journal").read_text()

    @contextlib.asynccontextmanager
    async def agent(self, url: str) -> AsyncIterator[None]:
        """Run the agent; it and its children are gone afterwards."""
        (self.run / "url").write_text(url + "\n")
        limits = {"HEARTBEAT_S": "0.2", "START_PATIENCE_S": "1", "REFUSED_PAUSE_S": "1"}
        with (self.run / "journal").open("wb") as journal:
            process = await asyncio.create_subprocess_exec(
                *("busybox", "sh", str(INITRD / "agent")),
                env=environment(self.run, **limits),
                stdout=journal,
                stderr=journal,
                start_new_session=True,
            )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    for name in ("report.sh", "services.sh"):
        shutil.copy(INITRD / name, tmp_path)
    (tmp_path / "network").write_text("interface=eth0\naddress=192.0.2.1/24\n")
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    node = Node(tmp_path)
    node.system_is("running")
    return node


async def test_a_running_system_is_ready_and_its_heart_beats(node: Node) -> None:
    async with BootServer(tokens=["second", "third"]).serving() as server, node.agent(server.url):
        await server.until(lambda: len(server.events) >= 4)
    assert server.events[:3] == [{"stage": "ready"}] * 3
    assert server.event_tokens[:4] == [TOKEN, "second", "third", "third"]
    assert (node.run / "url").stat().st_mode & 0o777 == 0o600


async def test_a_degraded_system_is_ready_and_names_what_failed(node: Node) -> None:
    node.system_is("degraded")
    async with BootServer().serving() as server, node.agent(server.url):
        await server.until(lambda: bool(server.events))
    assert server.events[0] == {"stage": "ready", "detail": "degraded: failed units: apache2.service"}


async def test_a_system_that_does_not_come_up_has_failed_until_it_does(node: Node) -> None:
    node.system_is("starting")
    async with BootServer().serving() as server, node.agent(server.url):
        await server.until(lambda: bool(server.events))
        detail = server.events[0]["detail"]
        node.system_is("running")
        await server.until(lambda: "ready" in server.stages)
    assert server.stages[0] == "failed"
    assert detail.startswith("init: not up after ")
    assert detail.endswith(" s, waiting for: slow.service")


async def test_the_emergency_shell_is_a_failure(node: Node) -> None:
    node.system_is("maintenance")
    async with BootServer().serving() as server, node.agent(server.url):
        await server.until(lambda: bool(server.events))
    assert server.events[0] == {"stage": "failed", "detail": "init: systemd is in state maintenance"}


async def test_a_systemd_too_busy_to_answer_does_not_end_readiness(node: Node) -> None:
    async with BootServer().serving() as server, node.agent(server.url):
        await server.until(lambda: bool(server.events))
        node.system_is("")
        await server.until(lambda: "detail" in server.events[-1])
    assert server.events[-1] == {"stage": "ready", "detail": "systemd does not answer"}


@pytest.mark.parametrize("command", ["reboot", "poweroff"])
async def test_a_command_is_announced_and_followed(node: Node, command: str) -> None:
    async with BootServer(commands=[command]).serving() as server, node.agent(server.url):
        await server.until(lambda: "rebooting" in server.stages and command in node.systemctl)
    announced = server.events[server.stages.index("rebooting")]
    assert announced["detail"] == f"{command} ordered by the server"


async def test_an_unknown_command_is_only_noted(node: Node) -> None:
    async with BootServer(commands=["dance", "reboot"]).serving() as server, node.agent(server.url):
        await server.until(lambda: "reboot" in node.systemctl)
    assert "dance" not in " ".join(node.systemctl)
    assert "the server says: dance" in node.journal


async def test_a_refused_token_is_said_once_and_tried_again(node: Node) -> None:
    server = BootServer(refusals=[403, 403])
    async with server.serving(), node.agent(server.url):
        await server.until(lambda: "the server answers again" in node.journal)
    assert server.stages[0] == "ready"
    assert node.journal.count("refuses our token (HTTP 403)") == 1


async def test_a_server_that_was_away_hears_of_the_node(node: Node) -> None:
    server = BootServer()
    async with server.serving():
        url = server.url
    async with node.agent(url):
        await server.until(lambda: "report: the server does not answer" in node.journal)
        async with server.serving():
            await server.until(lambda: "ready" in server.stages)


async def test_what_services_need_and_cannot_be_set_up_is_told_with_ready(node: Node) -> None:
    async with BootServer(services="dance 10.0.0.9").serving() as server, node.agent(server.url):
        await server.until(lambda: len(server.events) > 2)
    assert server.events[2] == {"stage": "ready", "detail": "services: cannot set up dance 10.0.0.9"}
    assert node.journal.count("cannot set up") == 1


async def test_ready_is_not_said_before_the_services_are_known(node: Node) -> None:
    server = BootServer(services="", refusals=[500, 500])
    async with server.serving(), node.agent(server.url):
        await server.until(lambda: bool(server.events))
    assert not server.refusals
    assert server.events[0] == {"stage": "ready"}
