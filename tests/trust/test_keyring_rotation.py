"""A vendor's signing key changes under shipped copies: the rotation, and every way it can go wrong or be abused."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from support.agent import Desk, desk, endpoint, pass_, snapshot
from support.keyring import KEYS, ROOTS, content, document, entry, ring
from support.sockets import Server, answers, ok

import agent
from agent import lines

DAY_S = 86400


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state") as found:
        found.collector.use_key("global-next")  # the vendor's server has changed keys
        yield found


def rotated(at: Desk, version: int = 2, by: Any = ROOTS[:1], **changes: Any) -> bytes:
    """A document with nothing but the new key."""
    key, pem = at.collector.public_keys[1], at.collector.keys[1]["public_key"]
    return document(content(version=version, keys=[entry(key, pem)], **changes), by)


def known(product: agent.Agent) -> dict[str, Any]:
    found: dict[str, Any] = endpoint(product)["keyring"]
    return found


def run(at: Desk, source: Any, *, delivered: int, trouble: Optional[str] = "", **given: Any) -> Any:
    """One run that records and flushes; its keyring's report."""
    with at.agent(keys=ring(at, source, **given), only="licence") as product:
        assert product.call_home()
        assert product.flush().delivered == delivered
        found = known(product)
        assert found["trouble"] == trouble or (trouble and trouble in found["trouble"]), found
    return found


