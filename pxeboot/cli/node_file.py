"""Nodes as an operator lists them in a CSV, JSON or TOML file, read as what the server takes. Pure."""

import csv
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pxeboot import toml
from pxeboot.errors import PxebootError
from pxeboot.web.views import EntryFault, NodeEntry

FAULTS_TOLD = 20
"""Of one file; the rest are often the same once more."""
_OPTION = "option."
_COLUMNS = [*NodeEntry.model_fields, f"{_OPTION}NAME"]
_COLUMNS.remove("options")


@dataclass(frozen=True, slots=True)
class Row:
    """One node as written."""

    place: str
    """Where it stands in the file: `line 3`."""
    values: dict[str, Any]


def read(text: str, kind: str) -> list[Row]:
    """The rows of a file of this kind ("csv", "json", "toml"). Raises PxebootError."""
    return list(_READERS[kind](text.removeprefix("\ufeff")))


def entries(rows: Sequence[Row], name: str) -> list[NodeEntry]:
    """What the rows mean. Raises PxebootError with all that is wrong; `name` is the file's."""
    taken: list[NodeEntry] = []
    faults: list[EntryFault] = []
    for index, row in enumerate(rows):
        try:
            taken.append(NodeEntry.model_validate(row.values))
        except ValidationError as error:
            for fault in error.errors():
                hint = ""
                if fault["type"] == "extra_forbidden":
                    hint = toml.known_keys(NodeEntry, fault["loc"])
                faults.append(EntryFault(entry=index, key="", error=toml.sentence(fault), hint=hint))
    if faults:
        raise refusal(rows, faults, name)
    return taken


def refusal(rows: Sequence[Row], faults: Sequence[EntryFault], name: str) -> PxebootError:
    """One error for all faults, each with its place in the file and what to do."""
    wrong = len({fault.entry for fault in faults})
    lines = [f"{name}: {wrong} of {len(rows)} nodes cannot be taken; nothing was changed"]
    for fault in faults[:FAULTS_TOLD]:
        key = f"{fault.key}: " if fault.key else ""
        hint = f" ({fault.hint})" if fault.hint else ""
        lines.append(f"  {rows[fault.entry].place}: {key}{fault.error}{hint}")
    if len(faults) > FAULTS_TOLD:
        lines.append(f"  and {len(faults) - FAULTS_TOLD} more")
    return PxebootError("\n".join(lines), "mend these places and import the file again")


def _csv(text: str) -> Iterator[Row]:
    """A first row of column names, then a node per row; an empty cell says nothing. `#` begins a remark."""
    reader = csv.reader(text.splitlines(), skipinitialspace=True, strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            line, stripped = f"line {reader.line_num}", [cell.strip() for cell in cells]
            if not any(stripped) or stripped[0].startswith("#"):
                continue
            if not columns:
                columns = _columns(stripped, line)
                continue
            if len(stripped) > len(columns):
                raise PxebootError(
                    f"{line}: {len(stripped)} cells where the first row names {len(columns)} columns",
                    'a cell with a comma in it stands in quotes: "10.0.0.1,10.0.0.2"',
                )
            yield Row(line, _cells(dict(zip(columns, stripped, strict=False)), line))
    except csv.Error as error:
        raise PxebootError(f"line {reader.line_num}: {error}", "write comma-separated values") from error
    if not columns:
        raise PxebootError("there is no row with the names of the columns", _column_hint())


def _columns(names: list[str], line: str) -> list[str]:
    columns = [name.lower() for name in names]
    for name in columns:
        if name not in _COLUMNS and not (name.startswith(_OPTION) and name != _OPTION):
            raise PxebootError(f"{line}: {name!r} is no column", _column_hint())
        if columns.count(name) > 1:
            raise PxebootError(f"{line}: the column {name!r} is there twice", "leave one of them out")
    return columns


def _column_hint() -> str:
    return f"the columns are: {', '.join(_COLUMNS)}"


def _cells(cells: dict[str, str], line: str) -> dict[str, Any]:
    said = {name: cell for name, cell in cells.items() if cell}
    values: dict[str, Any] = {name: cell for name, cell in said.items() if not name.startswith(_OPTION)}
    options = {
        name.removeprefix(_OPTION): _option(cell, line) for name, cell in said.items() if name not in values
    }
    return values | ({"options": options} if options else {})


def _option(cell: str, line: str) -> object:
    """Sub-options are a table, which JSON can write in one cell; all else is a text."""
    if not cell.startswith("{"):
        return cell
    try:
        return json.loads(cell)
    except ValueError as error:
        raise PxebootError(f"{line}: {cell}: {error}", 'write {"6": "hex:08"}, its quotes doubled') from error


def _json(text: str) -> Iterator[Row]:
    """A list of objects."""
    hint = 'write a list, like [{"mac": "52:54:00:12:34:56", "name": "web1"}]'
    try:
        nodes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PxebootError(str(error), hint) from error
    if not isinstance(nodes, list):
        raise PxebootError("this is no list", hint)
    return (_row(place, node) for place, node in zip(_places(text, len(nodes)), nodes, strict=True))


def _places(text: str, count: int) -> Iterator[str]:
    """The line of each element of a JSON list that is known to be right."""
    decoder, line, counted, at = json.JSONDecoder(), 1, 0, text.index("[") + 1
    for _ in range(count):
        while text[at] in " \t\r\n,":
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        yield f"line {line}"
        _, at = decoder.raw_decode(text, at)


def _toml(text: str) -> Iterator[Row]:
    """`[[node]]` tables."""
    hint = 'write a [[node]] for each, with mac = "52:54:00:12:34:56" and so on'
    try:
        told = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PxebootError(str(error), hint) from error
    nodes = told.pop("node", [])
    if told or not isinstance(nodes, list):
        raise PxebootError(f"{next(iter(told), 'node')!r} is no [[node]] table", hint)
    heads = [number for number, line in enumerate(text.split("\n"), 1) if _TABLE.match(line)]
    for number, node in enumerate(nodes):
        yield _row(f"line {heads[number]}" if len(heads) == len(nodes) else f"node {number + 1}", node)


_TABLE = re.compile(r"[ \t]*\[\[[ \t]*node[ \t]*\]\]")


def _row(place: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise PxebootError(f"{place}: {value!r} is no node", "a node is a table of keys: mac, name and so on")
    return Row(place, value)


_READERS = {"csv": _csv, "json": _json, "toml": _toml}
KINDS = tuple(_READERS)
