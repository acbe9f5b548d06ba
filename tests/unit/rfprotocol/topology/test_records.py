"""The smaller records: written and read by both programs, and by Ruby's client."""

from __future__ import annotations

import contextlib
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfprotocol.errors import RecordError
from rfprotocol.topology.records import ManualRequest, Occupation, Outcome, ProxyRecord, Receipt
from rfprotocol.topology.topology import FORMAT, Kind, Node

COUNTS = st.integers(0, 2**53)
NODES = st.builds(Node, st.sampled_from(["a", "10.0.0.1", "::1"]), st.integers(1, 65535))
TIMES = st.floats(0, 4e9)
PROXIES = st.builds(
    ProxyRecord,
    epoch=COUNTS,
    address=st.text(),
    version=st.text(),
    clients=COUNTS,
    held=COUNTS,
    replayed=COUNTS,
    uncertain=COUNTS,
    longest_wait=TIMES,
    busy=st.dictionaries(NODES.map(str), st.builds(Occupation, st.text(), TIMES)),
)
RECEIPTS = st.builds(
    Receipt,
    epoch=COUNTS,
    kind=st.sampled_from(Kind),
    outcome=st.sampled_from(Outcome),
    cause=st.text(),
    former=st.none() | NODES,
    master=st.none() | NODES,
    manager=st.text(),
    steps=st.lists(st.tuples(st.text(), TIMES)).map(tuple),
    acknowledged=st.dictionaries(st.text(), TIMES),
    offsets=st.dictionaries(st.text(string.ascii_letters), COUNTS),
    proxies=st.dictionaries(st.text(), st.dictionaries(st.text(), COUNTS | st.text())),
    request=COUNTS,
    lost=st.text(),
    run_id=st.text(),
    returned=st.none() | TIMES,
)


@given(PROXIES)
def test_a_proxys_record_is_read_as_it_was_written(record: ProxyRecord) -> None:
    assert ProxyRecord.decode(record.encode()) == record


@given(RECEIPTS)
def test_a_receipt_is_read_as_it_was_written(receipt: Receipt) -> None:
    assert Receipt.decode(receipt.encode()) == receipt


@given(st.none() | NODES)
def test_a_request_is_read_as_it_was_written(target: Node | None) -> None:
    assert ManualRequest.decode(ManualRequest(target).encode()) == ManualRequest(target)


def test_a_request_has_the_form_that_rubys_client_writes() -> None:
    assert ManualRequest(None).encode() == b"ANY_SLAVE"
    assert ManualRequest(Node("localhost", 2222)).encode() == b"localhost:2222"
    assert ManualRequest.decode(b"ANY_SLAVE") == ManualRequest(None)
    assert ManualRequest.decode(b"localhost:2222\n") == ManualRequest(Node("localhost", 2222))


def test_a_request_that_rubys_client_has_created_but_not_filled_is_none_yet() -> None:
    assert ManualRequest.decode(b"") is None


@pytest.mark.parametrize("data", [b"any_slave", b"localhost", b"localhost:0", b"\xff\xfe", b"a:1 b:2"])
def test_a_request_for_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match="manual failover"):
        ManualRequest.decode(data)


def test_fields_of_later_releases_are_passed_over() -> None:
    plain = {**json.loads(ProxyRecord(7).encode()), "mood": "good"}
    assert ProxyRecord.decode(json.dumps(plain).encode()) == ProxyRecord(7)
    receipt = Receipt(7, Kind.FAILOVER, Outcome.DONE, "x")
    plain = {**json.loads(receipt.encode()), "mood": "good"}
    assert Receipt.decode(json.dumps(plain).encode()) == receipt


