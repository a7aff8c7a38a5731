"""Hostile and half-broken networks that plain sockets can play."""

from __future__ import annotations

import socket
import struct
from typing import Any

from support.sockets import Authority, Behaviour, Server, silent
from support.spool import FakeClock

from .situations import HOSTILE, situation
from .stage import SHORT_S, Stage

DAY_S = 86400.0
LATE = "offline: %s: no answer within 0.5 s"
CUT = "Connection reset by peer|the server closed the connection without an answer|.*"


def reset(connection: socket.socket) -> None:
    """End it as a firewall does: RST, and what was on its way is lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def then_well(
    stage: Stage, behaviour: Behaviour, outcome: str, copies: int = 1, **config: Any
) -> None:
    """A server that behaves like this, and then as it should."""
    server = stage.serve(behaviour)
    product = stage.product("https://localhost:%d" % server.port, **config)
    stage.fails(product, outcome, copies=copies)
    server.behaviour = stage.behind_tls()
    stage.delivers(product)


# --- portals ------------------------------------------------------------------------------------


@situation("portal-certificate", HOSTILE)
def portal_certificate(stage: Stage) -> None:
    """A captive portal that answers for every host, with its own certificate"""
    place = stage.directory / "portal"
    place.mkdir()
    portal = Authority(place, "Hotel Portal").issue("portal.example")
    behaviour = stage.behind_tls(certificate=portal)
    then_well(stage, behaviour, "offline: TLS: certificate refused: .*")


@situation("portal-page", HOSTILE)
def portal_page(stage: Stage) -> None:
    """A portal that TLS does not stop: 200 and a page of HTML"""
    portal(stage, "portal")


@situation("portal-redirect", HOSTILE)
def portal_redirect(stage: Stage) -> None:
    """A portal that TLS does not stop: 302 to a login page"""
    portal(stage, "redirect")


def portal(stage: Stage, fault: str) -> None:
    """The collector answers as a portal does, until somebody has logged in."""
    product = stage.product(stage.https(), usage=True)
    stage.collector.fault(fault, status=302)
    stage.fails(product, "untrusted: HTTP 200, .*|retry: HTTP 302")
    stage.collector.fault(None)
    stage.delivers(product)


# --- resets at each stage -----------------------------------------------------------------------


@situation("reset-syn", HOSTILE)
def reset_syn(stage: Stage) -> None:
    """Reset in answer to the first packet: nothing listens, or a firewall rejects"""
    url = stage.https()
    stage.collector.fault("refuse")
    stage.fails(stage.product(stage.collector.url), "offline: connection: Connection refused.*")
    stage.collector.fault(None)
    stage.delivers(stage.product(url))


@situation("reset-connected", HOSTILE)
def reset_connected(stage: Stage) -> None:
    """Reset as soon as the connection stands"""
    then_well(stage, lambda connection, server: reset(connection), "offline: TLS: " + CUT)


@situation("reset-hello", HOSTILE)
def reset_hello(stage: Stage) -> None:
    """Reset in the ClientHello"""

    def behaviour(connection: socket.socket, server: Server) -> None:
        connection.recv(50)
        reset(connection)

    then_well(stage, behaviour, "offline: TLS: " + CUT)


@situation("reset-handshake", HOSTILE)
def reset_handshake(stage: Stage) -> None:
    """Reset after the TLS handshake"""

    def behaviour(connection: socket.socket, server: Server) -> None:
        reset(connection)

    then_well(stage, stage.behind_tls(behaviour=behaviour), "offline: (TLS|answer): .*")


@situation("reset-request", HOSTILE)
def reset_request(stage: Stage) -> None:
    """Reset in the middle of the request"""

    def behaviour(connection: socket.socket, server: Server) -> None:
        connection.recv(20)
        reset(connection)

    then_well(stage, stage.behind_tls(behaviour=behaviour), "offline: answer: .*")


@situation("reset-before", HOSTILE)
def reset_before(stage: Stage) -> None:
    """Reset when the request has come, before the server has taken it in"""

    def before(number: int, connection: socket.socket) -> None:
        reset(connection)
        raise ConnectionAbortedError

    behaviour = stage.answering(before=before)
    then_well(stage, stage.behind_tls(behaviour=behaviour), "offline: answer: .*")


@situation("reset-after", HOSTILE)
def reset_after(stage: Stage) -> None:
    """Reset when the server has taken the record in: nobody can know; it is sent again under the same event id"""

    def after(number: int, connection: socket.socket, answer: bytes) -> None:
        reset(connection)
        raise ConnectionAbortedError

    behaviour = stage.answering(after=after)
    then_well(stage, stage.behind_tls(behaviour=behaviour), "offline: answer: .*", copies=2)


@situation("reset-answer", HOSTILE)
def reset_answer(stage: Stage) -> None:
    """Reset in the middle of the answer: the same"""

    def after(number: int, connection: socket.socket, answer: bytes) -> None:
        connection.sendall(answer[: len(answer) // 2])
        reset(connection)
        raise ConnectionAbortedError

    behaviour = stage.answering(after=after)
    then_well(stage, stage.behind_tls(behaviour=behaviour), "(offline|untrusted).*", copies=2)


# --- silence ------------------------------------------------------------------------------------


@situation("silent-tls", HOSTILE)
def silent_tls(stage: Stage) -> None:
    """A server, or a firewall in its place, that accepts and says nothing"""
    then_well(stage, silent, LATE % "TLS", request_timeout_s=SHORT_S)


@situation("silent-answer", HOSTILE)
def silent_answer(stage: Stage) -> None:
    """A server that takes the request and never answers"""
    behaviour = stage.behind_tls(behaviour=silent)
    then_well(stage, behaviour, LATE % "answer", request_timeout_s=SHORT_S)


@situation("keep-alive-closed", HOSTILE)
def keep_alive_closed(stage: Stage) -> None:
    """A gateway that ends each connection after one answer, without having said so"""

    def after(number: int, connection: socket.socket, answer: bytes) -> None:
        connection.sendall(answer)
        raise ConnectionAbortedError

    behaviour = stage.behind_tls(behaviour=stage.answering(after=after))
    product = stage.product("https://localhost:%d" % stage.serve(behaviour).port)
    stage.record(product, 5)
    for _ in range(10):  # a gateway may be slower to close than the next request is to come
        if product.flush(20)["drained"]:
            break
    stage.arrived()
    stage.delivers(product)


@situation("offline-30-days", HOSTILE, cost="once", clock=FakeClock)
def offline_30_days(stage: Stage) -> None:
    """30 days without a network, the product started daily; then online"""
    days = 30
    for _ in range(days):
        product = stage.product("https://localhost:9", usage=True, durability="process")
        stage.fails(product, "offline: connection: Connection refused.*")
        stage.clock.advance(DAY_S)
    stage.delivers(stage.product(stage.https(), usage=True))
    for endpoint in ("getkeymanager", "reo-usage"):
        arrived = [r["fields"] for r in stage.collector.records() if r["endpoint"] == endpoint]
        assert len(arrived) == days + 1
    texts = [
        r["fields"]["text_data"]
        for r in stage.collector.records()
        if r["endpoint"] == "getkeymanager"
    ]
    # The first to arrive was the probe, which may be any.
    assert texts[1:] == sorted(texts[1:])
