"""What doctor finds on networks and machines that do not work, and how it looks on terminals of all sizes."""

import contextlib
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import pytest
from support.cli import API_KEY, LICENSE_KEY, ROOT, Result, Site, on_terminal
from support.disks import NotHere, mounted
from support.keyring import ROOTS
from support.sockets import Authority, Server, answers, asked, silent

from agent import cli
from agent.cli import remedies, screen

HOURS = 3600


class Found:
    """One run of doctor: its checks by name, its exit status, and the rule that binds them."""

    def __init__(self, done: Result) -> None:
        self.done, self.json = done, done.json
        self.checks = {check["name"]: check for check in self.json["checks"]}
        failed = [check for check in self.json["checks"] if not check["ok"]]
        assert done.status == (1 if failed else 0) and self.json["ok"] is not bool(failed)
        assert all(check["advice"] for check in failed)
        assert len(self.checks) == len(self.json["checks"]), "each by a name of its own"

    @property
    def failed(self) -> list[str]:
        return [name for name, check in self.checks.items() if not check["ok"]]

    def says(self, name: str, mark: str, *words: str) -> dict[str, Any]:
        """The diagnostics of the endpoint that a check is about, after a look at the check."""
        check = self.checks[name]
        assert check["mark"] == mark, check
        text = check["detail"] + "\n" + check["advice"]
        assert not [word for word in words if word not in text], text
        known = self.json["diagnostics"].get("network", [])
        return next((one for one in known if one["name"] == name.rpartition(" ")[2]), {})


def doctor(site: Site, *form: str) -> Found:
    return Found(site.run("doctor", "--json", *form))


def at_address(site: Site, url: str, **changes: Any) -> None:
    """Have both endpoints elsewhere."""
    document = site.document()
    for endpoint in document["endpoints"]:
        endpoint["base_url"] = url
    site.write(**{"endpoints": document["endpoints"], "request_timeout_s": 5, **changes})


# --- the dry run ----------------------------------------------------------------------------------


def test_over_tls_all_is_proven_and_no_secret_leaves(site: Site) -> None:
    sent: list[bytes] = []

    def relay(connection: socket.socket, here: Server) -> None:
        while data := here.read_request(connection):
            sent.append(data)
            connection.sendall(asked(site.server.url, data))

    authority = Authority(site.place)
    with Server(authority.over_tls(relay, "localhost")) as server:
        at_address(site, "https://localhost:%d" % server.port, ca_bundle=str(authority.path))
        found = doctor(site)
    assert found.failed == []
    licence = found.says("answer getkeymanager", "ok", "as it must", "code 100")
    assert licence["dry_run"] == {
        **{"outcome": "held", "reason": "Invalid API Key (code 100)", "code": 100},
        **{"proven": True, "signed_by": "global", "expected": True},
    }
    found.says("signature getkeymanager", "ok", '"global"')
    found.says("proxy getkeymanager", "ok", "none")
    found.says("connection getkeymanager", "ok", "127.0.0.1")
    found.says("TLS getkeymanager", "ok", "TLSv1.", "authorities: ca_bundle")
    usage = found.says("answer reo", "ok", "as it must", "Authentication Failure")
    assert usage["dry_run"]["expected"] and usage["dry_run"]["signed_by"] is None
    for drift_s in (licence["signed_drift_s"], licence["date_drift_s"], usage["date_drift_s"]):
        assert -60 < drift_s < 60
    found.says("clock", "ok", "the time that getkeymanager signed", "the TLS date of reo")
    assert len(sent) == 2 and b"api_key=****" in sent[0] and b"X-API-KEY: ****" in sent[1]
    told = b"".join(sent).decode() + found.done.out
    assert API_KEY not in told and LICENSE_KEY not in told
    assert not site.state.exists(), "nothing is noted"
    text = (ROOT / "vendor_notes" / "VENDORING.md").read_text("utf-8").partition("### doctor")[2]
    names = [*licence, *licence["dry_run"], *licence["tls"]]
    assert not [name for name in names[2:] if "`%s`" % name not in text], "all is documented"


