"""Secrets that get out: API keys, licences and proxy passwords in whatever a product says, writes or is seen doing.

Every situation runs a real product with odd secrets at DEBUG; then everything that somebody could get to see is
searched for every spelling of every secret. Allowed are: a licence in its record on disk, and what the request itself
carries. The activation identifier and the user identifier may be shown where a person asks for a record.
"""

import base64
import contextlib
import io
import json
import logging
import os
import pickle
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
from support.agent import config
from support.attacks import http_answer, receipt, signed
from support.canary import STYLES, Canaries, Heard, shown_of_request
from support.keyring import KEYS
from support.sockets import Authority, Server
from support.systems import posix

import agent
from agent import cli
from agent.collector import Collector
from agent.collector.faults import FAULTS
from agent.transport import HttpTransport

Situation = Callable[["Site"], Optional[AbstractContextManager[object]]]
ACTIVATION = ("activation identifier",)


class Site:
    """A product with odd secrets, its servers, and everything that is known of it outside."""

    def __init__(self, place: Path, style: str, stack: contextlib.ExitStack) -> None:
        self.canaries = Canaries(style)
        self.place, self.state, self.stack = place, place / "state", stack
        self.keys: Any = ()
        self.url = self.expected = ""  # expected in what status or history say
        self.settings: dict[str, Any] = {}
        self.environ: dict[str, str] = {}
        self.servers: list[Server] = []
        self.collect((self.canaries.api_key, self.canaries.usage_api_key))

    def collect(self, api_keys: Any) -> None:
        """An honest server that knows these."""
        known = (self.canaries.licence_key,)
        self.collector = self.stack.enter_context(Collector(api_keys=api_keys, license_keys=known))

    def config(self) -> agent.Config:
        secret, url = self.canaries, self.url or self.collector.url
        keys = self.keys or self.collector.public_keys
        endpoints = (
            agent.GetKeyManager(base_url=url, api_key=secret.api_key, keys=keys),
            agent.Reo(base_url=url, api_key=secret.usage_api_key, domain="acme.example"),
        )
        given = {"durability": "process", "request_timeout_s": 5.0, **self.settings}
        return config(url, keys, self.state, endpoints=endpoints, **given)

    @contextlib.contextmanager
    def serving(self, behaviour: Any, scheme: str = "http") -> Iterator[Server]:
        """A server on loopback in the collector's place, whose requests are looked at too."""
        with Server(behaviour) as server:
            self.servers.append(server)
            self.url = "%s://localhost:%d" % (scheme, server.port)
            yield server

    def live(self, heard: Heard) -> None:
        """One run of the product: it records, delivers, looks at itself, and ends."""
        made = self.config()
        transport = Noting(self.environ, **vars(made))
        transport.heard = heard  # type: ignore[attr-defined]
        outcomes: list[agent.Outcome] = []
        given: Any = {"transport": transport, "environ": {"AGENT_DEBUG": "1", **self.environ}}
        with agent.Agent(made, self.canaries.licence, None, outcomes.append, **given) as product:
            product.call_home()
            product.record_text("opengl", data_group="renderer")
            product.track("EXPORT")
            product.count("RENDER")
            product.flush(5.0)
            heard.add("preview", product.preview(samples=True), but=ACTIVATION)
            for name in ("status", "history", "diagnostics"):
                heard.add(name, getattr(product, name)())
            told = json.dumps([product.status(), product.history()])
            assert self.expected in told, told
            self.user_identifier = product.user_identifier
        heard.add("outcomes", outcomes)
        heard.add("configuration", made)

    def commands(self, heard: Heard) -> None:
        """What the command line shows of it; the activation identifier to whoever asks for a record (SECURITY.md)."""
        made = self.config()
        export = str(self.place / "waiting.spool")
        asked = ("spool status", "spool list --json", "history", "doctor --json", "doctor")
        for words in [
            *map(str.split, (*asked, "id --explain --json")),
            ["spool", "export", export],
        ]:
            assert cli.main(words, config=made) in (0, 1), words
        shown = run_quietly(("preview", "--json"), made)
        for record in json.loads(run_quietly(("spool", "list", "--json"), made))[:2]:
            shown += run_quietly(("spool", "show", record["id"], "--json"), made)
        heard.add("what a person asked for", shown, but=ACTIVATION)

    def look(self, heard: Heard) -> None:
        """What servers and proxies may keep of the requests."""
        for server in self.servers:
            for request in server.requests:
                heard.add("a request", shown_of_request(request))
        for found in self.collector.requests():
            heard.add("the path of a request", found["path"])


