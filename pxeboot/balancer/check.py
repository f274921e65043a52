"""The `check` of a `[[service]]`: how a real server shows that it works."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator


def _pattern(text: str) -> str:
    """A regular expression. Raises ValueError."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


def _domain(text: str) -> str:
    """A domain name that fits into a DNS message (RFC 1035 §2.3.4). Raises ValueError."""
    labels = text.removesuffix(".").split(".")
    if text != "." and not all(1 <= len(label) <= 63 for label in labels):
        raise ValueError(f"{text!r} is no DNS name: each part between dots has 1 to 63 characters")
    return text


def _statuses(value: object) -> object:
    return (value,) if isinstance(value, int) else value


Pattern = Annotated[str, AfterValidator(_pattern)]
Domain = Annotated[str, AfterValidator(_domain)]
Status = Annotated[int, Field(ge=100, le=599)]

_KEYS_OF_KIND: dict[str, frozenset[str]] = {
    "tcp": frozenset(),
    "http": frozenset({"path", "status", "body", "host"}),
    "https": frozenset({"path", "status", "body", "host", "verify"}),
    "dns": frozenset({"query", "type", "answer"}),
    "script": frozenset({"command"}),
}
_SPECIAL = frozenset[str]().union(*_KEYS_OF_KIND.values())


class CheckConfig(BaseModel, frozen=True, extra="forbid"):
    """One way of looking at a real server. What another kind needs is refused, not ignored."""

    kind: Literal["tcp", "http", "https", "dns", "script"]
    """"tcp": it accepts a connection; "http", "https": it answers GET; "dns": it answers a question over UDP;
    "script": a program of the operator's ends with 0."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where it is asked; default: the port of the service on the node."""
    interval_seconds: float = Field(default=2.0, ge=0.1, le=3600)
    """From one look to the next."""
    timeout_seconds: float = Field(default=1.0, ge=0.05, le=300)
    """A look that takes longer has failed."""
    jitter: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the interval by which looks vary, so that a thousand of them do not come at once."""
    rise: int = Field(default=2, ge=1, le=100)
    """Good looks in a row that make a failing server pass."""
    fall: int = Field(default=3, ge=1, le=100)
    """Bad looks in a row that make a passing server fail."""

    path: str = Field(default="/", pattern=r"^/[!-~]*$")
    status: Annotated[tuple[Status, ...], BeforeValidator(_statuses)] = Field(default=(200,), min_length=1)
    """One status or several that are good; a redirect is not followed."""
    body: Pattern | None = None
    """A regular expression that must be found in the first 64 KiB of the body, read as UTF-8."""
    host: str | None = Field(default=None, pattern=r"^[!-~]+$")
    """The Host header, and with "https" the server's name in the TLS handshake; default: the address."""
    verify: bool = False
    """Whether the certificate must be valid for `host`. Off: nodes are asked by address."""
    query: Domain | None = Field(default=None, pattern=r"^[!-~]{1,253}$")
    """The name that "dns" asks for."""
    type: Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"] = "A"
    answer: str | None = None
    """A record that must be among the answers, as text; without it any answer with status NOERROR is good."""
    command: tuple[str, ...] = ()
    """Program and arguments, no shell. It is told the server by PXEBOOT_ADDRESS, PXEBOOT_PORT, PXEBOOT_NODE
    and PXEBOOT_SERVICE in its environment."""

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        for key in sorted((self.model_fields_set & _SPECIAL) - _KEYS_OF_KIND[self.kind]):
            raise ValueError(f"{key}: a check of kind {self.kind!r} has no such key")
        if self.kind == "dns" and self.query is None:
            raise ValueError("query: a check of kind 'dns' needs the name to ask for")
        if self.kind == "script" and not self.command:
            raise ValueError("command: a check of kind 'script' needs a program")
        if self.verify and self.host is None:
            raise ValueError("verify: the certificate can be verified for a host only")
        if self.timeout_seconds > self.interval_seconds * self.fall:
            raise ValueError(f"timeout_seconds: {self.timeout_seconds:g} is longer than interval times fall")
        return self


HINTS: Mapping[str, str] = {
    "kind": 'write kind = "tcp", "http", "https", "dns" or "script"',
    "check": 'write a table, like { kind = "http", path = "/", status = 200 }',
    "body": "write a regular expression that the page contains; quote special characters with a backslash",
    "query": 'write query = "www.example", the name to ask for',
    "command": 'write a list, like ["/usr/local/bin/check", "--fast"]',
    "verify": 'name the host, like host = "www.example"',
    "status": "write a status of HTTP, or several that are good, like [200, 204]",
    "path": 'write the path and what follows it, percent-encoded, like "/health?deep=1"',
    "host": 'write a host name, with a port if need be, like "www.example"',
    "type": "write A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT",
    "interval_seconds": "write seconds between two looks, from 0.1 to 3600; 2 is usual",
    "jitter": "write a share of the interval, from 0 to 0.5; 0.1 is usual",
    "rise": "write how many good looks in a row make a node pass, from 1 to 100; 2 is usual",
    "fall": "write how many bad looks in a row make a node fail, from 1 to 100; 3 is usual",
    "timeout_seconds": "let one look end before the server could have failed: below the interval is usual",
}
