"""Secrets that get out: API keys, licences and proxy passwords in whatever a product says, writes or is seen doing.

Every situation runs a real product with odd secrets at DEBUG; then everything that somebody could get to see is
searched for every spelling of every secret. Allowed are: a licence in its record on disk, and what the request itself
carries. The activation identifier and the user identifier may be shown where a person asks for a record.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from email.utils import formatdate
from html import escape
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote, quote_plus

import pytest
from support.agent import child_environ
from support.attacks import http_answer, receipt, signed
from support.canary import (
    STYLES,
    Canaries,
    Heard,
    seen_of_process,
    shown_of_request,
)
from support.collector import wait_until
from support.keyring import ROOTS
from support.sockets import Authority, Server

import agent
from agent import cli
from agent.collector import Collector
from agent.collector.faults import FAULTS
from agent.transport import HttpTransport

pytestmark = pytest.mark.ends

Situation = Callable[["Site"], Optional[AbstractContextManager[object]]]


class Site:
    """A product with odd secrets, its servers, and everything that is known of it outside."""

    def __init__(self, place: Path, style: str) -> None:
        self.canaries = Canaries(style)
        self.place, self.state = place, place / "state"
        secret = self.canaries
        self.api_keys: Any = (secret.api_key, secret.usage_api_key)
        self.collector: Any = None
        self.keys: Any = ()
        self.url = ""
        self.settings: dict[str, Any] = {}
        self.server: dict[str, Any] = {}
        self.environ: dict[str, str] = {}
        self.servers: list[Server] = []
        self.stack = contextlib.ExitStack()
        self.expected = ""  # in what status or history say

    def collect(self, **given: Any) -> None:
        """An honest server, if its ``api_keys`` are not given."""
        known = {"api_keys": self.api_keys, "license_keys": (self.canaries.licence_key,)}
        self.collector = self.stack.enter_context(Collector(**{**known, **given}))

    def config(self, **changes: Any) -> agent.Config:
        secret = self.canaries
        url = self.url or self.collector.url
        keys = self.keys or self.collector.public_keys
        given = {"base_url": url, "keys": keys, **self.server}
        settings: dict[str, Any] = {
            "vendor": "Acme",
            "product_name": "Studio",
            "product_id": "42",
            "product_version": "5.2.5",
            "endpoints": (
                agent.GetKeyManager(api_key=secret.api_key, **given),
                agent.Reo(base_url=url, api_key=secret.usage_api_key, domain="acme.example"),
            ),
            "usage_consent": True,
            "state_dir": self.state,
            "deliver": "manual",
            "durability": "process",
            "start_delay_s": 0,
            "request_timeout_s": 5.0,
        }
        return agent.Config(**{**settings, **self.settings, **changes})

    @contextlib.contextmanager
    def serving(self, behaviour: Any) -> Iterator[Server]:
        """A server on loopback whose requests are looked at too."""
        with Server(behaviour) as server:
            self.servers.append(server)
            yield server

    def live(self, heard: Heard) -> None:
        """One run of the product: it records, delivers, looks at itself, and ends."""
        config = self.config()
        transport = Noting.of(config, self.environ)
        transport.heard = heard  # type: ignore[attr-defined]
        environ = {"AGENT_DEBUG": "1", **self.environ}
        licence = self.canaries.licence
        outcomes: list[agent.Outcome] = []
        with agent.Agent(
            config, licence, on_outcome=outcomes.append, transport=transport, environ=environ
        ) as product:
            product.call_home()
            product.record_text("opengl", data_group="renderer")
            product.track("EXPORT")
            product.count("RENDER")
            product.flush(5.0)
            shown = product.preview(samples=True)
            heard.add("preview", shown, but=("activation identifier",))
            for name in ("status", "history", "diagnostics"):
                heard.add(name, getattr(product, name)())
            heard.add("user identifier", product.user_identifier)
            told = json.dumps([product.status(), product.history()])
            assert self.expected in told, told
            self.user_identifier = product.user_identifier
        heard.add("outcomes", outcomes)
        heard.add("configuration", config)

    def commands(self, heard: Heard) -> None:
        """What the command line shows of it."""
        config = self.config()
        asked: list[tuple[str, ...]] = [
            ("spool", "status"),
            ("spool", "list", "--json"),
            ("history",),
            ("doctor", "--json"),
            ("doctor",),
            ("id", "--explain", "--json"),
            ("spool", "export", str(self.place / "waiting.spool")),
        ]
        for words in asked:
            assert cli.main(words, config=config) in (0, 1), words
        with show_license_fields(heard):
            cli.main(("preview", "--json"), config=config)
            for record in json.loads(run_quietly(("spool", "list", "--json"), config))[:2]:
                cli.main(("spool", "show", record["id"], "--json"), config=config)

    def look(self, heard: Heard) -> None:
        """What servers and proxies may keep of the requests."""
        for server in self.servers:
            for request in server.requests:
                heard.add("a request", shown_of_request(request))
        for request in self.collector.requests():
            heard.add("the path of a request", request["path"])


class Noting(HttpTransport):
    """The real transport; every exception that leaves it is looked at."""

    heard: Heard

    def send(self, request: Any, *, timeout_s: float) -> Any:
        try:
            return super().send(request, timeout_s=timeout_s)
        except Exception as error:
            self.heard.add("what the transport raised", error)
            raise
        finally:
            self.heard.add("an address", request.url)


@contextlib.contextmanager
def show_license_fields(heard: Heard) -> Iterator[None]:
    """The activation identifier is shown to whoever asks for a record (SECURITY.md)."""
    before = heard.out.tell()
    yield
    heard.out.seek(before)
    heard.add("what a person asked for", heard.out.read(), but=("activation identifier",))
    heard.out.seek(before)
    heard.out.truncate()


def run_quietly(words: tuple[str, ...], config: agent.Config) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cli.main(words, config=config)
    return out.getvalue()


# -- situations ----------------------------------------------------------------------------------


def fault(name: str, expected: str = "", **options: Any) -> Situation:
    """The collector misbehaves."""

    def arrange(site: Site) -> None:
        if name in ("blackhole", "drip-headers", "drip-body"):
            site.settings["request_timeout_s"] = 0.1
        if name == "redirect":
            key = quote(site.canaries.api_key, safe="")
            options["redirect_to"] = site.collector.url + "/elsewhere?api_key=" + key
        site.collector.fault(name, **options)
        site.expected = expected

    return arrange


def echoing(write: Callable[[str], str], code: int = 831) -> Situation:
    """Servers that repeat all secrets that they were told, in their own way, in every text that they may send."""

    def arrange(site: Site) -> Any:
        secret = site.canaries
        parts = [secret.api_key, secret.licence_key, secret.activation_identifier]
        told = "; ".join("You sent %s" % write(part) for part in parts[:2])
        site.keys = site.collector.public_keys

        def behaviour(connection: Any, server: Server) -> None:
            while request := server.read_request(connection):
                if b"/send-telemetry-data" in request.split(b"\r\n")[0]:
                    errors = {"license_key": [told], write(parts[0]): [write(parts[1])]}
                    errors["data_group"] = ["x" * 150 + " " + write(part) for part in parts[:2]]
                    at = time.time()
                    body = signed(receipt(at, code=code, errors=errors if code == 831 else []))
                else:
                    said = "You sent %s, refused" % write(secret.usage_api_key)
                    failure = {"status": "failure", "response_code": 401, "response": said}
                    body = json.dumps(failure).encode()
                echo = quote(write(parts[0]), safe=" ")
                connection.sendall(http_answer(body, 200, "X-Echo: " + echo))

        @contextlib.contextmanager
        def serve() -> Iterator[None]:
            with site.serving(behaviour) as server:
                site.url = "http://127.0.0.1:%d" % server.port
                yield

        return serve()

    return arrange


def refusing(code: int) -> Situation:
    def arrange(site: Site) -> None:
        secret = site.canaries
        given = {secret.api_key: code, secret.usage_api_key: code}
        site.collect(api_keys=given)
        site.expected = "(code %d)" % code

    return arrange


def another_key(site: Site) -> None:
    """The server does not know ours."""
    site.collect(api_keys=("another",))
    site.expected = "(code 100)"


def answering(text: bytes, expected: str) -> Situation:
    """Anything may answer in the server's place, and repeat what it was sent."""

    def arrange(site: Site) -> Any:
        def behaviour(connection: Any, server: Server) -> None:
            while request := server.read_request(connection):
                connection.sendall(text.replace(b"ECHO", request.partition(b"\r\n\r\n")[2]))
                return

        @contextlib.contextmanager
        def serve() -> Iterator[None]:
            with site.serving(behaviour) as server:
                site.url = "http://127.0.0.1:%d" % server.port
                yield

        site.expected = expected
        return serve()

    return arrange


