"""Hostile and half-broken networks that plain sockets can play."""

import socket
import struct
from collections.abc import Callable
from typing import Any

from support.sockets import Authority, Behaviour, Server, silent

from .situations import HOSTILE, situation
from .stage import SHORT_S, Stage

Act = Callable[[socket.socket, Callable[[], bytes]], object]
LATE = "offline: %s: no answer within 0.5 s"


def then_well(
    stage: Stage, behaviour: Behaviour, outcome: str, copies: int = 1, **config: Any
) -> None:
    """A server that behaves like this, and then as it should."""
    server = stage.serve(behaviour)
    url = "https://localhost:%d" % server.port
    product = stage.product(url, **config)
    stage.fails(product, outcome, copies=copies)
    server.behaviour = stage.behind_tls()
    if config.pop("request_timeout_s", None):  # a busy machine takes longer for an honest answer
        product = stage.product(url, **config)
    stage.delivers(product)


# --- portals ------------------------------------------------------------------------------------


@situation("portal-certificate", HOSTILE)
def portal_certificate(stage: Stage) -> None:
    """A captive portal that answers for every host, with its own certificate"""
    portal = Authority(stage.directory / "portal", "Hotel Portal").issue("portal.example")
    behaviour = stage.behind_tls(certificate=portal)
    then_well(stage, behaviour, "offline: TLS: certificate refused: .*")


@situation("portal-page", HOSTILE)
def portal_page(stage: Stage) -> None:
    """A portal that TLS does not stop: 200 and a page of HTML"""
    portal(stage, "portal", "untrusted: HTTP 200, .*")


@situation("portal-redirect", HOSTILE)
def portal_redirect(stage: Stage) -> None:
    """A portal that TLS does not stop: 302 to a login page"""
    portal(stage, "redirect", "retry: HTTP 302")


def portal(stage: Stage, fault: str, outcome: str) -> None:
    """The collector answers as a portal does, until somebody has logged in."""
    product = stage.product(stage.https(), usage=True)
    stage.collector.fault(fault, status=302)
    stage.fails(product, outcome)
    stage.collector.fault(None)
    stage.delivers(product)


# --- resets at each stage -----------------------------------------------------------------------


def reset(connection: socket.socket) -> None:
    """End it as a firewall does: RST, and what was on its way is lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def resets_after(size: int) -> Behaviour:
    """Resets a connection once it has read so much."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        connection.recv(size)
        reset(connection)

    return behaviour


@situation("reset-syn", HOSTILE)
def reset_syn(stage: Stage) -> None:
    """Reset in answer to the first packet: nothing listens, or a firewall rejects"""
    stage.collector.fault("refuse")
    stage.fails(stage.product(stage.collector.url), "offline: connection: Connection refused.*")
    stage.collector.fault(None)
    stage.delivers(stage.product(stage.https()))


@situation("reset-hello", HOSTILE)
def reset_hello(stage: Stage) -> None:
    """Reset in the ClientHello"""
    then_well(stage, resets_after(50), "offline: TLS: .*")


@situation("reset-request", HOSTILE)
def reset_request(stage: Stage) -> None:
    """Reset in the middle of the request"""
    then_well(stage, stage.behind_tls(behaviour=resets_after(20)), "offline: answer: .*")


def act_then_reset(
    stage: Stage, act: Act, copies: int, outcome: str = "offline: answer: .*"
) -> None:
    """The first request is met by ``act``, then the connection is reset."""

    def both(number: int, connection: socket.socket, ask: Callable[[], bytes]) -> None:
        act(connection, ask)
        reset(connection)

    behaviour = stage.behind_tls(behaviour=stage.answering(both))
    then_well(stage, behaviour, outcome, copies)


@situation("reset-before", HOSTILE)
def reset_before(stage: Stage) -> None:
    """Reset when the request has come, before the server has taken it in"""
    act_then_reset(stage, lambda connection, ask: None, copies=1)


@situation("reset-after", HOSTILE)
def reset_after(stage: Stage) -> None:
    """Reset when the server has taken the record in: nobody can know; it is sent again under the same event id"""
    act_then_reset(stage, lambda connection, ask: ask(), copies=2)


@situation("reset-answer", HOSTILE)
def reset_answer(stage: Stage) -> None:
    """Reset in the middle of the answer: the same"""
    act_then_reset(
        stage,
        lambda connection, ask: connection.sendall(ask()[:-9]),
        2,
        "(offline: answer|untrusted): .*",
    )


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

    def once(number: int, connection: socket.socket, ask: Callable[[], bytes]) -> None:
        connection.sendall(ask())
        raise ConnectionAbortedError

    product = stage.product(stage.https(behaviour=stage.answering(once)))
    # It may be slower to close than the next request is to come.
    stage.delivers(product, 5, tries=10)
