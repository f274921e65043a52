"""What every store promises (SQLite's is the one there is)."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from uuid import UUID

import pytest

from pxeboot import lasting
from pxeboot.balancer.table import Made, ServiceKey
from pxeboot.config import AddressRange
from pxeboot.errors import PxebootError
from pxeboot.inventory import sqlite
from pxeboot.inventory.boot import Boot, Stage
from pxeboot.inventory.lease import LeaseState
from pxeboot.inventory.node import Node
from pxeboot.inventory.overlay import Laid, NodeFile, Overlay
from pxeboot.inventory.sqlite import SqliteStore
from pxeboot.inventory.store import BOOTS_KEPT, Store, Subnet, open_store
from pxeboot.mac import Mac

NET = IPv4Network("10.0.0.0/24")
SUBNET = Subnet(NET, (AddressRange(first=NET[10], last=NET[20]),), frozenset({NET[1]}))
A, B = Mac("52:54:00:00:00:0a"), Mac("52:54:00:00:00:0b")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path)
    await opened.use_subnets([SUBNET])
    yield opened
    await opened.close()


async def reopened(tmp_path: Path) -> Store:
    again = open_store(tmp_path)
    await again.use_subnets([SUBNET])
    return again


async def test_a_lease_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    assert await store.offer(NET, A, None, 0.0, 10.0) == NET[10]
    assert await store.bind(NET, A, NET[10], 0.0, 100.0)
    again = await reopened(tmp_path)  # what another process would find at this moment
    lease = await again.lease_of(NET, A)
    assert lease is not None
    assert (lease.address, lease.expires, lease.state) == (NET[10], 100.0, LeaseState.BOUND)
    assert await again.offer(NET, B, NET[10], 1.0, 10.0) == NET[11]
    await again.close()


async def test_an_offer_alone_is_not_written(store: Store, tmp_path: Path) -> None:
    await store.offer(NET, A, None, 0.0, 10.0)
    again = await reopened(tmp_path)
    assert await again.leases() == []
    await again.close()


async def test_an_address_is_bound_to_one_machine(store: Store) -> None:
    assert await store.bind(NET, A, NET[10], 0.0, 100.0)
    assert not await store.bind(NET, B, NET[10], 1.0, 100.0)


async def test_promises_are_on_disk_once_they_are_written(store: Store, tmp_path: Path) -> None:
    assert await store.promise(NET, A, NET[10], 0.0, 100.0)
    assert not await store.promise(NET, B, NET[10], 1.0, 100.0)
    assert not await store.promise(NET, A, NET[11], 1.0, 100.0)  # it has another, which it would be offered
    assert await store.promise(NET, B, NET[11], 1.0, 100.0)
    await store.written()
    with sqlite3.connect(tmp_path / "pxeboot.sqlite") as db:
        kept = set(db.execute("SELECT address, mac, expires FROM lease"))
    db.close()
    assert kept == {(str(NET[10]), A, 100.0), (str(NET[11]), B, 101.0)}


async def test_what_would_be_offered_can_be_asked_without_holding_it(store: Store) -> None:
    assert await store.preferred(NET, A, None, 0.0) is None
    assert await store.preferred(NET, A, NET[12], 0.0) == NET[12]
    await store.bind(NET, A, NET[10], 0.0, 100.0)
    assert await store.preferred(NET, A, NET[12], 0.0) == NET[10]
    assert await store.preferred(NET, B, NET[10], 0.0) is None
    assert len(await store.leases()) == 1


async def test_a_living_machine_keeps_its_lease(store: Store) -> None:
    await store.bind(NET, A, NET[10], 0.0, 100.0)
    await store.extend(NET, A, 40.0, 100.0)
    before = await store.lease_of(NET, A)
    await store.extend(NET, A, 60.0, 100.0)
    after = await store.lease_of(NET, A)
    assert before is not None
    assert after is not None
    assert (before.expires, after.expires) == (100.0, 160.0)


async def test_what_was_given_back_is_written_as_such(store: Store, tmp_path: Path) -> None:
    await store.bind(NET, A, NET[10], 0.0, 100.0)
    assert await store.release(NET, A, NET[10], 1.0)
    await store.bind(NET, B, NET[11], 0.0, 100.0)
    assert await store.decline(NET, B, NET[11], 1.0)
    again = await reopened(tmp_path)
    assert [lease.state for lease in await again.leases()] == [LeaseState.RELEASED, LeaseState.DECLINED]
    await again.close()


async def test_an_address_in_conflict_stays_out_of_use_after_a_restart(store: Store, tmp_path: Path) -> None:
    assert await store.candidates(NET, 1, 0.0) == [NET[10]]
    assert await store.quarantine(NET, NET[10], B, 0.0)
    again = await reopened(tmp_path)
    assert [(lease.mac, lease.state) for lease in await again.leases()] == [(B, LeaseState.CONFLICT)]
    assert await again.offer(NET, A, NET[10], 1.0, 10.0) == NET[11]
    await again.close()


async def test_a_lifted_quarantine_stays_lifted_after_a_restart(store: Store, tmp_path: Path) -> None:
    assert not await store.lift(NET, NET[10], 0.0)
    await store.quarantine(NET, NET[10], B, 0.0)
    assert await store.lift(NET, NET[10], 1.0)
    again = await reopened(tmp_path)
    assert await again.offer(NET, A, NET[10], 2.0, 10.0) == NET[10]
    await again.close()


async def test_nodes_and_their_boots_are_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    node = Node(A, "web1", UUID(int=5), "web", NET[50], 12.5)
    await store.save_node(node)
    boot = Boot.begin("ab" * 8, A, "x86 BIOS", 1.0).step(Stage.ADDRESS, 2.0, address=NET[50])
    await store.save_boot(boot)
    again = await reopened(tmp_path)
    assert await again.node(A) == node
    assert await again.boot(A) == boot
    assert await again.offer(NET, A, None, 0.0, 10.0) == NET[50]
    await again.close()


async def test_a_name_or_address_belongs_to_one_node(store: Store) -> None:
    await store.save_node(Node(A, "web1", address=NET[50]))
    with pytest.raises(PxebootError, match="'web1' is 52:54:00:00:00:0a's"):
        await store.save_node(Node(B, "web1"))
    with pytest.raises(PxebootError, match=r"10\.0\.0\.50 is reserved for web1"):
        await store.save_node(Node(B, "web2", address=NET[50]))
    assert await store.node(B) is None


async def test_what_an_operator_said_of_a_node_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    node = Node(A, "web1", UUID(int=5), by_uuid=True, known_since=7.5, options={"42": ["10.0.0.3"]})
    await store.save_node(node)
    again = await reopened(tmp_path)
    assert await again.node(A) == node
    assert await again.node_of_uuid(UUID(int=5)) == node
    await again.close()


async def test_a_uuid_belongs_to_one_node_and_only_where_it_was_named_by_it(store: Store) -> None:
    await store.save_node(Node(A, "web1", UUID(int=5), by_uuid=True))
    await store.save_node(Node(B, "web2", UUID(int=5)))  # it only told it
    named = await store.node_of_uuid(UUID(int=5))
    assert named is not None
    assert named.mac == A
    with pytest.raises(PxebootError, match=r"the UUID .*5 is web1's"):
        await store.save_node(Node(B, "web2", UUID(int=5), by_uuid=True))
    await store.forget_node(A)
    assert await store.node_of_uuid(UUID(int=5)) is None


async def test_a_node_moves_to_another_card_with_its_boots_and_its_address(
    store: Store, tmp_path: Path
) -> None:
    await store.save_node(Node(A, "web1", UUID(int=5), address=NET[12], by_uuid=True))
    await store.save_node(Node(B, "node-b"))
    await store.save_boot(Boot.begin("ab" * 8, A, "", 1.0))
    await store.save_boot(Boot.begin("cd" * 8, B, "", 2.0))
    await store.move_node(A, Node(B, "web1", UUID(int=5), address=NET[12], by_uuid=True))
    again = await reopened(tmp_path)
    for one in (store, again):
        assert [(node.mac, node.name) for node in await one.nodes()] == [(B, "web1")]
        assert [(boot.id, boot.mac) for boot in await one.boots(B)] == [("ab" * 8, B)]
        assert await one.boots(A) == []
        assert await one.offer(NET, B, None, 0.0, 10.0) == NET[12]
        named = await one.node_of_uuid(UUID(int=5))
        assert named is not None
        assert named.mac == B
    await again.close()


async def test_drains_are_kept_move_with_their_node_and_go_with_it(store: Store, tmp_path: Path) -> None:
    await store.save_node(Node(A, "web1", UUID(int=5), by_uuid=True))
    await store.save_drain(A, "", 1.0)
    await store.save_drain(A, "www", 2.0)
    await store.save_drain(A, "", None)
    again = await reopened(tmp_path)
    assert await again.drains() == {(A, "www"): 2.0}
    await again.close()
    await store.move_node(A, Node(B, "web1", UUID(int=5), by_uuid=True))
    again = await reopened(tmp_path)
    assert await store.drains() == await again.drains() == {(B, "www"): 2.0}
    await again.close()
    await store.forget_node(B)
    again = await reopened(tmp_path)
    assert await store.drains() == await again.drains() == {}
    await again.close()


async def test_what_was_made_in_the_kernel_is_remembered(store: Store, tmp_path: Path) -> None:
    www = Made(ServiceKey(4, "tcp", NET[1], 80), NET[1], "eth1")
    marked = Made(ServiceKey(6, mark=7), ip_address("fd00::1"))
    for made in (www, marked):
        await store.save_made(made)
    again = await reopened(tmp_path)
    assert await again.made() == await store.made() == {www.key: www, marked.key: marked}
    await store.forget_made(www.key)
    assert set(await store.made()) == {marked.key}
    await again.close()


async def test_a_store_of_the_first_format_is_brought_up(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "pxeboot.sqlite") as db:
        db.executescript(f"""
            CREATE TABLE lease (address TEXT PRIMARY KEY, mac TEXT NOT NULL, state TEXT NOT NULL,
                                expires REAL NOT NULL);
            CREATE TABLE node (mac TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, uuid TEXT, grp TEXT,
                               address TEXT UNIQUE, first_seen REAL);
            CREATE TABLE boot (id TEXT PRIMARY KEY, mac TEXT NOT NULL, started REAL NOT NULL,
                               record TEXT NOT NULL);
            CREATE INDEX boot_of ON boot (mac, started);
            INSERT INTO lease VALUES ('10.0.0.10', '{A}', 'bound', 100.0);
            INSERT INTO node VALUES ('{A}', 'web1', NULL, NULL, NULL, 5.0);
            INSERT INTO node VALUES ('{B}', 'node-52540000000b', NULL, NULL, NULL, 6.0);
            PRAGMA user_version = 1;
        """)
    db.close()
    for _ in range(2):
        store = await reopened(tmp_path)
        assert {node.mac: node.known_since for node in await store.nodes()} == {A: 5.0, B: None}
        assert [lease.mac for lease in await store.leases()] == [A]
        await store.save_node(Node(B, "node-52540000000b", first_seen=6.0))
        await store.close()


async def test_what_is_laid_over_a_nodes_root_is_kept_and_for_the_owner_only(
    store: Store, tmp_path: Path
) -> None:
    overlay = Overlay(
        {"site": "north"},
        {"/etc/key": NodeFile(bytes(range(256)), Laid(mode=0o600, owner="www-data", template=True))},
        lasting.make("web1"),
    )
    await store.save_node(Node(A, "web1", overlay=overlay))
    again = await reopened(tmp_path)
    kept = await again.node(A)
    assert kept is not None
    assert kept.overlay == overlay
    await again.close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("pxeboot.sqlite*")}
    assert set(modes.values()) == {0o600}


async def test_a_forgotten_node_is_gone_with_its_boots(store: Store, tmp_path: Path) -> None:
    await store.save_node(Node(A, "web1", address=NET[12]))
    await store.save_boot(Boot.begin("ab" * 8, A, "", 1.0))
    assert await store.forget_node(A)
    assert not await store.forget_node(A)
    again = await reopened(tmp_path)
    assert (await again.nodes(), await again.boots(A)) == ([], [])
    await again.close()


async def test_only_the_last_boots_are_kept(store: Store, tmp_path: Path) -> None:
    for number in range(BOOTS_KEPT + 3):
        await store.save_boot(Boot.begin(f"{number:016x}", A, "", float(number)))
    again = await reopened(tmp_path)
    for one in (store, again):
        boots = await one.boots(A)
        assert [boot.started for boot in boots] == [float(n) for n in range(BOOTS_KEPT + 2, 2, -1)]
    await again.close()


async def test_many_promises_share_a_commit(store: Store) -> None:
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    assert isinstance(store, SqliteStore)
    store._db.set_trace_callback(count)
    macs = [Mac(f"52:54:00:00:01:{n:02x}") for n in range(11)]
    bound = await asyncio.gather(
        *(store.bind(NET, mac, NET[10 + n], 0.0, 100.0) for n, mac in enumerate(macs))
    )
    assert all(bound)
    assert commits <= 2


async def test_a_disk_that_fails_breaks_no_promise_and_is_tried_again(store: Store) -> None:
    assert isinstance(store, SqliteStore)
    store._db.execute("PRAGMA query_only = ON")  # every write fails, as on a full disk
    with pytest.raises(OSError, match="cannot be written"):
        await store.bind(NET, A, NET[10], 0.0, 100.0)
    store._db.execute("PRAGMA query_only = OFF")
    assert await store.bind(NET, A, NET[10], 1.0, 100.0)


async def test_nobody_waits_for_ever_for_a_commit_that_fails_by_a_bug(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_commit", lambda *_: 1 // 0)
        with pytest.raises(OSError, match="cannot be written"):
            await asyncio.wait_for(store.bind(NET, A, NET[10], 0.0, 100.0), 5)
    assert await store.bind(NET, A, NET[10], 1.0, 100.0)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pxeboot.sqlite").write_bytes(b"certainly not a database" * 100)
    with pytest.raises(PxebootError, match=r"pxeboot\.sqlite"):
        open_store(tmp_path)


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "pxeboot.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(PxebootError, match="its format is 99"):
        open_store(tmp_path)


def test_every_acknowledged_lease_survives_kill_9(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys, time
        from pathlib import Path
        from pxeboot.config import AddressRange
        from pxeboot.inventory.store import Subnet, open_store
        from pxeboot.mac import Mac
        from ipaddress import IPv4Network

        async def promise(store, net, number):
            mac = Mac.from_bytes(number.to_bytes(6, "big"))
            address = await store.offer(net, mac, None, time.time(), 60)
            if await store.bind(net, mac, address, time.time(), 3600):
                print(mac, address, flush=True)

        async def main():
            net = IPv4Network("10.0.0.0/16")
            store = open_store(Path(sys.argv[1]))
            ranges = (AddressRange(first=net[10], last=net[60000]),)
            await store.use_subnets([Subnet(net, ranges, frozenset())])
            for start in range(0, 50000, 20):
                await asyncio.gather(*(promise(store, net, start + n) for n in range(20)))

        asyncio.run(main())
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().split() for _ in range(300)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [line.split() for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    process.wait(timeout=10)
    with sqlite3.connect(tmp_path / "pxeboot.sqlite") as db:
        kept = dict(db.execute("SELECT mac, address FROM lease"))
    db.close()
    assert len(acknowledged) >= 300
    assert [line for line in acknowledged if kept.get(line[0]) != line[1]] == []
    assert len(set(kept.values())) == len(kept)
    assert IPv4Address(next(iter(kept.values())))