def proxied(
    text: bytes, expected: str, *, by: str = "proxy", https: bool = False, auth: bool = False
) -> Situation:
    """A proxy that demands, refuses or breaks off, and repeats the credentials that it was given."""

    def arrange(site: Site) -> Any:
        def behaviour(connection: Any, server: Server) -> None:
            request = server.read_request(connection)
            line = [x for x in request.split(b"\r\n") if x.lower().startswith(b"proxy-auth")]
            site.credentials = line  # type: ignore[attr-defined]
            # Base64 and what it says, as a proxy's page about the error would.
            said = line[0].split()[-1] if line else b"none"
            plain = site.canaries.proxy_auth.encode("utf-8")
            connection.sendall(text.replace(b"ECHO", said).replace(b"PLAIN", plain))

        @contextlib.contextmanager
        def serve() -> Iterator[None]:
            with site.serving(behaviour) as server:
                address = site.canaries.proxy_url("127.0.0.1", server.port)
                if auth:
                    address = "http://127.0.0.1:%d" % server.port
                    site.settings["proxy_auth"] = site.canaries.proxy_auth
                if by == "proxy":
                    site.settings["proxy"] = address
                else:
                    site.environ[by] = address
                if https:
                    site.url = "https://localhost:9"
                yield
                assert site.credentials[0].endswith(site.canaries.basic)  # type: ignore[attr-defined]

        site.expected = expected
        return serve()

    return arrange