class Noting(HttpTransport):
    """The real transport; every exception that leaves it is looked at."""

    heard: Heard

    def send(self, request: Any, *, timeout_s: float) -> Any:
        self.heard.add("an address", request.url)
        try:
            return super().send(request, timeout_s=timeout_s)
        except Exception as error:
            self.heard.add("what the transport raised", error)
            raise


def run_quietly(words: tuple[str, ...], made: agent.Config) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cli.main(words, config=made)
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
        parts = [write(part) for part in secret.licence] + [write(secret.api_key)]
        site.keys = site.collector.public_keys

        def behaviour(connection: Any, server: Server) -> None:
            while request := server.read_request(connection):
                if b"/send-telemetry-data" in request.split(b"\r\n")[0]:
                    told = ["You sent %s; %s" % (parts[0], parts[2])]
                    errors = {"license_key": told, parts[2]: parts[:1]}
                    errors["data_group"] = ["x" * 150 + " " + part for part in parts[::2]]
                    given = {"code": code, "errors": errors if code == 831 else []}
                    body = signed(receipt(time.time(), **given))
                else:
                    said = "You sent %s, refused" % write(secret.usage_api_key)
                    failure = {"status": "failure", "response_code": 401, "response": said}
                    body = json.dumps(failure).encode()
                connection.sendall(http_answer(body, 200, "X-Echo: " + quote(parts[2], safe=" ")))

        return site.serving(behaviour)

    return arrange


def refusing(code: int) -> Situation:
    def arrange(site: Site) -> None:
        secret = site.canaries
        site.collect({secret.api_key: code, secret.usage_api_key: code})
        site.expected = "(code %d)" % code

    return arrange


def another_key(site: Site) -> None:
    """The server does not know ours."""
    site.collect(("another",))
    site.expected = "(code 100)"


def answering(text: bytes, expected: str) -> Situation:
    """Anything may answer in the server's place, and repeat what it was sent."""

    def arrange(site: Site) -> Any:
        def behaviour(connection: Any, server: Server) -> None:
            request = server.read_request(connection)
            connection.sendall(text.replace(b"ECHO", request.partition(b"\r\n\r\n")[2]))

        site.keys, site.expected = site.collector.public_keys, expected
        return site.serving(behaviour)

    return arrange


def proxied(
    text: bytes, expected: str, *, by: str = "proxy", https: bool = True, auth: bool = False
) -> Situation:
    """A proxy that demands, refuses or breaks off, and repeats the credentials that it was given."""

    def arrange(site: Site) -> Any:
        secret, heard = site.canaries, []

        def behaviour(connection: Any, server: Server) -> None:
            request = server.read_request(connection)
            lines = [x for x in request.split(b"\r\n") if x.lower().startswith(b"proxy-auth")]
            said = lines[0].split()[-1] if lines else b"none"
            heard.append(said)
            # Base64 and what it says, as a proxy's page about the error would.
            echo = text.replace(b"PLAIN", secret.proxy_auth.encode())
            connection.sendall(echo.replace(b"ECHO", said))

        @contextlib.contextmanager
        def serve() -> Iterator[None]:
            with site.serving(behaviour) as server:
                address = secret.proxy_url("127.0.0.1", server.port)
                if auth:
                    address = "http://127.0.0.1:%d" % server.port
                    site.settings["proxy_auth"] = secret.proxy_auth
                (site.settings if by == "proxy" else site.environ)[by] = address
                site.url = "https://localhost:9" if https else site.collector.url
                yield
                assert heard and heard[0] == secret.basic

        site.expected = expected
        return serve()

    return arrange


def set_up(expected: str, **settings: str) -> Situation:
    """Proxies that are none: ``%s`` is user, password and port 9."""

    def arrange(site: Site) -> None:
        for name, scheme in settings.items():
            where = site.settings if name == "proxy" else site.environ
            where[name] = site.canaries.proxy_url("127.0.0.1", 9, scheme)
        site.url, site.keys = "https://localhost:9", site.collector.public_keys
        site.expected = expected

    return arrange


def untrusted_tls(site: Site) -> Any:
    site.keys, site.expected = site.collector.public_keys, "certificate"
    return site.serving(Authority(site.place).over_tls(lambda *_: None, "localhost"), "https")


def no_directory(site: Site) -> None:
    """The disk refuses everything."""
    (site.place / "file").write_bytes(b"")
    site.state = site.place / "file" / "state"
    site.expected = "Not a directory"