def test_a_receipt_that_the_first_release_wrote_is_read() -> None:
    written = (
        b'{"format": 1, "epoch": 3, "kind": "failover", "outcome": "done", "cause": "it died", "former": "a:1", '
        b'"master": "b:1", "manager": "m", "steps": [["noticed", 1.0], ["published", 1.25]], "offsets": {"b:1": 7}, '
        b'"proxies": {"p": {"epoch": 3, "held": 2}}, "request": 0}'
    )
    receipt = Receipt.decode(written)
    assert receipt.acknowledged == {}
    assert receipt.proxies == {"p": {"epoch": 3, "held": 2}}
    assert receipt.duration == 0.25
    assert (receipt.lost, receipt.run_id, receipt.false_alarm) == ("", "", False)


@pytest.mark.parametrize("kind", [ProxyRecord, Receipt])
@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"epoch": -1}', b'{"epoch": "1"}', b'{"epoch": true}']
)
def test_a_corrupt_record_is_an_error(kind: type[ProxyRecord | Receipt], data: bytes) -> None:
    with pytest.raises(RecordError):
        kind.decode(data)


@pytest.mark.parametrize("wrong", [{"address": 5}, {"clients": "1"}, {"held": 1.5}, {"longest_wait": None}])
def test_a_proxys_record_with_a_wrong_value_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match=f"{next(iter(wrong))} is"):
        ProxyRecord.decode(json.dumps({"epoch": 7, **wrong}).encode())


@pytest.mark.parametrize(
    "said",
    [
        None,
        5,
        [],
        "m:1",
        {"m:1": None},
        {"m:1": {}},
        {"m:1": {"command": 5, "since": 1.0}},
        {"m:1": {"command": "EVAL"}},
    ],
)
def test_proxy_record__busy_cannot_be_read__is_left_out(said: Any) -> None:
    assert ProxyRecord.decode(json.dumps({"epoch": 7, "busy": said}).encode()) == ProxyRecord(7)


def test_proxy_record__busy__is_a_plain_mapping_by_address() -> None:
    record = ProxyRecord(7, busy={"m:1": Occupation("FLUSHALL", 0.3)})
    assert json.loads(record.encode())["busy"] == {"m:1": {"command": "FLUSHALL", "since": 0.3}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "coup"},
        {"outcome": "maybe"},
        {"former": "a"},
        {"master": 5},
        {"steps": 5},
        {"steps": [["x"]]},
        {"offsets": [1]},
        {"acknowledged": {"p": "soon"}},
        {"proxies": {"p": 5}},
        {"returned": "soon"},
    ],
)
def test_a_receipt_with_a_wrong_value_is_an_error(wrong: dict[str, Any]) -> None:
    plain = json.loads(Receipt(7, Kind.FAILOVER, Outcome.DONE, "x").encode())
    with pytest.raises(RecordError):
        Receipt.decode(json.dumps({**plain, **wrong}).encode())


@pytest.mark.parametrize("record", [ProxyRecord(7), Receipt(7, Kind.FAILOVER, Outcome.DONE, "x")])
def test_a_record_of_a_future_format_is_not_guessed_at(record: ProxyRecord | Receipt) -> None:
    plain = {**json.loads(record.encode()), "format": FORMAT + 1}
    with pytest.raises(RecordError, match="upgrade"):
        type(record).decode(json.dumps(plain).encode())


@given(st.binary())
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for kind in (ProxyRecord, Receipt, ManualRequest):
        with contextlib.suppress(RecordError):
            kind.decode(data)


def test_a_receipt_knows_how_long_the_change_took() -> None:
    assert Receipt(7, Kind.FAILOVER, Outcome.DONE, "x").duration == 0.0
    steps = (("fenced", 100.0), ("promoted", 100.25), ("published", 100.5))
    assert Receipt(7, Kind.FAILOVER, Outcome.DONE, "x", steps=steps).duration == 0.5


def test_proxy__account__is_kept_and_may_be_missing() -> None:
    record = ProxyRecord(1, account="a:1 refused")
    assert ProxyRecord.decode(record.encode()) == record
    assert ProxyRecord.decode(b'{"format": 1, "epoch": 1}').account == ""