def socks(site: Site) -> Any:
    """A SOCKS proxy that refuses user and password."""

    def behaviour(connection: Any, server: Server) -> None:
        connection.recv(100)
        connection.sendall(b"\5\2")
        told = connection.recv(1000)
        assert site.canaries.proxy_password.encode()[:200] in told
        server.seen.set()
        connection.sendall(b"\1\1" + told)

    @contextlib.contextmanager
    def serve() -> Iterator[None]:
        with site.serving(behaviour) as server:
            site.settings["proxy"] = site.canaries.proxy_url("127.0.0.1", server.port, "socks5h")
            yield
            assert server.seen.is_set()

    site.expected = "proxy: "
    return serve()


def dead_proxy(site: Site) -> None:
    site.settings["proxy"] = site.canaries.proxy_url("127.0.0.1", 9)
    site.expected = "proxy: "


def no_proxy(site: Site) -> None:
    """What is set is none; it comes from the environment, unchecked."""
    site.environ["ALL_PROXY"] = site.canaries.proxy_url("127.0.0.1", 9, "gopher")
    site.expected = "proxy: "


def untrusted_tls(site: Site) -> Any:
    authority = Authority(site.place)

    @contextlib.contextmanager
    def serve() -> Iterator[None]:
        with site.serving(authority.over_tls(lambda *_: None, "localhost")) as server:
            site.url = "https://localhost:%d" % server.port
            yield

    site.expected = "certificate refused"
    return serve()


def no_directory(site: Site) -> None:
    """The disk refuses everything."""
    (site.place / "file").write_bytes(b"")
    site.state = site.place / "file" / "state"
    site.expected = "Not a directory"


def little_room(site: Site) -> None:
    site.settings["max_records"] = 1
    site.collector.fault("500")


