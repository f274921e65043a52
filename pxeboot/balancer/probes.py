"""The checks themselves: one look at one target, each bounded in time and in bytes.

A check goes to the node's own address, with every way of forwarding. For direct routing and tunnels the
virtual address on the node would be nearer to what clients see, but the director has that address itself, so
no socket of ours reaches the node by it; that it is set there is the agent's word, given before `ready`.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import struct
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Awaitable, Callable

import aiohttp
import dnslib
from yarl import URL

from pxeboot.balancer.check import CheckConfig
from pxeboot.balancer.target import Outcome, Target

BODY_BYTES = 65536
OUTPUT_BYTES = 4096
_SHOWN = 80
"""Characters of somebody else's text in a sentence."""

Probe = Callable[[CheckConfig, Target], Awaitable[str]]


class CheckFailed(Exception):
    """The target was reached and is not well; the message is the sentence for the operator."""


async def look(check: CheckConfig, target: Target) -> Outcome:
    """Look at a target once, for `timeout_seconds` at most. Raises nothing that the target can cause."""
    at, began = time.time(), time.monotonic()
    good = False
    try:
        async with asyncio.timeout(check.timeout_seconds):
            text = await PROBES[check.kind](check, target)
        good = True
    except CheckFailed as failed:
        text = str(failed)
    except TimeoutError:
        text = f"no answer within {check.timeout_seconds:g} s"
    except OSError as error:
        text = _told(error)
    return Outcome(at, good, text, time.monotonic() - began)


async def tcp(check: CheckConfig, target: Target) -> str:
    """It accepts a connection, which we then reset: one closed in good order would hold its port for 60 s."""
    with socket.socket(_family(target), socket.SOCK_STREAM) as line:
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.get_running_loop().sock_connect(line, (str(target.address), target.port))
    return "connected"


async def http(check: CheckConfig, target: Target) -> str:
    """It answers GET with a wanted status and body. Always a new connection, for accepting is part of it."""
    host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
    url = URL(f"{check.kind}://{host}:{target.port}{check.path}", encoded=True)
    named = check.host or f"{host}:{target.port}"
    headers = {"Accept-Encoding": "identity", "User-Agent": "pxeboot", "Host": named}
    connector = aiohttp.TCPConnector(ssl=check.verify, force_close=True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.get(
                url, headers=headers, allow_redirects=False, server_hostname=_tls_name(check)
            ) as answer,
        ):
            return await _judge_answer(check, answer)
    except aiohttp.ClientConnectorCertificateError as error:
        raise CheckFailed(f"certificate refused: {_short(error.certificate_error)}") from error
    except aiohttp.ClientConnectorError as error:
        raise error.os_error from error
    except aiohttp.ServerDisconnectedError as error:
        raise CheckFailed("it closed the connection without an answer") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise CheckFailed(f"no HTTP answer: {_short(error)}") from error


def _tls_name(check: CheckConfig) -> str | None:
    """The name for the TLS handshake (RFC 6066 §3: without a port)."""
    return check.host.rpartition(":")[0] or check.host if check.kind == "https" and check.host else None


async def _judge_answer(check: CheckConfig, answer: aiohttp.ClientResponse) -> str:
    if answer.status not in check.status:
        wanted = " or ".join(map(str, check.status))
        raise CheckFailed(f"status {answer.status}, wanted {wanted}")
    if check.body is not None:
        body = bytearray()
        while len(body) < BODY_BYTES and (more := await answer.content.read(BODY_BYTES - len(body))):
            body += more
        if not re.search(check.body, body.decode(errors="replace")):
            raise CheckFailed(f"status {answer.status}, but {check.body!r} is not in its body")
    return f"status {answer.status}"


async def dns(check: CheckConfig, target: Target) -> str:
    """It answers a question over UDP without an error, and with the wanted record if there is one."""
    assert check.query is not None
    question = dnslib.DNSRecord.question(check.query, check.type)
    loop = asyncio.get_running_loop()
    with socket.socket(_family(target), socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.connect(
            (str(target.address), target.port)
        )  # so that a refusal by ICMP is heard, and nobody else
        await loop.sock_sendall(line, question.pack())
        while True:
            answer = _decode(await loop.sock_recv(line, BODY_BYTES))
            if answer is not None and answer.header.id == question.header.id and answer.header.qr:
                return _judge_records(check, answer)


def _decode(data: bytes) -> dnslib.DNSRecord | None:
    with contextlib.suppress(dnslib.DNSError, ValueError, IndexError):
        return dnslib.DNSRecord.parse(data)
    return None


def _judge_records(check: CheckConfig, answer: dnslib.DNSRecord) -> str:
    status = dnslib.RCODE.get(answer.header.rcode)
    if answer.header.rcode != dnslib.RCODE.NOERROR:
        raise CheckFailed(f"{status}, wanted NOERROR")
    records = [str(record.rdata) for record in answer.rr]
    if check.answer is not None and _plain(check.answer) not in map(_plain, records):
        raise CheckFailed(f"{check.answer} is not among its answers ({_short(', '.join(records) or 'none')})")
    return f"{status}, {len(records)} record{'s' * (len(records) != 1)}"


def _plain(record: str) -> str:
    return record.strip('"').rstrip(".").lower()


async def script(check: CheckConfig, target: Target) -> str:
    """The operator's program ends with status 0. Whatever it has started ends with the look."""
    told = {
        "PXEBOOT_ADDRESS": str(target.address),
        "PXEBOOT_PORT": str(target.port),
        "PXEBOOT_NODE": target.node,
        "PXEBOOT_SERVICE": target.service,
    }
    output, its_end = os.pipe()  # our own: asyncio's would have `wait` last until everybody has closed it
    try:
        process = await asyncio.create_subprocess_exec(
            *check.command,
            env={**os.environ, **told},
            stdin=DEVNULL,
            stdout=its_end,
            stderr=STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        os.close(output)
        raise CheckFailed(f"cannot run {check.command[0]}: {_told(error)}") from error
    finally:
        os.close(its_end)
    try:
        said = await _follow(process, output)
    finally:
        _end_group(process)
        await process.wait()
    first = _short(said.decode(errors="replace").strip().partition("\n")[0])
    if process.returncode != 0:
        raise CheckFailed(_ending(process.returncode or 0) + (f": {first}" if first else ""))
    return first or "it ended with 0"


async def _follow(process: Process, output: int) -> bytearray:
    """Wait for a program and read all it says, so that it never waits for us; only the beginning is kept."""
    said = bytearray()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", 0)
    )
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_collect(reader, said))
            await process.wait()
            _end_group(process)  # what it left behind holds the pipe
    finally:
        transport.close()
    return said


async def _collect(reader: asyncio.StreamReader, said: bytearray) -> None:
    while more := await reader.read(OUTPUT_BYTES):
        said += more[: OUTPUT_BYTES - len(said)]


def _end_group(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ending(status: int) -> str:
    return f"it ended with {status}" if status > 0 else f"it was ended by signal {-status}"


PROBES: dict[str, Probe] = {"tcp": tcp, "http": http, "https": http, "dns": dns, "script": script}
"""By the check's `kind`: returns a sentence where the target is well; raises CheckFailed or OSError."""


def _family(target: Target) -> socket.AddressFamily:
    return socket.AF_INET6 if target.address.version == 6 else socket.AF_INET


def _told(error: OSError) -> str:
    """A system error in small words: "connection refused"."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    words = os.strerror(error.errno) if error.errno else str(error)
    return words[:1].lower() + words[1:]


def _short(text: object) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= _SHOWN else words[: _SHOWN - 1] + "…"
