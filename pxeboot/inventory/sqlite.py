"""The embedded store: everything in memory, SQLite under it, many promises to a commit."""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from socket import inet_ntoa
from typing import Any
from uuid import UUID

from pxeboot.balancer.table import Made, ServiceKey
from pxeboot.errors import PxebootError
from pxeboot.inventory.boot import Boot, from_json, to_json
from pxeboot.inventory.lease import Lease, LeaseState
from pxeboot.inventory.node import Node
from pxeboot.inventory.overlay import Overlay
from pxeboot.inventory.pool import Pool
from pxeboot.inventory.store import BOOTS_KEPT, Subnet
from pxeboot.mac import Mac
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

COMMIT_SECONDS = 0.005
"""From one commit to the next under load: a commit costs as much CPU as ten leases, so let some gather."""
CACHE_KIB = 32 << 10
"""Of pages: 100 000 leases take 10 MiB, and to read back what fell out costs a tenth of a lease's writing."""
COMPLAIN_SECONDS = 60.0
"""How often a failure that lasts is told again."""
SCHEMA_VERSION = 4
_BALANCER = """
CREATE TABLE drain (mac TEXT, service TEXT, since REAL NOT NULL, PRIMARY KEY (mac, service));
CREATE TABLE made (key TEXT PRIMARY KEY, vip TEXT NOT NULL, interface TEXT NOT NULL);
"""
_SCHEMA = f"""
CREATE TABLE lease (address TEXT PRIMARY KEY, mac TEXT NOT NULL, state TEXT NOT NULL, expires REAL NOT NULL);
CREATE TABLE node (mac TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, uuid TEXT, grp TEXT, address TEXT UNIQUE,
                   first_seen REAL, by_uuid INTEGER NOT NULL DEFAULT 0, known_since REAL,
                   options TEXT NOT NULL DEFAULT '{{}}', overlay TEXT NOT NULL DEFAULT '{{}}');
CREATE TABLE boot (id TEXT PRIMARY KEY, mac TEXT NOT NULL, started REAL NOT NULL, record TEXT NOT NULL);
CREATE INDEX boot_of ON boot (mac, started);
{_BALANCER}
"""
_MIGRATIONS = {
    # From the version that is the key to the next one.
    1: """
ALTER TABLE node ADD COLUMN by_uuid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN known_since REAL;
ALTER TABLE node ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
UPDATE node SET known_since = coalesce(first_seen, 0) WHERE grp IS NOT NULL OR address IS NOT NULL
    OR first_seen IS NULL OR name <> 'node-' || replace(mac, ':', '');
""",
    2: _BALANCER,
    3: "ALTER TABLE node ADD COLUMN overlay TEXT NOT NULL DEFAULT '{}';",
}
# One statement for all of them: SQLite gives up the interpreter's lock for each statement, and to get it back
# from a thread that is busy answering takes up to five milliseconds. And not OR REPLACE, which takes a row
# and its entry in the index out and puts them back: 4.6 us per lease among 2 000, not 2.8; among 50 000 15.7,
# not 9.6.
_SAVE_LEASES = """
INSERT INTO lease SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?) WHERE true
    ON CONFLICT DO UPDATE SET mac = excluded.mac, state = excluded.state, expires = excluded.expires
"""
_SAVE_NODE = "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SAVE_BOOT = "INSERT OR REPLACE INTO boot VALUES (?, ?, ?, ?)"

_STATES = {state: state.value for state in LeaseState}
_NOWHERE = IPv4Network("0.0.0.0/32")
_NO_POOL = _NOWHERE, Pool(_NOWHERE, (), frozenset())

Statement = tuple[str, tuple[Any, ...]]
Claim = tuple[str, object]
"""A name, address or UUID that one node has and no other."""


@dataclass(slots=True)
class Unwritten:
    """What the next commit takes."""

    leases: dict[bytes, Lease] = field(default_factory=dict)
    """By address: only the last word on each is written."""
    statements: list[Statement] = field(default_factory=list)