def refused_keyring(site: Site) -> None:
    document = site.place / "keyring.json"
    document.write_text(json.dumps({"signed": "{}", "signatures": []}))
    site.server["keys"] = agent.Keyring(
        keys=site.collector.public_keys,
        version=1,
        roots=tuple(root.key for root in ROOTS),
        threshold=1,
        document=str(document),
    )
    site.expected = "keyring.json: "


def spelled(text: str) -> str:
    return text


PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>ECHO</html>"
DEMAND = (
    b'HTTP/1.1 407 PLAIN\r\nProxy-Authenticate: Basic realm="ECHO PLAIN"\r\n'
    b"Content-Length: 4\r\nX-Echo: ECHO\r\n\r\nECHO"
)
SITUATIONS: dict[str, Situation] = {
    "delivered": lambda site: None,
    "flagged, repeated": echoing(spelled),
    "flagged, repeated in capitals": echoing(str.upper),
    "flagged, repeated as a form": echoing(quote_plus),
    "flagged, repeated in percent signs": echoing(lambda text: quote(text, safe="")),
    "flagged, repeated in JSON": echoing(lambda text: json.dumps(text)[1:-1]),
    "flagged, repeated in HTML": echoing(escape),
    "held, repeated": echoing(spelled, code=101),
    "another key": another_key,
    **{"held, code %d" % code: refusing(code) for code in (100, 101, 102, 103, 150)},
    **{"server: " + name: fault(name) for name in FAULTS if name != "429-retry-after"},
    "server: 429": fault("429-retry-after", "asked to wait", retry_after=30),
    "server: 503 until a date": fault("429-retry-after", retry_after=formatdate(usegmt=True)),
    "a page that repeats the request": answering(PAGE, "not proven"),
    "a broken answer": answering(b"HTTP/1.1 ECHO\r\nECHO: ECHO\r\n\r\nECHO", ""),
    "no HTTP at all": answering(b"SSH-2.0-ECHO\r\n", "not an HTTP answer"),
    "407 from a proxy": proxied(DEMAND, "407"),
    "407 from the environment's proxy": proxied(DEMAND, "407", by="http_proxy"),
    "407 to CONNECT": proxied(DEMAND, "407", https=True),
    "407 in spite of proxy_auth": proxied(DEMAND, "407", by="ALL_PROXY", auth=True),
    "CONNECT refused": proxied(b"HTTP/1.1 403 ECHO\r\nX: PLAIN\r\n\r\n", "403", https=True),
    "a proxy that dies": proxied(b"", "proxy: ", https=True),
    "a SOCKS proxy that refuses": socks,
    "no proxy there": dead_proxy,
    "no such kind of proxy": no_proxy,
    "a certificate that nobody vouches for": untrusted_tls,
    "no directory": no_directory,
    "little room": little_room,
    "a keyring document refused": refused_keyring,
}
NAMES = list(SITUATIONS)
# Where Python's own libraries word the errors: on every version.
EVERYWHERE = (
    *("delivered", "flagged, repeated", "server: blackhole", "server: refuse", "a broken answer"),
    *("no HTTP at all", "407 from a proxy", "407 to CONNECT", "a proxy that dies", "no directory"),
    *("no such kind of proxy", "a certificate that nobody vouches for"),
)
# Where the command line has something of its own to say.
SHOWN = (*EVERYWHERE, "another key", "little room", "a keyring document refused")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Home and the directory for temporary files lie where they are searched."""
    for name, folder in (("HOME", "home"), ("TMPDIR", "tmp")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


def watch(place: Path, name: str, style: str) -> Heard:
    """One situation, lived through and looked at from everywhere."""
    site = Site(place, style)
    to = "stderr" if NAMES.index(name) % 2 else "logging"
    with site.stack as stack:
        site.collect()
        context = SITUATIONS[name](site)
        if context is not None:
            stack.enter_context(context)
        heard = stack.enter_context(site.canaries.listening(place, to=to))
        site.live(heard)
        if name in SHOWN or "repeat" in name:
            site.commands(heard)
    site.look(heard)
    story = heard.err.getvalue() if to == "stderr" else "\n".join(heard.lines)
    assert "pass begins" in story and "pass over" in story and "closed" in story
    assert site.user_identifier and site.user_identifier not in story
    return heard


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in EVERYWHERE else pytest.mark.once) for n in NAMES],
)
def test_a_situation_gives_no_secret_away(place: Path, name: str) -> None:
    styles = list(STYLES)
    watch(place, name, styles[NAMES.index(name) % len(styles)]).is_clean()


@pytest.mark.campaign
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["delivered", *(n for n in NAMES if "repeat" in n or "407" in n)])
def test_no_style_of_secret_is_given_away(place: Path, name: str, style: str) -> None:
    watch(place, name, style).is_clean()


@pytest.mark.parametrize("style", STYLES)
def test_a_mistake_does_not_repeat_the_secret_in_it(place: Path, style: str) -> None:
    """A secret in the wrong field, or one that is none."""
    secret = Canaries(style)
    site = Site(place, style)
    site.collect()
    with site.stack, secret.listening(place) as heard:
        good = site.config()
        mistakes: list[Callable[[], object]] = [
            lambda: good.replace(proxy=secret.proxy_url("127.0.0.1", 1) + "/path?"),
            lambda: good.replace(proxy=secret.proxy_url("no host", 1)),
            lambda: good.replace(proxy_auth=secret.proxy_password.replace(":", "") + "\n"),
            lambda: good.replace(endpoints=secret.api_key),
            lambda: good.replace(ca_bundle=[secret.proxy_password]),
            lambda: good.endpoints[0].replace(api_key=secret.api_key + " "),
            lambda: good.endpoints[0].replace(base_url=secret.api_key),
            lambda: good.endpoints[0].replace(base_url=secret.proxy_url("127.0.0.1", 1)),
            lambda: good.endpoints[0].replace(name=secret.api_key),
            lambda: good.endpoints[0].replace(keys=secret.api_key),
            lambda: agent.PublicKey.from_pem(secret.api_key),
            lambda: agent.Agent(good, [secret.licence_key]),  # type: ignore[arg-type]
            lambda: agent.Agent(good, (secret.licence_key, [1])),  # type: ignore[arg-type]
            lambda: agent.Agent(good, "k", [secret.activation_identifier]),  # type: ignore[arg-type]
        ]
        for n, mistake in enumerate(mistakes):
            with pytest.raises(agent.AgentError) as caught:
                mistake()
            heard.add("mistake %d" % n, caught.value)
        heard.add("configuration", good)
        for endpoint in good.endpoints:
            heard.add("endpoint", endpoint)
        mine = good.replace(proxy=secret.proxy_url("127.0.0.1", 1), proxy_auth=secret.proxy_auth)
        heard.add("configuration with a proxy", mine)
    heard.is_clean()


# -- processes -----------------------------------------------------------------------------------

# The configuration comes through the standard input: what a vendor puts into arguments everybody sees.
PRODUCT = """
import json, logging, os, sys, time
import agent
told = json.loads(sys.stdin.buffer.readline())
if told["logging"]:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
keys = tuple(map(agent.PublicKey.from_pem, told["pems"]))
url = told["url"]
config = agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True, start_delay_s=0,
    state_dir=told["state"], deliver=told["deliver"], proxy=told["proxy"], endpoints=(
        agent.GetKeyManager(base_url=url, api_key=told["api_key"], keys=keys),
        agent.Reo(base_url=url, api_key=told["usage_api_key"], domain="acme.example")))