def little_room(site: Site) -> None:
    site.settings["max_records"] = 64
    site.settings["max_bytes"] = 300_000
    site.collector.fault("500")


def refused_keyring(site: Site) -> None:
    document = site.place / "keyring.json"
    document.write_text(json.dumps({"signed": "{}", "signatures": []}))
    given: Any = {"roots": KEYS[:1], "document": str(document)}
    site.keys = agent.Keyring(site.collector.public_keys, **given)
    site.expected = "keyring.json: "


PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>ECHO</html>"
DEMAND = (
    b'HTTP/1.1 407 PLAIN\r\nProxy-Authenticate: Basic realm="ECHO PLAIN"\r\n'
    b"Content-Length: 4\r\nX-Echo: ECHO\r\n\r\nECHO"
)
SITUATIONS: dict[str, Situation] = {
    "delivered": lambda site: None,
    "flagged, repeated": echoing(str),
    "flagged, repeated in capitals": echoing(str.upper),
    "held, repeated": echoing(str, code=101),
    "another key": another_key,
    **{"held, code %d" % code: refusing(code) for code in (100, 102, 150)},
    **{"server: " + name: fault(name) for name in FAULTS if name != "429-retry-after"},
    "server: 429": fault("429-retry-after", "asked to wait", retry_after=30),
    "server: 503 until a date": fault("429-retry-after", retry_after=formatdate(usegmt=True)),
    "a page that repeats the request": answering(PAGE, "not proven"),
    "a broken answer": answering(b"HTTP/1.1 ECHO\r\nECHO: ECHO\r\n\r\nECHO", ""),
    "no HTTP at all": answering(b"SSH-2.0-ECHO\r\n", "not an HTTP answer"),
    "407 from a proxy": proxied(DEMAND, "407", https=False),
    "407 to CONNECT": proxied(DEMAND, "407"),
    "407 from the environment's proxy": proxied(DEMAND, "407", by="https_proxy"),
    "407 in spite of proxy_auth": proxied(DEMAND, "407", by="ALL_PROXY", auth=True),
    "CONNECT refused": proxied(b"HTTP/1.1 403 ECHO\r\nX: PLAIN\r\n\r\n", "403"),
    "a proxy that dies": proxied(b"", "proxy: "),
    "no proxy there": set_up("proxy: ", proxy="http"),
    "no SOCKS proxy there": set_up("proxy: ", proxy="socks5h"),
    "no such kind of proxy": set_up("offline: ", ALL_PROXY="gopher"),
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
SYSTEMS = ("no directory", "a certificate that nobody vouches for")  # that word it
# Where the command line has something of its own to say.
SHOWN = (*EVERYWHERE, "another key", "little room", "a keyring document refused")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Home and the directory for temporary files lie where they are searched."""
    for name, folder in (("HOME", "home"), ("TMPDIR", "tmp")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


@contextlib.contextmanager
def site_at(place: Path, style: str, to: str = "logging") -> Iterator[tuple[Site, Heard]]:
    """A site, and somebody who listens; clean in the end."""
    with contextlib.ExitStack() as stack:
        site = Site(place, style, stack)
        with site.canaries.listening(place, to=to) as heard:
            yield site, heard
    heard.is_clean()


def watch(place: Path, name: str, style: str) -> None:
    """One situation, lived through and looked at from everywhere."""
    with site_at(place, style, "stderr" if NAMES.index(name) % 2 else "logging") as (site, heard):
        with SITUATIONS[name](site) or contextlib.nullcontext():
            site.live(heard)
            if name in SHOWN or "repeat" in name:
                site.commands(heard)
        site.look(heard)
        assert "pass over: " in heard.lines and site.user_identifier not in heard.lines


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n, marks=posix if n in SYSTEMS else [] if n in EVERYWHERE else pytest.mark.once
        )
        for n in NAMES
    ],
)
def test_a_situation_gives_no_secret_away(place: Path, name: str) -> None:
    styles = list(STYLES)
    watch(place, name, styles[NAMES.index(name) % len(styles)])


@pytest.mark.campaign
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["delivered", *(n for n in NAMES if "repeat" in n or "407" in n)])
def test_no_style_of_secret_is_given_away(place: Path, name: str, style: str) -> None:
    watch(place, name, style)


@pytest.mark.parametrize("style", STYLES)
def test_a_mistake_does_not_repeat_the_secret_in_it(place: Path, style: str) -> None:
    """A secret in the wrong field, or one that is none."""
    with site_at(place, style) as (site, heard):
        secret, good = site.canaries, site.config()
        proxy = secret.proxy_url("127.0.0.1", 1)
        wrong = [secret.activation_identifier]
        mistakes: list[Callable[[], object]] = [
            lambda: good.replace(proxy=proxy + "/path?"),
            lambda: good.replace(proxy=secret.proxy_url("no host", 1)),
            lambda: good.replace(proxy_auth=secret.proxy_password.replace(":", "") + "\n"),
            lambda: good.replace(endpoints=secret.api_key),
            lambda: good.replace(ca_bundle=[secret.proxy_password]),
            lambda: good.endpoints[0].replace(api_key=secret.api_key + " "),
            lambda: good.endpoints[0].replace(base_url=secret.api_key),
            lambda: good.endpoints[0].replace(base_url=proxy),
            lambda: good.endpoints[0].replace(keys=secret.api_key),
            lambda: agent.PublicKey.from_pem(secret.api_key),
            lambda: agent.Agent(good, [secret.licence_key]),  # type: ignore[arg-type]
            lambda: agent.Agent(good, (secret.licence_key, [1])),  # type: ignore[arg-type]
            lambda: agent.Agent(good, "k", wrong),  # type: ignore[arg-type]
        ]
        for n, mistake in enumerate(mistakes):
            with pytest.raises(agent.AgentError) as caught:
                mistake()
            heard.add("mistake %d" % n, caught.value)
        mine = good.replace(proxy=proxy, proxy_auth=secret.proxy_auth)
        for shown in (good, mine, *good.endpoints):
            heard.add("configuration", shown)


# -- the search itself ---------------------------------------------------------------------------


# How one text can get somewhere: each must be found.
PLANTS: dict[str, Callable[[Heard, Path, str], object]] = {
    "stdout": lambda heard, place, text: print("said", text),
    "stderr": lambda heard, place, text: print(text, file=sys.stderr),
    "a log line": lambda heard, place, text: logging.getLogger("x.y").debug("a %s", text),
    "its arguments": lambda heard, place, text: logging.debug("nothing", extra={"told": text}),
    "a hidden file": lambda heard, place, text: (place / ".b").write_text("\0" + text, "utf-8"),
    "an exception": lambda heard, place, text: heard.add("it", OSError(text)),
    "a value": lambda heard, place, text: heard.add("it", {"a": [1, {text: None}]}),
    "bytes": lambda heard, place, text: heard.add("it", b"GET /?q=" + text.encode() + b" HTTP/1.1"),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_secret_is_found_wherever_it_is_and_however_it_is_spelled(
    tmp_path: Path, style: str
) -> None:
    canaries = Canaries(style)
    for name, secret in canaries.secrets.items():
        for plant, put in PLANTS.items():
            (tmp_path / ".b").unlink(missing_ok=True)
            with canaries.listening(tmp_path) as heard:
                put(heard, tmp_path, secret)
            with pytest.raises(AssertionError) as caught:
                heard.is_clean()
            assert {found for found, _ in heard.findings()} == {name}, (plant, name)
            assert secret not in str(caught.value), "the search itself gives it away"
        written = [secret.upper(), quote_plus(secret), quote(secret), repr([secret])]
        written += [json.dumps({"a": secret}), json.dumps(json.dumps({"a": secret}))]
        written += [escape(secret), pickle.dumps(secret, 0).decode("latin-1")]
        for shift in range(3) if style != "short" else ():  # three characters turn up by chance
            data = b"x" * shift + secret.encode() + b"yz"
            written += [base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()]
        if len(secret) > 24:
            written.append("You sent " + secret[:13] + "…")
        for how, text in enumerate(written):
            assert {found for found, _ in canaries.search("so: %s." % text)} == {name}, (how, name)
    assert canaries.search(b"Basic " + canaries.basic)
    assert not canaries.search(os.urandom(100_000))


def test_a_licence_may_be_in_its_record_and_beside_it_nowhere(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        site = Site(tmp_path, "punctuation", stack)
        heard = stack.enter_context(site.canaries.listening(tmp_path))
        with agent.Agent(site.config(), site.canaries.licence, environ={}) as product:
            product.call_home()
            assert product.export_spool(tmp_path / "waiting.spool") == 2
            (segment,) = (p for p in site.state.glob("l-*.seg"))
            assert site.canaries.licence_key.encode() in segment.read_bytes()
            assert not heard.findings()
            product.record_text(site.canaries.licence_key, data_group="g")
        assert {where for _, where in heard.findings()} == {str(segment)}