@pytest.mark.parametrize(
    ("fault", "endpoint", "answer", "waits"),
    [
        ("wrong-key", "getkeymanager", ("no trusted key", "compare"), ("inspects TLS",)),
        ("unsigned", "getkeymanager", ("not proven", "compare"), ("captive portal",)),
        ("portal", "getkeymanager", ("not JSON", "captive portal"), ("base_url",)),
        ("portal", "reo", ("not an answer of this server", "captive portal"), ()),
        ("redirect", "getkeymanager", ("HTTP 307",), ("may have moved",)),
        ("stale", "getkeymanager", ("too far from the local clock",), ("plays old answers again",)),
        (
            "403-150",
            "getkeymanager",
            ("not for the made-up API key", "Access denied"),
            ("API key",),
        ),
        ("401-100", "getkeymanager", (), ("API key", "spool replay --held")),
        ("429-retry-after", "getkeymanager", ("asked to wait",), ("the server asked for it",)),
        ("500", "reo", ("HTTP 500", "server has trouble"), ("answers now is said above",)),
    ],
)
def test_each_answer_is_explained_and_has_its_own_advice(
    site: Site, fault: str, endpoint: str, answer: tuple[str, ...], waits: tuple[str, ...]
) -> None:
    site.server.fault(fault, "reo-usage" if endpoint == "reo" else endpoint)
    found = doctor(site)
    found.says("answer " + endpoint, "FAIL" if answer else "ok", *answer)
    others = ["clock"] if fault == "stale" else []
    assert found.failed == others + ["answer " + endpoint] * bool(answer)
    site.run("call-home")
    doctor(site, "--no-network").says("waits " + endpoint, "FAIL", *waits)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("offline: name resolution: Name or service not known", "DNS"),
        ("offline: TLS: certificate refused: self-signed certificate", "ca_bundle"),
        ("offline: proxy: demands authentication", "proxy_auth"),
        ("offline: proxy: a SOCKS proxy needs the package PySocks", "ship PySocks"),
        ("offline: proxy: the environment names no proxy", "write it as http://host:port"),
        ("offline: proxy: refused to connect (HTTP 403)", "forbids this server"),
        ("offline: proxy: not an HTTP answer (BadStatusLine)", "no proxy of this kind"),
        ("offline: connection: no answer within 10 s", "firewall"),
        ("offline: connection: Connection refused (ECONNREFUSED)", "nothing listens there"),
        ("offline: connection: Network is unreachable (ENETUNREACH)", "no way to that address"),
        ("offline: answer: eof occurred in violation of protocol", "ends the connection"),
        ("offline: TLS: tlsv1 alert protocol version", "TLS 1.2"),
        ("offline: TLS: certificate refused: certificate has expired", "clock of this"),
        ("offline: TLS: certificate refused: certificate revoked", "replace it"),
        ("offline: the library urllib3 cannot be imported", "library is missing"),
        ("offline: ", "check base_url"),
        ("HTTP 403", "API key"),
        ("HTTP 403: not an answer of this server", "a proxy or something else"),
        ("HTTP 404, not proven: wrong address, check base_url", "put base_url right"),
        ("untrusted: HTTP 404, not proven: wrong address, check base_url", "put base_url right"),
        ("retry: HTTP 404: wrong address, check base_url", "put base_url right"),
        ("untrusted: HTTP 200, not proven: the server sent a PHP notice before its", "display_err"),
        ("retry: HTTP 200: the answer is packed, though nobody asked for that", "unpacked"),
        ("offline: answer: not an HTTP answer (too many headers)", "mend the headers"),
    ],
)
def test_a_reason_that_was_kept_leads_to_the_advice(reason: str, word: str) -> None:
    assert word in remedies.for_failure(reason)


def test_an_answer_of_another_hour_is_a_warning_about_the_clock(site: Site) -> None:
    site.server.fault("stale", "getkeymanager", age_s=2 * HOURS)
    found = doctor(site)
    found.says("clock", "warn", "2 h ahead of the time that getkeymanager signed", "NTP")
    assert found.failed == []


