"""Answers in odd clothes, of somebody else, or of another address: read, or named for what they are."""

import gzip
import socket
import zlib
from collections.abc import Callable
from typing import Any

from support.sockets import ok

from .situations import ANSWERS, situation
from .stage import Stage

Ask = Callable[[], bytes]
What = Callable[[Ask], bytes]


def says(stage: Stage, what: What, outcome: str = "", copies: int = 1, count: int = 1) -> None:
    """To each request, of either endpoint, comes ``what``: it may ``ask`` the server behind. Then all is well."""

    def act(number: int, connection: socket.socket, ask: Ask) -> None:
        connection.sendall(what(lambda: ask().partition(b"\r\n\r\n")[2]))

    server = stage.serve(stage.behind_tls(behaviour=stage.answering(act)))
    product = stage.product("https://localhost:%d" % server.port, usage=True)
    if outcome:
        stage.fails(product, outcome, count=count, copies=copies)
        server.behaviour = stage.behind_tls()
    stage.delivers(product, 3)


def packed(coding: bytes, pack: Callable[[bytes], bytes] = bytes) -> What:
    """What says that it is packed so."""
    return lambda ask: ok(pack(ask()), b"Content-Encoding: " + coding)


def sized(ask: Ask, more: int = 0) -> bytes:
    """Two lengths in one header."""
    body = ask()
    lengths = b"Content-Length: %d, %d" % (len(body), len(body) + more)
    return b"HTTP/1.1 200 OK\r\n" + lengths + b"\r\n\r\n" + body


def row(name: str, words: str, what: What, *how: Any) -> None:
    """Put it on the list; ``how`` are the arguments that ``says`` takes behind it."""

    def play(stage: Stage) -> None:
        says(stage, what, *how)

    play.__doc__ = words
    situation("answer-" + name, ANSWERS)(play)


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n"
NOTICE = (
    b"<br />\n<b>Notice</b>:  Undefined index: x in <b>/srv/a.php</b> on line <b>12</b><br />\n"
)
MANY = [b"X-%d: 1" % n for n in range(120)]
PAGE = b"HTTP/1.1 %d No\r\nContent-Length: 22\r\n\r\n<html>No such.</html>\n"
UNPROVEN = "untrusted: HTTP %d, not proven: "
NO_HTTP = r"offline: answer: not an HTTP answer \(%s\)"

row("gzip", "Packed with gzip, which nobody asked for", packed(b"gzip", gzip.compress))
row("deflate", "Packed with deflate", packed(b"deflate", zlib.compress))
row("unpacked", "Packed by its header alone: a gateway took the packing off", packed(b"gzip"))
row("bom", "A byte order mark before the JSON", lambda ask: ok(b"\xef\xbb\xbf" + ask()))
row("interim", "102 and 103 before it", lambda ask: INTERIM + ok(ask()))
row("more", "Another answer right behind it", lambda ask: ok(ask()) * 2)
row("sized-twice", "Its length twice in one header, `43, 43`", sized)
row("sizes", "Two lengths, `43, 44`", lambda ask: sized(ask, 1), NO_HTTP % ".*two lengths", 2)
row("headers", "120 headers", lambda ask: ok(ask(), *MANY), NO_HTTP % "too many headers", 2)
row(
    "brotli", "Packed with Brotli", packed(b"br", zlib.compress), UNPROVEN % 200 + ".* packed,.*", 2
)
PHP = UNPROVEN % 200 + "the server sent a PHP notice before its answer"
row("notice", "A PHP notice before it", lambda ask: ok(NOTICE + ask()), PHP, 2)
GATEWAY = "A gateway says 400 to every request; 300 records wait, one is tried"
row("gateway", GATEWAY, lambda ask: PAGE % 400, UNPROVEN % 400 + ".*", 1, 300)
row("address", "A page that says 404", lambda ask: PAGE % 404, UNPROVEN % 404 + "wrong address.*")
