import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.lab import network, record
from pxeboot.lab.record import Process, Record

from .conditions import needs_network

pytestmark = [pytest.mark.net, needs_network]

# A lab in small: its owner makes the namespace, starts one program that is recorded and one that is not (as
# when the owner is killed between the two), says their pids, and waits.
OWNER = textwrap.dedent("""
    import os, subprocess, sys, time
    from pathlib import Path
    from pxeboot.lab import network, record

    name, folder = sys.argv[1], Path(sys.argv[2])
    mine = record.Record(name=name, owner=record.process(os.getpid()), folder=folder)
    record.claim(mine)
    network.create(record.namespace_of(name), ["tap1"])
    for folder in (mine.run_folder, mine.server_folder):
        folder.mkdir(parents=True)
    start = lambda: subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
    known, unknown = (network.in_namespace(record.namespace_of(name), start) for _ in range(2))
    record.write(mine.model_copy(update={"processes": (record.process(known.pid),)}))
    print(known.pid, unknown.pid, flush=True)
    time.sleep(300)
""")


@pytest.fixture
def name() -> Iterator[str]:
    own = f"test-{os.getpid()}"
    yield own
    record.down(own)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as child:
        yield child
        child.kill()


def owned_by(pid: int, name: str, folder: Path) -> Record:
    owner = record.process(pid)
    assert owner is not None
    return Record(name=name, owner=owner, folder=folder)


def start_owner(name: str, folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, name, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    return owner, [int(pid) for pid in owner.stdout.readline().split()]


def finish(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.communicate()


def test_a_lab_whose_owner_was_killed_is_ended_whole(name: str, tmp_path: Path) -> None:
    owner, pids = start_owner(name, tmp_path)
    try:
        assert [record.process(pid) is not None for pid in pids] == [True, True]
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert record.down(name)
        assert [record.process(pid) for pid in pids] == [None, None]
        assert not network.exists(record.namespace_of(name))
        assert record.read(name) is None
        assert list(tmp_path.iterdir()) == []
    finally:
        finish(owner)


def test_a_lab_that_runs_is_ended_with_its_owner(name: str, tmp_path: Path) -> None:
    owner, pids = start_owner(name, tmp_path)
    try:
        assert record.down(name)
        assert owner.wait(timeout=5) == -signal.SIGTERM
        assert [record.process(pid) for pid in pids] == [None, None]
    finally:
        finish(owner)


def test_a_second_lab_is_refused_while_the_first_is_up(name: str, tmp_path: Path) -> None:
    owner, pids = start_owner(name, tmp_path)
    try:
        with pytest.raises(PxebootError, match="already up") as caught:
            record.claim(owned_by(os.getpid(), name, tmp_path))
        assert caught.value.hint == "end it first: pxeboot lab down"
        assert [record.process(pid) is not None for pid in pids] == [True, True]
    finally:
        finish(owner)


def test_what_a_crashed_lab_left_is_cleared_when_the_next_begins(name: str, tmp_path: Path) -> None:
    owner, pids = start_owner(name, tmp_path)
    finish(owner)
    assert record.claim(owned_by(os.getpid(), name, tmp_path))
    assert [record.process(pid) for pid in pids] == [None, None]
    assert not network.exists(record.namespace_of(name))


def test_a_lab_that_ended_well_leaves_nothing_to_clear(name: str, tmp_path: Path) -> None:
    mine = owned_by(os.getpid(), name, tmp_path)
    assert not record.claim(mine)
    record.clear(name, mine)
    assert not record.down(name)


def test_logs_stay_when_everything_else_goes(name: str, tmp_path: Path) -> None:
    mine = owned_by(os.getpid(), name, tmp_path)
    library = tmp_path / "library"
    mine.server_folder.mkdir()
    (library / "tags").mkdir(parents=True)
    (mine.server_folder / "images").symlink_to(library)
    (tmp_path / "server.log").touch()
    record.clear(name, mine)
    assert {path.name for path in tmp_path.iterdir()} == {"server.log", "library"}
    assert (library / "tags").is_dir()


def test_a_pid_that_is_somebody_else_now_is_left_alone(
    name: str, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    now = record.process(sleeper.pid)
    assert now is not None
    earlier = Process(pid=now.pid, started=now.started - 1)
    record.clear(name, Record(name=name, owner=earlier, folder=tmp_path, processes=(earlier,)))
    assert record.alive(now)


def test_a_dead_owner_is_known_by_its_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    now = record.process(sleeper.pid)
    assert now is not None
    assert record.alive(now)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not record.alive(now)  # though its zombie is still in /proc


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        known = record.process(stubborn.pid)
        assert known is not None
        record.end([known], grace_seconds=0.2)
        assert stubborn.wait(timeout=2) == -signal.SIGKILL
    finally:
        os.killpg(stubborn.pid, signal.SIGKILL)
        stubborn.communicate()


def test_a_record_cut_short_does_not_stand_in_the_way(name: str, tmp_path: Path) -> None:
    (record.RUN_DIR / f"lab-{name}.json").parent.mkdir(exist_ok=True)
    (record.RUN_DIR / f"lab-{name}.json").write_text('{"name": "te')
    network.create(record.namespace_of(name), [])
    assert record.down(name)
    assert not network.exists(record.namespace_of(name))
    assert not record.claim(owned_by(os.getpid(), name, tmp_path))
