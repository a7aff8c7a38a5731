"""What ends a wait and what does not; what is kept of it on disk, and what somebody could plant there."""

from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, endpoint, pass_
from support.attacks import OLD, scene
from support.sockets import Authority
from support.spool import START, look

from agent.lanes import Lane

# A fault, what it makes of the lane, and what is left of it in the end.
WAITS = {"403-150": "held", "429-retry-after": "pause", "500": "backoff"}


# What was wrong, and what is right; the rest is as ever.
CHANGES: dict[str, tuple[Any, Any]] = {
    "api_key": ("old-key", "demo-api-key"),
    "keys": (slice(1), slice(9)),  # of the collector's
    "proxy": (None, "direct"),
    "proxy_auth": ("user:secret", "user:another"),
    "ca_bundle": (None, "ca.pem holds old"),
    "what it holds": ("ca.pem holds old", "ca.pem holds new"),
    "SSL_CERT_FILE": ("ca.pem holds old", "other.pem holds new"),
    "HTTPS_PROXY": ("http://127.0.0.1:9", ""),
    "nothing": (None, None),
    # As of a program in one file, which unpacks it to another place each time.
    "no more than where it lies": ("ca.pem holds old", "other.pem holds old"),
}


def settings(at: Desk, place: Path, name: str, value: Any) -> dict[str, Any]:
    if name == "keys":
        value = at.collector.public_keys[value]
    if " holds " in str(value):
        path, _, text = value.partition(" holds ")
        (place / path).write_text(text)
        name, value = name if name.isupper() else "ca_bundle", str(place / path)
    if name.isupper():
        return {"environ": {name: value}}
    return {} if name == "nothing" else {name: value}


@pytest.mark.parametrize("fault", WAITS)
@pytest.mark.parametrize("change", CHANGES)
def test_whoever_corrects_what_may_have_caused_a_wait_ends_it(
    at: Desk, tmp_path: Path, change: str, fault: str
) -> None:
    """An address, too: ``cause`` in ``test_endpoints_requests.py``."""
    first, second = CHANGES[change]
    at.collector.fault(fault, count=1)
    with at.agent(only="licence", **settings(at, tmp_path, change, first)) as product:
        product.call_home()
        product.flush()
        assert endpoint(product)["waiting"] == WAITS[fault]
    with at.agent(only="licence", **settings(at, tmp_path, change, second)) as product:
        pass_(product)
        assert product.status()["pending"] == (change[:2] == "no")


@pytest.mark.parametrize("change", [{"proxy": "direct"}, {"api_key": "another"}, {"ca_bundle": 1}])
def test_the_floor_of_signed_times_stays_whatever_else_is_changed(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Else whoever changes the proxy could replay a day of captured answers."""
    if "ca_bundle" in change:
        change = {"ca_bundle": str(Authority(tmp_path).path)}
    with scene(tmp_path / "state") as line:
        with line.agent() as product:
            captured = line.capture(product, "before")
            line.wait(3600)
            line.capture(product, "after")
        line.replays(captured)
        with line.agent(**change) as product:
            line.record(product, "first")
            line.fails(product, "skewed", OLD)


PLANTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"wait": "held", "set_at": START, "delay_s": 1e9}, {"floor": 10**15, "doubtful": 3}),
    ({"wait": "pause", "set_at": START, "delay_s": 86400.0}, {"floor": int(START) + 10**8}),
    ({"wait": "for ever", "set_at": "now", "failures": True, "reason": 7}, {"floor": "x"}),
    ({"wait": ["x"], "set_at": 1e308}, {"proven_at": "never"}),
    (
        {"wait": "backoff", "set_at": 1e12, "holds": 10**9, "broken": 10**30, "open": 7},
        {"floor": -1e30},
    ),
]


@pytest.mark.parametrize(("lane", "floor"), PLANTED)
def test_a_lane_that_somebody_plants_silences_for_a_day_at_most(
    at: Desk, lane: dict[str, Any], floor: dict[str, Any]
) -> None:
    with at.agent(only="licence") as product:
        product.call_home()
        known: Lane = product._delivery.lanes["getkeymanager"]
        spool = look(at.state_dir)
        spool.book.note("lane", known.tag, **lane)
        spool.book.note("floor", known.floor_tag, **floor)
        spool.release()
    with at.agent(only="licence") as product:
        pass_(product)
        assert endpoint(product)["retry_in_s"] <= 86400
        for wait_s in (86401, 61):
            at.clock.advance(wait_s)
            pass_(product)
        assert product.status()["pending"] == 0, endpoint(product)


@pytest.mark.parametrize("fault", ["500", "403-150"])
def test_who_tries_by_hand_again_and_again_waits_no_longer_for_that(at: Desk, fault: str) -> None:
    at.collector.fault(fault)
    with at.agent(only="licence") as product:
        product.call_home()
        for _ in range(9):
            assert product.flush().pending == 1
        assert 0 < endpoint(product)["retry_in_s"] <= (60 if fault == "500" else 3600)
        at.clock.advance(3601)
        pass_(product)  # that one was due
        assert endpoint(product)["retry_in_s"] > (0 if fault == "500" else 3600)


def test_no_lane_tells_whose_it_is_or_what_a_usage_server_said(at: Desk) -> None:
    with at.agent(only="usage", api_key="canary-api-key") as product:
        product.track("EXPORT")
        at.collector.fault("unsigned-400")
        product.flush()
        said = endpoint(product, "reo")["reason"]
        assert "Bad Request" in said
        book = b"".join(path.read_bytes() for path in at.state_dir.iterdir() if path.is_file())
        assert b'"k":"lane"' in book
        for secret in (b"Bad Request", b"canary-api-key", at.collector.url.encode()):
            assert secret not in book
    with at.agent(only="usage", api_key="canary-api-key") as product:
        assert endpoint(product, "reo")["waiting"] == "backoff"