def test_a_document_beside_the_program_ends_a_lockout_at_once(at: Desk, tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    with at.agent() as product:
        assert endpoint(product)["keyring"] is None and endpoint(product, "reo")["keyring"] is None
    with at.agent(keys=ring(at, path), only="licence") as product:
        product.call_home()
        assert product.flush().untrusted == 1
        assert known(product)["trouble"].endswith("No such file or directory")
        path.write_bytes(rotated(at))  # the updater, while the product runs
        assert endpoint(product)["waiting"] == "backoff"
        pass_(product)  # no flush, which would skip the backoff
        assert [a["verdict"] for a in product.history()] == ["untrusted", "delivered"]
        found = known(product)
        assert (found["version"], found["keys"]) == (2, ["global-next"])
        assert (found["source"], found["expired"], found["trouble"]) == (str(path), False, "")
    assert at.texts() == ["CALL HOME"] * 2  # the collector took both, we believed one


def test_the_old_key_is_worth_nothing_afterwards(at: Desk) -> None:
    run(at, rotated(at), delivered=1)
    at.collector.use_key("global")
    with at.agent(keys=ring(at, rotated(at)), only="licence") as product:
        product.call_home()
        report = product.flush()
        assert (report.delivered, report.untrusted, report.pending) == (0, 1, 1)
        assert "no trusted key" in product.history()[-1]["reason"]


def test_a_document_that_too_few_roots_signed_is_none(at: Desk) -> None:
    run(at, rotated(at), delivered=0, threshold=2, trouble="signed by 1 of the 2 roots")
    run(at, rotated(at, by=ROOTS[1:]), delivered=2, threshold=2)
    with at.agent(keys=ring(at, rotated(at), roots=KEYS[1:])) as product:
        assert "signed by 0 of the 1" in known(product)["trouble"]  # another vendor's


def test_an_older_document_put_back_is_refused_by_every_later_run(at: Desk, tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    key, pem = at.collector.public_keys[0], at.collector.keys[0]["public_key"]
    old = document(content(version=1, keys=[entry(key, pem)]))
    path.write_bytes(rotated(at))
    with at.agent(keys=ring(at, path), only="licence") as product:
        product.call_home()
        assert product.flush().delivered == 1
        path.write_bytes(old)
        product.call_home()
        assert product.flush().delivered == 1  # what is in force stays
        assert "older than 2" in known(product)["trouble"]
    found = run(at, path, delivered=0, trouble="version 1 is older than 2")
    assert (found["source"], found["keys"]) == ("embedded", ["global"])
    # The keyed note survives another API key: a new key is no way around it.
    with at.agent(keys=ring(at, path), only="licence", api_key="another") as product:
        product.call_home()
        assert product.flush().delivered == 0 and "older than 2" in known(product)["trouble"]


def test_the_state_directory_keeps_a_number_and_no_key(at: Desk) -> None:
    run(at, rotated(at), delivered=1)
    for name, data in snapshot(at.state_dir).items():
        assert b"public_key" not in data and b"BEGIN" not in data, name
    run(at, rotated(at), delivered=1)
    assert (at.state_dir / "agent.book").read_bytes().count(b'"k":"keyring"') == 1


def test_a_note_that_somebody_plants_makes_no_key_trusted(at: Desk) -> None:
    run(at, rotated(at), delivered=1)
    book = at.state_dir / "agent.book"
    found = map(lines.decode, book.read_bytes().split(b"\n"))
    note = next(fact for fact in found if isinstance(fact, dict) and fact.get("k") == "keyring")
    for version, source in ((10**9, "embedded"), (-1, None), ("7", None), (1 << 60, None)):
        with book.open("ab") as file:
            file.write(lines.encode({**note, "version": version, "keys": ["stranger"]}))
        with at.agent(keys=ring(at, rotated(at)), only="licence") as product:
            product.call_home()
            product.flush()
            shown = known(product)
            assert shown["keys"] == (["global"] if source else ["global-next"]), version
            assert bool(shown["trouble"]) == bool(source)


@pytest.mark.parametrize(
    "what", ["a directory", "nonsense", "too large", *["a pipe"] * hasattr(os, "mkfifo")]
)
def test_what_stands_in_the_place_of_a_document_stops_nothing(
    at: Desk, tmp_path: Path, what: str
) -> None:
    at.collector.use_key("global")
    path = tmp_path / "keyring.json"
    if what == "a directory":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
        os.open(path, os.O_RDWR)  # somebody who never writes into it
    else:
        path.write_bytes(b"x" * (70_000 if what == "too large" else 10))
    assert run(at, path, delivered=1, trouble=str(path))["keys"] == ["global"]


def test_looking_changes_nothing_and_an_expired_document_goes_on_working(
    at: Desk, tmp_path: Path
) -> None:
    path = tmp_path / "keyring.json"
    path.write_bytes(rotated(at, expires=1))
    with at.agent(keys=ring(at, path), only="licence") as product:
        found = known(product)
        assert (found["version"], found["expired"], found["keys"]) == (2, True, ["global-next"])
        assert not at.state_dir.exists()
    assert run(at, path, delivered=1)["expired"]


# --- fetched ------------------------------------------------------------------------------------


def address(server: Server) -> str:
    return "http://127.0.0.1:%d/keyring.json" % server.port


def test_a_document_is_fetched_when_no_key_fits_and_not_before(at: Desk) -> None:
    at.collector.use_key("global")
    with Server(answers(ok(rotated(at)))) as server:
        keys = ring(at, url=address(server))
        with at.agent(keys=keys, only="licence") as product:
            product.call_home()
            assert product.flush().delivered == 1 and not server.requests
            at.collector.use_key("global-next")
            product.call_home()
            assert product.flush().untrusted == 1 and not server.requests
            assert product.flush().delivered == 1
            assert (known(product)["version"], known(product)["source"]) == (2, address(server))
            product.call_home()
            assert product.flush().delivered == 1 and len(server.requests) == 1
        # Nothing of it was kept but its number: the next run fetches it before it sends anything.
        with at.agent(keys=keys, only="licence") as product:
            product.call_home()
            assert product.flush().delivered == 1
        assert len(server.requests) == 2
    for request in server.requests:
        assert request.startswith(b"GET /keyring.json HTTP/1.1\r\n")
        said = request.replace(b":%d" % server.port, b"")  # a port may well hold a 42
        assert not any(key in said for key in (b"api", b"license", b"demo", b"42"))


@pytest.mark.parametrize("kind", ["a portal", "signed by nobody", "too large"])
def test_while_no_document_helps_each_backoff_asks_once(at: Desk, kind: str) -> None:
    unsigned = rotated(at, by=ROOTS[1:2])[:-9]
    body = {"a portal": b"<html>", "too large": b"x" * 200_000}.get(kind, unsigned)
    with Server(answers(ok(body))) as server, at.agent(
        keys=ring(at, url=address(server))
    ) as product:
        product.call_home()
        product.flush()
        before = at.seen() + 3
        for _ in range(3):
            assert product.track("EXPORT")
            pass_(product)  # only the other endpoint is not in a backoff
        assert (at.seen(), len(server.requests)) == (before, 0)
        for n in range(3):
            at.clock.advance(DAY_S)
            pass_(product)
            assert (at.seen() - before, len(server.requests)) == (n + 1, n + 1)
        assert known(product)["trouble"].startswith(address(server))
        assert known(product)["keys"] == ["global"]


def test_an_address_that_is_silent_takes_its_time_and_no_record(at: Desk) -> None:
    with Server(lambda connection, server: server.ended.wait(20)) as server:
        keys = ring(at, url=address(server))
        with at.agent(keys=keys, only="licence", request_timeout_s=0.2) as product:
            product.call_home()
            product.flush()
            report = product.flush()
            assert (report.untrusted, report.pending) == (1, 1)  # the probe came after it
            assert known(product)["trouble"]
