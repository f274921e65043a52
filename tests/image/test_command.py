import asyncio
import os
import time
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import command
from pxeboot.image.command import CommandFailed, run


def test_missing_programs_are_told_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(command, "SEARCH_PATH", "/nowhere")
    with pytest.raises(PxebootError, match=r"missing: kmod squashfs-tools$") as caught:
        command.check_ready({"mksquashfs": "squashfs-tools", "depmod": "kmod"})
    assert caught.value.hint == "apt-get install kmod squashfs-tools"


def test_an_ordinary_user_is_told_to_be_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PxebootError, match="needs root"):
        command.check_ready()


@pytest.mark.net
async def test_lines_come_as_they_are_written_also_those_of_a_progress_bar() -> None:
    seen: list[str] = []
    lines = await run("sh", "-c", r"printf ' 1%%\r 2%%\r\n'; echo é >&2; printf end", on_line=seen.append)
    assert lines == seen == [" 1%", " 2%", "é", "end"]


@pytest.mark.net
async def test_a_failure_shows_what_the_program_said_last() -> None:
    with pytest.raises(CommandFailed, match=r"sh failed with status 3:\n  .*no room") as caught:
        await run("sh", "-c", "echo no room; exit 3")
    assert caught.value.lines == ["no room"]


@pytest.mark.net
async def test_a_time_from_outside_does_not_reach_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert await run("sh", "-c", "echo ${SOURCE_DATE_EPOCH-none}") == ["none"]
    assert await run("sh", "-c", "echo $SOURCE_DATE_EPOCH", environment={"SOURCE_DATE_EPOCH": "2"}) == ["2"]


GRANDCHILD = """
mount -t tmpfs none "$1"
(while :; do touch "$2"; sleep 0.02; done) &
echo started
wait
"""


@pytest.mark.net
async def test_cancelling_ends_grandchildren_and_mounts(tmp_path: Path) -> None:
    mounted, alive = tmp_path / "mounted", tmp_path / "alive"
    mounted.mkdir()
    started = asyncio.Event()
    task = asyncio.ensure_future(
        run("sh", "-c", GRANDCHILD, "sh", mounted, alive, on_line=lambda _: started.set())
    )
    await started.wait()
    while not alive.exists():
        await asyncio.sleep(0.01)
    assert not os.path.ismount(mounted)  # a mount is never seen outside
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    alive.unlink()
    time.sleep(0.2)
    assert not alive.exists()