class SqliteStore:
    """A `Store` in one file. Reads come from memory; writes of one moment share one commit."""

    def __init__(self, path: Path) -> None:
        """Open or create the file and read it. Raises PxebootError."""
        self._path = path
        self._db = _open(path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._unwritten = Unwritten()
        self._waiting: list[asyncio.Future[None]] = []  # for the commit that takes what is unwritten now
        self._next_commit = 0.0  # not before, in the event loop's seconds
        self._told_failure: float | None = None  # monotonic seconds
        self._tasks = Tasks()
        self._flushing: asyncio.Task[None] | None = None
        self._pools: dict[IPv4Network, Pool] = {}
        self._asked = _NO_POOL
        self._elsewhere = _read_leases(self._db)  # leases of networks that are not served
        self._nodes = {node.mac: node for node in _read_nodes(self._db)}
        self._owners: dict[Claim, Mac] = {}
        self._index()
        self._boots = _read_boots(self._db)
        self._drains = _read_drains(self._db)
        self._made = _read_made(self._db)

    # Leases

    async def use_subnets(self, subnets: Sequence[Subnet]) -> None:
        known = {lease.address: lease for lease in self._elsewhere}
        known |= {lease.address: lease for pool in self._pools.values() for lease in pool}
        self._pools = {
            item.network: Pool(
                item.network,
                item.ranges,
                item.own,
                [lease for address, lease in known.items() if address in item.network],
            )
            for item in subnets
        }
        self._asked = _NO_POOL
        self._elsewhere = [
            lease for address, lease in known.items() if not any(address in net for net in self._pools)
        ]
        self._reserve()

    def _pool(self, network: IPv4Network) -> Pool:
        """The pool of a served network, mostly the one asked for before: hashing takes a microsecond."""
        if network is not self._asked[0]:
            self._asked = network, self._pools[network]
        return self._asked[1]

    async def offer(
        self, network: IPv4Network, mac: Mac, wanted: IPv4Address | None, now: float, hold_seconds: float
    ) -> IPv4Address | None:
        return self._pool(network).offer(mac, wanted, now, hold_seconds)

    async def bind(
        self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float, seconds: float
    ) -> bool:
        pool = self._pool(network)
        if not pool.allows(mac, address, now):
            return False
        await self._write_lease(pool.bind(mac, address, now + seconds))
        return True

    async def preferred(
        self, network: IPv4Network, mac: Mac, wanted: IPv4Address | None, now: float
    ) -> IPv4Address | None:
        return self._pool(network).preferred(mac, wanted, now)

    async def promise(
        self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float, seconds: float
    ) -> bool:
        pool = self._pool(network)
        if pool.preferred(mac, address, now) != address:
            return False
        self._unwritten.leases[address.packed] = pool.bind(mac, address, now + seconds)
        return True

    async def written(self) -> None:
        await self._written()

    async def extend(self, network: IPv4Network, mac: Mac, now: float, seconds: float) -> None:
        pool = self._pool(network)
        lease = pool.lease_of(mac)
        if lease is None or lease.state is not LeaseState.BOUND or lease.expires >= now + seconds / 2:
            return
        if pool.allows(mac, lease.address, now):
            await self._write_lease(pool.bind(mac, lease.address, now + seconds))

    async def release(self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float) -> bool:
        return await self._write_change(self._pool(network).release(mac, address, now))

    async def decline(self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float) -> bool:
        return await self._write_change(self._pool(network).decline(mac, address, now))

    async def candidates(self, network: IPv4Network, count: int, now: float) -> list[IPv4Address]:
        return self._pool(network).candidates(count, now)

    async def quarantine(self, network: IPv4Network, address: IPv4Address, holder: Mac, now: float) -> bool:
        return await self._write_change(self._pool(network).quarantine(address, holder, now))

    async def lift(self, network: IPv4Network, address: IPv4Address, now: float) -> bool:
        return await self._write_change(self._pools[network].lift(address, now))

    async def lease_of(self, network: IPv4Network, mac: Mac) -> Lease | None:
        return self._pool(network).lease_of(mac)

    async def lease_at(self, address: IPv4Address) -> Lease | None:
        return next((pool.lease_at(address) for net, pool in self._pools.items() if address in net), None)

    async def leases(self) -> list[Lease]:
        return sorted(
            (lease for pool in self._pools.values() for lease in pool), key=lambda item: item.address
        )

    async def _write_change(self, lease: Lease | None) -> bool:
        if lease is not None:
            await self._write_lease(lease)
        return lease is not None

    async def _write_lease(self, lease: Lease) -> None:
        self._unwritten.leases[lease.address.packed] = lease
        await self._written()

    # Nodes

    async def node(self, mac: Mac) -> Node | None:
        return self._nodes.get(mac)

    async def nodes(self) -> list[Node]:
        return sorted(self._nodes.values(), key=lambda node: node.name)

    async def node_of_uuid(self, uuid: UUID) -> Node | None:
        mac = self._owners.get(("UUID", uuid))
        return None if mac is None else self._nodes[mac]

    async def save_node(self, node: Node) -> None:
        await self.save_nodes((node,))

    async def save_nodes(self, nodes: Sequence[Node]) -> None:
        saved = {node.mac: node for node in nodes}
        self._refuse_shared(saved)
        before = [self._nodes[mac] for mac in saved if mac in self._nodes]
        for claim in (claim for node in before for claim in _claims(node)):
            self._owners.pop(claim, None)
        self._owners.update((claim, node.mac) for node in nodes for claim in _claims(node))
        self._nodes |= saved
        if {(node.mac, node.address) for node in before if node.address} != {
            (node.mac, node.address) for node in nodes if node.address
        }:
            self._reserve()
        await self._write(*map(_saving, nodes))

    def _refuse_shared(self, saved: Mapping[Mac, Node]) -> None:
        """Raises PxebootError where a node of these would share what is to be its own."""
        wanted: dict[Claim, Mac] = {}
        for node in saved.values():
            for claim in _claims(node):
                owner = self._owners.get(claim, node.mac)
                if owner in saved:  # it may be giving it up
                    owner = wanted.setdefault(claim, node.mac)
                if owner != node.mac:
                    raise _taken(claim, saved.get(owner) or self._nodes[owner])

    async def move_node(self, mac: Mac, node: Node) -> None:
        self._nodes.pop(mac, None)
        self._nodes[node.mac] = node
        boots = [replace(boot, mac=node.mac) for boot in self._boots.pop(mac, [])]
        self._boots[node.mac] = boots
        drains = {service: since for (owner, service), since in self._drains.items() if owner == mac}
        for service, since in drains.items():
            del self._drains[mac, service]
            self._drains[node.mac, service] = since
        self._index()
        await self._write(
            ("DELETE FROM node WHERE mac IN (?, ?)", (mac, node.mac)),
            ("DELETE FROM boot WHERE mac IN (?, ?)", (mac, node.mac)),
            _saving(node),
            *(_saving_boot(boot) for boot in boots),
            ("UPDATE OR REPLACE drain SET mac = ? WHERE mac = ?", (node.mac, mac)),
        )

    async def forget_node(self, mac: Mac) -> bool:
        if self._nodes.pop(mac, None) is None:
            return False
        self._boots.pop(mac, None)
        self._drains = {key: since for key, since in self._drains.items() if key[0] != mac}
        self._index()
        await self._write(
            ("DELETE FROM node WHERE mac = ?", (mac,)),
            ("DELETE FROM boot WHERE mac = ?", (mac,)),
            ("DELETE FROM drain WHERE mac = ?", (mac,)),
        )
        return True

    def _index(self) -> None:
        self._owners = {claim: node.mac for node in self._nodes.values() for claim in _claims(node)}
        self._reserve()

    def _reserve(self) -> None:
        wishes = {node.mac: node.address for node in self._nodes.values() if node.address is not None}
        for pool in self._pools.values():
            pool.reserve(wishes)

    # Boots

    async def boot(self, mac: Mac) -> Boot | None:
        boots = self._boots.get(mac)
        return boots[0] if boots else None

    async def boots(self, mac: Mac) -> list[Boot]:
        return list(self._boots.get(mac, ()))

    async def save_boot(self, boot: Boot, *, durable: bool = True) -> None:
        boots = self._boots.setdefault(boot.mac, [])
        forgotten: list[Boot] = []
        if boots and boots[0].id == boot.id:
            boots[0] = boot
        else:
            boots.insert(0, boot)
            forgotten = boots[BOOTS_KEPT:]
            del boots[BOOTS_KEPT:]
        if durable:
            deletions = (("DELETE FROM boot WHERE id = ?", (old.id,)) for old in forgotten)
            await self._write(_saving_boot(boot), *deletions)

    # The balancer

    async def drains(self) -> Mapping[tuple[Mac, str], float]:
        return dict(self._drains)

    async def save_drain(self, mac: Mac, service: str, since: float | None) -> None:
        if since is None:
            self._drains.pop((mac, service), None)
            await self._write(("DELETE FROM drain WHERE mac = ? AND service = ?", (mac, service)))
        else:
            self._drains[mac, service] = since
            await self._write(("INSERT OR REPLACE INTO drain VALUES (?, ?, ?)", (mac, service, since)))

    async def made(self) -> Mapping[ServiceKey, Made]:
        return dict(self._made)

    async def save_made(self, made: Made) -> None:
        self._made[made.key] = made
        values = (str(made.key), str(made.vip), made.interface)
        await self._write(("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", values))

    async def forget_made(self, key: ServiceKey) -> None:
        self._made.pop(key, None)
        await self._write(("DELETE FROM made WHERE key = ?", (str(key),)))

    # The disk

    async def _write(self, *statements: Statement) -> None:
        """Return when these statements are on disk. Raises OSError."""
        self._unwritten.statements += statements
        await self._written()

    async def _written(self) -> None:
        """Return when all that is unwritten now is on disk; everybody who asks meanwhile shares a commit."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._flushing is None:
            self._flushing = self._tasks.spawn(self._flush(), "store commits")
        await done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                await asyncio.sleep(self._next_commit - loop.time())
                self._next_commit = loop.time() + COMMIT_SECONDS
                unwritten, self._unwritten = self._unwritten, Unwritten()
                waiting, self._waiting = self._waiting, []
                try:
                    await loop.run_in_executor(self._writer, _commit, self._db, unwritten)
                except sqlite3.Error as error:
                    self._tell_failure(error)
                    _answer(waiting, OSError(f"the store cannot be written: {error}"))
                except Exception as error:  # our bug; who waits must not wait for ever
                    log.exception("%s: a commit failed", self._path)
                    _answer(waiting, OSError(f"the store cannot be written: {error}"))
                else:
                    self._tell_recovery()
                    _answer(waiting, None)
        finally:
            self._flushing = None

    def _tell_failure(self, error: sqlite3.Error) -> None:
        """Once, and again while it lasts: a storm must not fill with messages what is left of the disk."""
        now = time.monotonic()
        if self._told_failure is None or now >= self._told_failure + COMPLAIN_SECONDS:
            self._told_failure = now
            log.error(
                "%s cannot be written: %s; nothing is promised to anybody until it can", self._path, error
            )

    def _tell_recovery(self) -> None:
        if self._told_failure is not None:
            self._told_failure = None
            log.warning("%s can be written again", self._path)

    async def close(self) -> None:
        if self._flushing is not None:
            await self._flushing
        self._writer.shutdown()
        self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        path.chmod(0o600)  # host keys are in it; SQLite gives its other files the same mode
        db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute("PRAGMA synchronous = FULL")  # a commit is on disk before anybody is told
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        while version in _MIGRATIONS:
            db.executescript(f"BEGIN; {_MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;")
            version += 1
        if version not in (0, SCHEMA_VERSION):
            raise PxebootError(
                f"{path}: its format is {version}, this pxeboot knows {SCHEMA_VERSION}",
                "use the pxeboot that wrote it, or move the file away",
            )
    except (OSError, sqlite3.Error) as error:
        raise PxebootError(
            f"{path}: {error}", "the state directory must be writable and the file a store of pxeboot"
        ) from error
    return db


def _answer(waiting: Sequence["asyncio.Future[None]"], error: OSError | None) -> None:
    for done in waiting:
        if done.done():
            continue  # it was cancelled: nobody waits any more
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _claims(node: Node) -> list[Claim]:
    """What is this node's only."""
    claims: list[Claim] = [("name", node.name)]
    if node.address is not None:
        claims.append(("address", node.address))
    if node.by_uuid:
        claims.append(("UUID", node.uuid))
    return claims


def _taken(claim: Claim, owner: Node) -> PxebootError:
    match claim:
        case "name", name:
            return PxebootError(f"the name {name!r} is {owner.mac}'s", "choose another name")
        case "address", address:
            return PxebootError(
                f"the address {address} is reserved for {owner.name}", "choose another address"
            )
        case _, uuid:
            return PxebootError(f"the UUID {uuid} is {owner.name}'s", "a UUID is one machine's only")


def _saving(node: Node) -> Statement:
    text = [None if item is None else str(item) for item in (node.uuid, node.group, node.address)]
    more = json.dumps(dict(node.options)), json.dumps(node.overlay.to_json())
    return _SAVE_NODE, (node.mac, node.name, *text, node.first_seen, node.by_uuid, node.known_since, *more)


def _saving_boot(boot: Boot) -> Statement:
    return _SAVE_BOOT, (boot.id, boot.mac, boot.started, json.dumps(to_json(boot)))


def _commit(db: sqlite3.Connection, unwritten: Unwritten) -> None:
    """One transaction, in the writer's thread."""
    rows = [
        # An address's own `str` takes a microsecond more than this; the value of an Enum half of one.
        (inet_ntoa(address), lease.mac, _STATES[lease.state], lease.expires)
        for address, lease in unwritten.leases.items()
    ]
    statements = (
        [(_SAVE_LEASES, (json.dumps(rows),)), *unwritten.statements] if rows else unwritten.statements
    )
    if len(statements) == 1:
        db.execute(*statements[0])  # a transaction of its own
        return
    db.execute("BEGIN")
    try:
        for sql, values in statements:
            db.execute(sql, values)
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _read_leases(db: sqlite3.Connection) -> list[Lease]:
    rows = db.execute("SELECT address, mac, state, expires FROM lease")
    return [
        Lease(IPv4Address(address), Mac(mac), LeaseState(state), expires)
        for address, mac, state, expires in rows
    ]


def _read_nodes(db: sqlite3.Connection) -> list[Node]:
    rows = db.execute(
        "SELECT mac, name, uuid, grp, address, first_seen, by_uuid, known_since, options, overlay FROM node"
    )
    return [
        Node(
            Mac(mac),
            name,
            UUID(uuid) if uuid else None,
            group,
            IPv4Address(address) if address else None,
            first_seen,
            bool(by_uuid),
            known_since,
            json.loads(options),
            Overlay.from_json(json.loads(overlay)),
        )
        for mac, name, uuid, group, address, first_seen, by_uuid, known_since, options, overlay in rows
    ]


def _read_drains(db: sqlite3.Connection) -> dict[tuple[Mac, str], float]:
    rows = db.execute("SELECT mac, service, since FROM drain")
    return {(Mac(mac), service): since for mac, service, since in rows}


def _read_made(db: sqlite3.Connection) -> dict[ServiceKey, Made]:
    rows = db.execute("SELECT key, vip, interface FROM made")
    found = [Made(ServiceKey.parse(key), ip_address(vip), interface) for key, vip, interface in rows]
    return {made.key: made for made in found}


def _read_boots(db: sqlite3.Connection) -> dict[Mac, list[Boot]]:
    boots: dict[Mac, list[Boot]] = {}
    for (record,) in db.execute("SELECT record FROM boot ORDER BY started DESC"):
        boot = from_json(json.loads(record))
        boots.setdefault(boot.mac, []).append(boot)
    return boots
