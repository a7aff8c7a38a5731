"""Whose fault an answer is: of a record, of its endpoint, of whatever stands between. What makes a dead letter."""

from collections import Counter
from typing import Any

import pytest
from support.agent import Desk, endpoint, work_until
from support.scripted import DOWN, HTML, NO, YES, Answer, Scripted, response

import agent

SIDES: dict[str, dict[str, Any]] = {"usage": {}, "licence": {"keys": ()}}
NAMES = {"usage": "reo", "licence": "getkeymanager"}


def put(product: agent.Agent, side: str, *names: str) -> None:
    for name in names:
        kept = product.track(name) if side == "usage" else product.record_text(name, data_group="g")
        assert kept is not None


class Server(Scripted):
    """Answers by name, everybody else with ``else_``."""

    def __init__(self, side: str, **answers: Answer) -> None:
        self.answers, self.else_ = answers, YES[side]
        super().__init__(lambda name: self.answers.get(name, self.else_))


@pytest.mark.parametrize("max_bytes", [10_000_000, 150_000])
@pytest.mark.parametrize("side", SIDES)
def test_a_gateway_that_says_400_kills_none_of_300(at: Desk, side: str, max_bytes: int) -> None:
    server = Server(side)
    server.else_ = HTML
    names = ["r%03d" % n for n in range(300)]
    given: dict[str, Any] = {"only": side, "transport": server, "max_bytes": max_bytes}
    with at.agent(**given, **SIDES[side]) as product:
        put(product, side, *names)
        for n in range(15):  # each costs one probe, and never the same one twice
            report = product.flush()
            assert (report.pending, report.dead, len(server.sent)) == (300, 0, n + 1)
        assert len(set(server.sent)) == 15
        assert endpoint(product, NAMES[side])["reason"].startswith("retry")
        # Now it lets one request of each connection pass.
        for _ in range(15):
            before = len(server.sent)

            def one(name: str, before: int = before) -> Any:
                return YES[side] if len(server.sent) == before + 1 else HTML

            server.answer = one
            report = product.flush()
            assert (report.delivered, report.dead) == (1, 0)
        server.answer = lambda name: YES[side]
        assert (product.flush(60).delivered, product.status()["dead"]) == (285, 0)
    arrived = [name for name in names if name in server.sent]
    assert arrived == names


@pytest.mark.parametrize("side", SIDES)
def test_a_refusal_in_the_server_s_own_words_counts_beside_a_proof_and_the_second_ends_it(
    at: Desk, side: str
) -> None:
    told: list[agent.Outcome] = []
    server = Server(side, bad=NO[side])
    with at.agent(only=side, transport=server, on_outcome=told.append, **SIDES[side]) as product:
        put(product, side, "bad", "good1")
        assert product.flush().dead == 0  # nothing else was proven yet
        assert product.flush().delivered == 1  # first the other one: it counts
        for _ in range(5):  # alone it proves nothing
            report = product.flush()
            assert (report.dead, report.pending) == (0, 1)
        assert server.sent == ["bad", "good1"] + ["bad"] * 6
        put(product, side, "good2", "good3")
        report = product.flush()
        assert (report.delivered, report.dead, report.pending) == (2, 1, 0)
        assert server.sent[-3:] == ["good2", "good3", "bad"], "suspects go last"
        assert [o.verdict for o in told] == ["delivered"] * 3 + ["rejected"]
        assert product.history()[-1]["verdict"] == "rejected"
        assert endpoint(product, NAMES[side])["waiting"] == ""
        if side == "usage":
            assert told[-1].reason == "Bad Request"
        put(product, side, "good4")
        assert product.flush().drained and server.sent[-1] == "good4"


# What an answer counts that one record always gets while others are proven; none where it says that a server is busy.
COUNTS = {500: 12, 418: 12, 408: None, 429: None, 502: None, 503: None, 504: None}


@pytest.mark.parametrize("status", COUNTS)
def test_twelve_answers_that_count_make_a_dead_letter(at: Desk, status: int) -> None:
    server = Server("usage", poison=response(status))
    with at.agent(only="usage", transport=server) as product:
        put(product, "usage", "poison")
        product.flush()
        at.clock.advance(86400)
        for n in range(1, 15):
            put(product, "usage", "good%d" % n)
            report = product.flush()
            at.clock.advance(86400)
            most = COUNTS[status]
            assert (report.delivered, report.dead) == (1, int(most is not None and n >= most)), n
        assert Counter(server.sent)["poison"] == 1 + (most or 14)


def test_a_key_that_comes_and_goes_kills_nothing_however_it_is_called(at: Desk) -> None:
    """Beside a proof each time, which makes a refusal count."""
    for text in ("Invalid API Key", "Authentication failure.", "This key is unknown", "Forbidden"):
        server = Server("usage")
        server.else_ = response(400, {"response_code": 400, "response": text, "status": "failure"})
        with at.agent(only="usage", transport=server) as product:
            for n in range(4):
                put(product, "usage", "good%d" % n, *["bad"][n:])
                server.answers = {"good%d" % n: YES["usage"]}
                product.flush()
                at.clock.advance(86400)
            assert product.status()["dead"] == 0
            server.else_ = YES["usage"]
            assert product.flush().drained


@pytest.mark.parametrize("answer", [HTML, NO["usage"], response(500), DOWN])
def test_a_record_that_is_alone_never_dies(at: Desk, answer: Answer) -> None:
    """Nothing tells it from a server that is down."""
    server = Server("usage", poison=answer)
    with at.agent(only="usage", transport=server) as product:
        put(product, "usage", "poison")
        work_until(product, at.clock, at.clock.at + 21 * 86400)
        assert len(server.sent) > 50
        assert product.status()["dead"] == 0 and product.status()["pending"] == 1


def test_while_nothing_is_proven_a_pass_asks_once_with_the_record_that_failed_least(
    at: Desk,
) -> None:
    server = Server("usage")
    server.else_ = response(500)
    with at.agent(only="usage", transport=server) as product:
        put(product, "usage", *"abc")
        for _ in range(3):
            product.flush()
    with at.agent(only="usage", transport=server) as product:
        for _ in range(4):
            product.flush()
        assert "".join(server.sent) == "abcabca"
        server.else_ = YES["usage"]
        put(product, "usage", *"de")
        product.flush()
    assert "".join(server.sent[7:]) == "debca"


def test_a_dead_letter_can_be_revived_and_may_die_again(at: Desk) -> None:
    server = Server("usage", bad=NO["usage"])
    told: list[agent.Outcome] = []
    with at.agent(only="usage", transport=server, on_outcome=told.append) as product:
        for turn in range(3):
            for n in range(4):
                put(product, "usage", *(["bad"] if turn == n == 0 else []), "good")
                product.flush()
            assert product.status()["dead"] == 1
            assert product._spool.claim() and product._spool.revive() == 1
            product._spool.release()
        server.answers = {}
        report = product.flush()
        assert (report.delivered, report.dead, report.pending) == (1, 0, 0)
    ends = [o.verdict for o in told if o.endpoint and o.verdict != "delivered"]
    assert ends == ["rejected"] * 3