def test_a_clock_that_was_never_set(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as now:
        now.setattr(time, "time", lambda: 86400.0)
        found = doctor(site, "--no-network")
    found.says("clock", "FAIL", "says 86400 s since 1970: it was never set", "set the clock")


def test_a_clock_that_went_back_by_days(site: Site) -> None:
    site.server.fault("stale", "getkeymanager", age_s=-72 * HOURS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.clock.Clock.time", lambda self: time.time() + 72 * HOURS)
        site.run("call-home")
    site.server.fault(None)
    found = doctor(site)
    assert found.failed == ["clock", "answer getkeymanager"]
    found.says("clock", "FAIL", "went back by more than a day")
    probe = found.says("answer getkeymanager", "FAIL", "went back by days", "set the clock")
    assert probe["date_drift_s"] is None, "what comes without TLS says nothing of the time"


def test_a_refused_consent_is_a_wish_and_no_failure(site: Site) -> None:
    site.write(usage_consent=False)
    found = doctor(site, "--no-network")
    assert found.failed == []
    found.says("consent", "ok", "usage_consent is false")
    assert "(the network was not tried)" in site.run("doctor", "--no-network").out


def test_a_licence_without_its_activation_is_named(site: Site) -> None:
    site.write(activation_identifier="")
    found = doctor(site, "--no-network")
    found.says("activation", "warn", "without its identifier", "flags every such record")
    site.run("call-home")
    site.write(license_key="", activation_identifier="")
    doctor(site, "--no-network").says("activation", "warn", "the last licence record")
    site.write()
    site.run("call-home")
    assert "activation" not in doctor(site, "--no-network").checks


# --- the way there --------------------------------------------------------------------------------


def test_a_server_that_says_nothing(site: Site) -> None:
    with Server(silent) as server:
        at_address(site, "https://localhost:%d" % server.port, request_timeout_s=0.3)
        found = doctor(site)
    assert found.failed == ["TLS getkeymanager", "TLS reo"]
    found.says("TLS reo", "FAIL", "no answer within 0.3 s", "firewall")


def test_a_certificate_that_is_refused(site: Site) -> None:
    authority = Authority(site.place)
    with Server(authority.over_tls(silent, "login.hotel.example")) as server:
        at_address(site, "https://localhost:%d" % server.port, ca_bundle=str(authority.path))
        found = doctor(site)
    assert found.failed == ["TLS getkeymanager", "TLS reo"]
    found.says("TLS getkeymanager", "FAIL", "mismatch", "captive portal", "authorities: ")


def test_a_proxy_that_demands_a_password_and_is_not_shown_one(site: Site) -> None:
    demand = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n"
    with Server(answers(demand)) as proxy:
        address = "http://joe:canary-proxy-5d21@127.0.0.1:%d" % proxy.port
        at_address(site, "https://keys.acme.example", proxy=address)
        found = doctor(site)
        shown = site.run("doctor").out
    assert found.failed == ["test key getkeymanager", "proxy getkeymanager", "proxy reo"]
    found.says("proxy reo", "FAIL", "407", "127.0.0.1:%d" % proxy.port, "without authentication")
    assert "canary-proxy" not in found.done.out + shown


# --- keyrings -------------------------------------------------------------------------------------


def test_a_keyring_and_the_address_of_its_document(site: Site) -> None:
    licence, usage = site.document()["endpoints"]
    with Server(answers(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")) as server:
        url = "http://127.0.0.1:%d/keyring.json" % server.port
        roots = [{"name": "root", "pem": ROOTS[0].pem}]
        licence["keys"] = {"keys": licence["keys"], "roots": roots, "url": url}
        site.write(endpoints=[licence, usage])
        found = doctor(site)
        assert len(server.requests) == 1
    assert found.failed == []
    found.says("keys getkeymanager", "ok", "version 0: global", "embedded")
    found.says("keyring getkeymanager", "warn", "HTTP 404", "in force work on")
    found.says("signature getkeymanager", "ok", '"global"')


# --- the machine ----------------------------------------------------------------------------------


def test_a_state_directory_that_cannot_be_made(site: Site) -> None:
    def says(place: Path, mark: str, detail: str = "") -> None:
        site.write(state_dir=str(place))
        doctor(site, "--no-network").says("state directory", mark, detail)
        trouble = site.run("spool", "status", "--json").json["trouble"].get("state_dir", "")
        assert detail in trouble and bool(trouble) == (mark == "FAIL")

    (site.place / "file").write_text("")
    if os.name == "posix":
        os.symlink(site.place, site.place / "link")
    before = sorted(os.listdir(site.place))
    says(site.place / "file" / "a" / "b", "FAIL", "is not a directory")
    says(site.place / "new" / "deep", "ok")
    assert sorted(os.listdir(site.place)) == before, "nothing was made to find out"
    if os.name == "posix":
        says(site.place / "link", "FAIL", "is a link")
        site.place.chmod(0o1777)
        says(site.place, "FAIL", "is shared with other users")
        says(site.place / "own", "ok")


@pytest.mark.parametrize(("size_kb", "inodes"), [(600, 0), (4096, 3)])
def test_a_disk_without_room(site: Site, size_kb: int, inodes: int) -> None:
    with contextlib.ExitStack() as stack:
        disk = mounted(site.place / "small", size_kb=size_kb, inodes=inodes)
        try:
            place = stack.enter_context(disk)
        except NotHere as reason:
            pytest.skip(str(reason))
        site.write(state_dir=str(place / "state"))
        for number in range(max(0, inodes - 1)):
            (place / str(number)).touch()
        found = doctor(site, "--no-network")
    words = ("no inode is left", "remove files") if inodes else ("614 kB", "free space")
    found.says("free space", "FAIL", *words)
    assert found.failed == ["free space"]


# --- the screen -----------------------------------------------------------------------------------


def seen(
    site: Site, monkeypatch: pytest.MonkeyPatch, columns: int, *form: str, **environ: str
) -> str:
    """What a terminal of this width is sent on both streams."""
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **environ}.items():
        monkeypatch.setenv(name, value)

    def look(stream: TextIO) -> None:
        for name in ("stdout", "stderr", "__stdout__"):
            monkeypatch.setattr(sys, name, stream)
        try:
            cli.main(["doctor", *form, "--config", site.file])
        finally:
            monkeypatch.undo()

    return on_terminal(columns, look)[1]


def shown(text: str) -> list[str]:
    """The lines without colour, and without what was said while it was waited for."""
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rpartition("\r")[2] for line in text.splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals there")
@pytest.mark.parametrize("columns", [20, 80, 200])
def test_lines_fit_and_say_the_same_at_every_width(
    site: Site, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    site.write(state_dir=str(site.place / ("ünicode-" + 20 * "long/" + "目录" * 9)))
    site.server.fault("portal", "getkeymanager")
    site.run("call-home")
    lines = shown(seen(site, monkeypatch, columns, "--no-network"))
    assert max(map(screen._columns, lines)) <= min(columns, 120)
    assert not [line for line in lines if line != line.rstrip()]
    whole = site.run("doctor", "--no-network").out
    assert max(map(len, whole.splitlines())) > 200, "a pipe gets a finding as one line"

    def letters(text: str) -> str:
        found = re.sub(r"[ :\n]|\d+ s\b|-> as above", "", text)
        return re.sub(r"againin.*?(untrusted)", r"\1", found)

    assert letters("".join(lines)) == letters(whole)


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals there")
def test_colour_repeats_what_words_say_and_a_person_is_told_who_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = seen(site, monkeypatch, 80)
    assert "\x1b[32mok" in coloured and "\x1b[1mmachine" in coloured
    assert coloured.startswith("asking %s, for at most 10 s each\r " % site.server.url)
    plain = seen(site, monkeypatch, 80, NO_COLOR="1")
    assert [line[:6] for line in shown(coloured)] == [line[:6] for line in shown(plain)]
    other = seen(site, monkeypatch, 80, "--json", FORCE_COLOR="1") + site.run("doctor").out
    assert "\x1b" not in plain + seen(site, monkeypatch, 80, TERM="dumb") + other


# --- the last answers -----------------------------------------------------------------------------


def test_the_last_ten_answers_the_newest_first(site: Site) -> None:
    for number in range(12):
        site.run("record", "--value", str(number), "--data-group", "g")
    site.server.fault("wrong-key", "getkeymanager")
    site.run("record", "--value", "1", "--data-group", "g")
    told = site.run("doctor", "--no-network").out.partition("last answers")[2].splitlines()[1:]
    assert len(told) == 11 and told[-1].startswith("1 failure")
    assert told[0].split("  ")[2:4] == ["getkeymanager", "untrusted"] and "830" in told[1]
