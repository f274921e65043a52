"""Lists of nodes in files: what they mean, and that every fault is told with its line and key."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.cli import node_file
from pxeboot.errors import PxebootError

CSV = """\
# the rack in the cellar
mac, uuid, name, group, address, option.ntp-servers
52:54:00:00:00:01,,web1,web,10.77.0.11,"10.0.0.1,10.0.0.2"

52-54-00-00-00-02,,web2,,,
,00112233-4455-6677-8899-aabbccddeeff,db1,,10.77.0.12,
"""
JSON = """\
[
  {"mac": "52:54:00:00:00:01", "name": "web1", "group": "web", "address": "10.77.0.11",
   "options": {"ntp-servers": "10.0.0.1,10.0.0.2"}},
  {"mac": "52:54:00:00:00:02", "name": "web2"}, {"uuid": "00112233-4455-6677-8899-aabbccddeeff",
   "name": "db1", "address": "10.77.0.12"}
]
"""
TOML = """\
[[node]]
mac = "52:54:00:00:00:01"
name = "web1"
group = "web"
address = "10.77.0.11"
options = { ntp-servers = "10.0.0.1,10.0.0.2" }

[[node]]
mac = "52:54:00:00:00:02"
name = "web2"

[[ node ]]
uuid = "00112233-4455-6677-8899-aabbccddeeff"
name = "db1"
address = "10.77.0.12"
"""
MEANT: list[dict[str, Any]] = [
    {
        "mac": "52:54:00:00:00:01",
        "name": "web1",
        "group": "web",
        "address": "10.77.0.11",
        "options": {"ntp-servers": "10.0.0.1,10.0.0.2"},
    },
    {"mac": "52:54:00:00:00:02", "name": "web2"},
    {"uuid": "00112233-4455-6677-8899-aabbccddeeff", "name": "db1", "address": "10.77.0.12"},
]


@pytest.mark.parametrize(
    ("kind", "text", "places"),
    [
        ("csv", CSV, ["line 3", "line 5", "line 6"]),
        ("csv", "\ufeff" + CSV.replace("\n", "\r\n"), ["line 3", "line 5", "line 6"]),
        ("json", JSON, ["line 2", "line 4", "line 4"]),
        ("json", JSON.replace("\n", "\r\n"), ["line 2", "line 4", "line 4"]),
        ("toml", TOML, ["line 1", "line 8", "line 12"]),
    ],
)
def test_the_same_nodes_can_be_written_in_each_way(kind: str, text: str, places: list[str]) -> None:
    rows = node_file.read(text, kind)
    assert [row.place for row in rows] == places
    told = [entry.model_dump(mode="json", exclude_unset=True) for entry in node_file.entries(rows, "f")]
    assert told == MEANT


def test_an_empty_cell_says_nothing_and_null_takes_back() -> None:
    (row,) = node_file.read("mac,name,group\n52:54:00:00:00:01,,\n", "csv")
    assert row.values == {"mac": "52:54:00:00:00:01"}
    (row,) = node_file.read('[{"mac": "52:54:00:00:00:01", "group": null}]', "json")
    (entry,) = node_file.entries([row], "f")
    assert entry.model_dump(exclude_unset=True)["group"] is None


def test_suboptions_stand_in_a_cell_as_json() -> None:
    text = 'mac,option.vendor-specific\n52:54:00:00:00:01,"{""6"": ""hex:08""}"\n'
    (row,) = node_file.read(text, "csv")
    assert row.values["options"] == {"vendor-specific": {"6": "hex:08"}}
    with pytest.raises(PxebootError, match=r"line 2: \{6\}:"):
        node_file.read("mac,option.43\n52:54:00:00:00:01,{6}\n", "csv")


@pytest.mark.parametrize(
    ("kind", "text", "error", "hint"),
    [
        ("csv", "mac,hostname\n", "line 1: 'hostname' is no column", "mac, "),
        ("csv", "mac,name,mac\n", "line 1: the column 'mac' is there twice", "leave"),
        ("csv", "# nothing\n\n", "there is no row with the names of the columns", "option.NAME"),
        ("csv", "mac,name\na,b,c\n", "line 2: 3 cells where the first row names 2 columns", "quotes"),
        ("csv", 'mac,name\n"a', "line 2: unexpected end of data", "comma"),
        ("json", '[{"mac": }]', "Expecting value: line 1 column 10 (char 9)", "[{"),
        ("json", '{"mac": "a"}', "this is no list", "[{"),
        ("json", '[{"mac": "a"},\n 7]', "line 2: 7 is no node", "keys"),
        ("toml", "[[node]]\nmac = a\n", "Invalid value (at line 2, column 7)", "[[node]]"),
        ("toml", "[nodes]\n", "'nodes' is no [[node]] table", "[[node]]"),
        ("toml", "node = 1\n", "'node' is no [[node]] table", "[[node]]"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(kind: str, text: str, error: str, hint: str) -> None:
    with pytest.raises(PxebootError) as caught:
        node_file.read(text, kind)
    assert str(caught.value) == error
    assert hint in caught.value.hint


def test_all_that_is_wrong_is_told_at_once_by_line_and_key() -> None:
    text = "mac,uuid,name,address\nx,,web1,\n52:54:00:00:00:01,,Web,10.0.0\n,,web3,\n52:54:00:00:00:02,,a,\n"
    with pytest.raises(PxebootError) as caught:
        node_file.entries(node_file.read(text, "csv"), "nodes.csv")
    assert str(caught.value).splitlines() == [
        "nodes.csv: 3 of 4 nodes cannot be taken; nothing was changed",
        "  line 2: mac: 'x' is not a MAC address, like 52:54:00:12:34:56",
        "  line 3: name: 'Web' is not a name of lower-case letters, digits and inner dashes",
        "  line 3: address: '10.0.0': input is not a valid IPv4 address",
        "  line 4: neither mac nor uuid says which machine it is",
    ]
    with pytest.raises(PxebootError, match=r"line 1: nam: unknown key \(known keys here are: address, files"):
        node_file.entries(node_file.read('[{"mac": "52:54:00:00:00:01", "nam": "a"}]', "json"), "f")


def test_of_very_many_faults_some_are_told() -> None:
    rows = node_file.read("mac\n" + "x\n" * 100, "csv")
    with pytest.raises(PxebootError) as caught:
        node_file.entries(rows, "f")
    assert str(caught.value).splitlines()[-1] == "  and 80 more"


@given(st.sampled_from(node_file.KINDS), st.text(max_size=200))
def test_any_text_is_read_or_refused(kind: str, text: str) -> None:
    with contextlib.suppress(PxebootError):
        node_file.entries(node_file.read(text, kind), "f")