t = agent.Agent(config, tuple(told["licence"]))
t.call_home()
t.track("EXPORT")
print("recorded", flush=True)
sys.stdin.buffer.readline()
t.flush(5)
t.close()
"""


def start(site: Site, deliver: str, *, logs: bool) -> subprocess.Popen[bytes]:
    """A product of its own, which has recorded."""
    secret = site.canaries
    told = {
        "logging": logs,
        "pems": [key["public_key"] for key in site.collector.keys],
        "url": site.collector.url,
        "state": str(site.state),
        "deliver": deliver,
        "proxy": site.settings.get("proxy"),
        "api_key": secret.api_key,
        "usage_api_key": secret.usage_api_key,
        "licence": secret.licence,
    }
    pipe = subprocess.PIPE
    product = subprocess.Popen(
        [sys.executable, "-c", PRODUCT],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env={**child_environ(), "AGENT_DEBUG": "1"},
    )
    assert product.stdin is not None and product.stdout is not None
    product.stdin.write(json.dumps(told).encode() + b"\n")
    product.stdin.flush()
    assert product.stdout.readline() == b"recorded\n"
    return product


@pytest.mark.parametrize("style", ["punctuation", pytest.param("quotes", marks=pytest.mark.once)])
def test_a_product_that_is_killed_and_starts_again(place: Path, style: str) -> None:
    site = Site(place, style)
    with site.stack, site.canaries.listening(place) as heard:
        site.collect()
        site.collector.fault("blackhole")
        first = start(site, "thread", logs=False)
        wait_until(lambda: site.collector.requests())
        for name, data in seen_of_process(Path("/proc/%d" % first.pid)).items():
            heard.add(name, data)
        heard.add("left by the one that runs", place)
        first.kill()
        out, said = first.communicate()
        assert b"worker started" in said and b"pass begins" in said
        heard.add("the output of the one that was killed", out + said)
        heard.add("left by the one that was killed", place)
        site.collector.fault(None)
        second = start(site, "thread", logs=True)
        out, said = second.communicate(b"\n", timeout=30)
        assert second.returncode == 0 and b":pass over" in said
        heard.add("the output of the next", out + said)
        assert len(site.collector.records()) == 6
        site.look(heard)
    heard.is_clean()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_is_seen_of_a_process_that_delivers(place: Path) -> None:
    site = Site(place, "punctuation")
    with site.stack, site.canaries.listening(place) as heard:
        site.collect()
        site.collector.fault("blackhole")
        site.settings["proxy"] = site.canaries.proxy_url("127.0.0.1", 9)
        with Server(lambda connection, server: connection.recv(1)) as proxy:
            site.settings["proxy"] = site.canaries.proxy_url("127.0.0.1", proxy.port)
            mark = str(place).encode()
            product = start(site, "detached", logs=False)
            wait_until(lambda: proxy.accepted)
            found = [p for p in Path("/proc").glob("[0-9]*") if _belongs(p, mark)]
            assert len(found) >= 2, "the product, and who delivers for it"
            for process in found:
                for name, data in seen_of_process(process).items():
                    assert data
                    heard.add(name, data)
            out, said = product.communicate(b"\n", timeout=30)
            assert b"started to deliver" in said
            heard.add("the output", out + said)
            wait_until(lambda: not [p for p in Path("/proc").glob("[0-9]*") if _belongs(p, mark)])
    heard.is_clean()


def _belongs(process: Path, mark: bytes) -> bool:
    """Whether a process has the home of this test; this one itself is older than it."""
    with contextlib.suppress(OSError):
        return b"HOME=" + mark in (process / "environ").read_bytes()
    return False


# -- the search itself ---------------------------------------------------------------------------


class Told(Exception):
    """Of a host: says everything."""


def _chained(text: str) -> Exception:
    try:
        try:
            raise Told(text)
        except Told as error:
            raise ValueError("something else") from error
    except ValueError as error:
        return error


# How one text can get somewhere: each must be found.
PLANTS: dict[str, Callable[[Heard, Path, str], object]] = {
    "stdout": lambda heard, place, text: print("said", text),
    "stderr": lambda heard, place, text: print(text, file=sys.stderr),
    "a log line": lambda heard, place, text: logging.getLogger("x.y").debug("a %s", text),
    "a log line's arguments": lambda heard, place, text: logging.getLogger("x").debug(
        "nothing", extra={"told": text}
    ),
    "our own log": lambda heard, place, text: logging.getLogger(agent.__name__).debug(
        text.replace("%", "%%")
    ),
    "a file": lambda heard, place, text: (place / "a" / "b").write_text(text, "utf-8"),
    "a hidden file": lambda heard, place, text: (place / "a" / ".b").write_bytes(
        b"\0\xff" + text.encode()
    ),
    "an exception": lambda heard, place, text: heard.add("it", Told(text)),
    "what an exception came of": lambda heard, place, text: heard.add("it", _chained(text)),
    "a value": lambda heard, place, text: heard.add("it", {"a": [1, {"b": text}]}),
    "a value's name": lambda heard, place, text: heard.add("it", {text: None}),
    "bytes": lambda heard, place, text: heard.add("it", b"GET /?q=" + text.encode() + b" HTTP/1.1"),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_secret_is_found_wherever_it_is(tmp_path: Path, style: str) -> None:
    (tmp_path / "a").mkdir()
    canaries = Canaries(style)
    for plant, put in PLANTS.items():
        for name, secret in canaries.secrets.items():
            for file in (tmp_path / "a").iterdir():
                file.unlink()
            with canaries.listening(tmp_path) as heard:
                put(heard, tmp_path, secret)
            found = {finding.secret for finding in heard.findings()}
            assert found == {name}, (plant, name, found)
            with pytest.raises(AssertionError) as caught:
                heard.is_clean()
            assert secret not in str(caught.value), "the search itself gives it away"


@pytest.mark.parametrize("style", STYLES)
def test_a_secret_is_found_however_it_is_spelled(style: str) -> None:
    canaries = Canaries(style)
    for name, secret in canaries.secrets.items():
        written: dict[str, str] = {
            "as it is": secret,
            "in capitals": secret.upper(),
            "in a form": quote_plus(secret),
            "in an address": quote(secret),
            "in JSON": json.dumps({"a": secret}),
            "in JSON in JSON": json.dumps(json.dumps({"a": secret})),
            "in a literal": repr([secret]),
            "in HTML": escape(secret),
            "in a pickle": pickle.dumps(secret, 0).decode("latin-1"),
        }
        for shift in range(3):
            data = b"x" * shift + secret.encode() + b"yz"
            written["in base64, %d" % shift] = base64.b64encode(data).decode()
            written["in base64url, %d" % shift] = base64.urlsafe_b64encode(data).decode()
        if len(secret) > 24:
            written["cut"] = "You sent " + secret[:13] + "…"
        if style == "short":  # three characters of base64 turn up by chance
            written = {how: text for how, text in written.items() if "base64" not in how}
        for how, text in written.items():
            found = {finding.secret for finding in canaries.search("so: %s." % text)}
            assert found == {name}, (how, name, found)
    assert canaries.search(b"Basic " + canaries.basic)
    assert not canaries.search(os.urandom(100_000), "nothing to be seen here", {"api_key": "****"})


def test_a_licence_may_be_in_its_record_and_beside_it_nowhere(tmp_path: Path) -> None:
    site = Site(tmp_path, "punctuation")
    with site.stack, site.canaries.listening(tmp_path) as heard:
        site.collect()
        with agent.Agent(site.config(), site.canaries.licence, environ={}) as product:
            product.call_home()
            assert product.export_spool(tmp_path / "waiting.spool") == 2
            (segment,) = (p for p in site.state.glob("l-*.seg"))
            assert site.canaries.licence_key.encode() in segment.read_bytes()
            assert not heard.findings()
            product.record_text(site.canaries.licence_key, data_group="g")
        assert {finding.where for finding in heard.findings()} == {str(segment)}


def test_what_is_seen_of_a_request_on_its_way() -> None:
    canaries = Canaries("punctuation")
    head = b"POST /a?b=%s HTTP/1.1\r\nProxy-Authorization: Basic %s\r\nX-Echo: %s\r\n\r\n%s"
    key, basic = canaries.api_key.encode(), canaries.basic
    assert not canaries.search(shown_of_request(head % (b"1", basic, b"2", key)))
    assert canaries.search(shown_of_request(head % (quote(key).encode(), basic, b"2", b"")))
    assert canaries.search(shown_of_request(head % (b"1", b"2", basic, b"")))
