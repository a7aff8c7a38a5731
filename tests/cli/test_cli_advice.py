"""What doctor says is wrong, and what it tells people to do about it."""

from __future__ import annotations

import os
import sys
import pytest
from support.cli import Site

from agent.cli import remedies


@pytest.mark.parametrize(
    ("fault", "endpoint", "words"),
    [
        ("wrong-key", "getkeymanager", ("compare", "captive portal", "inspects TLS")),
        ("portal", "getkeymanager", ("captive portal", "base_url")),
        ("stale", "getkeymanager", ("set the clock", "plays old answers again")),
        ("401-100", "getkeymanager", ("API key", "spool replay --held")),
        ("429-retry-after", "getkeymanager", ("the server asked for it",)),
        ("500", "reo", ("answers now is said above",)),
        ("refuse", "getkeymanager", ("nothing listens there",)),
    ],
)
def test_each_failure_has_its_own_advice(
    site: Site, fault: str, endpoint: str, words: tuple[str, ...]
) -> None:
    faulty = "reo-usage" if endpoint == "reo" else endpoint
    site.server.fault(fault, None if fault == "refuse" else faulty)
    site.run("call-home")
    found = site.run("doctor", "--no-network", "--json").json["checks"]
    (advice,) = [check["advice"] for check in found if check["name"] == "waits " + endpoint]
    assert not [word for word in words if word not in advice], advice


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("offline: name resolution: Name or service not known", "DNS"),
        ("offline: TLS: certificate refused: self-signed certificate", "ca_bundle"),
        ("offline: proxy: demands authentication", "proxy_auth"),
        ("offline: proxy: refuses our user name or password", "put the proxy's user name"),
        ("offline: proxy: a SOCKS proxy needs the package PySocks", "ship PySocks"),
        ("offline: proxy: the environment names no proxy", "write it as http://host:port"),
        ("offline: proxy: refused to connect (HTTP 403)", "forbids this server"),
        ("offline: proxy: refused to connect (HTTP 503)", "cannot reach this server"),
        ("offline: proxy: not an HTTP answer (BadStatusLine)", "no proxy of this kind"),
        ("offline: proxy: no answer within 10 s", "says nothing"),
        ("offline: connection: no answer within 10 s", "firewall"),
        ("offline: TLS: does not answer (an earlier request hangs)", "firewall"),
        ("offline: connection: Network is unreachable (ENETUNREACH)", "no way to that address"),
        ("offline: answer: eof occurred in violation of protocol", "ends the connection"),
        ("offline: TLS: tlsv1 alert protocol version", "TLS 1.2"),
        ("offline: TLS: certificate refused: EE certificate key too weak", "today's strength"),
        ("offline: TLS: certificate refused: certificate has expired", "clock of this"),
        ("offline: TLS: certificate refused: CRL has expired", "revocation list"),
        ("offline: TLS: certificate refused: certificate revoked", "replace it"),
        ("offline: the library urllib3 cannot be imported", "library is missing"),
        ("offline: HTTP 407: the proxy asks for credentials", "credentials"),
        ("offline: ", "check base_url"),
        ("untrusted: HTTP 302, not proven: not JSON", "moved"),
        ("retry: HTTP 200: not an answer of this server", "no answer of this server"),
        ("HTTP 503: asked to wait 60 s", "asked for it"),
        ("HTTP 403", "API key"),
        ("HTTP 403: not an answer of this server", "a proxy or something else"),
        ("HTTP 404: wrong address, check base_url", "put base_url right"),
        ("", "API key"),
    ],
)
def test_a_reason_that_was_kept_leads_to_the_advice(reason: str, word: str) -> None:
    assert word in remedies.for_failure(reason)


# --- the state directory --------------------------------------------------------------------------


def state_check(site: Site, place: object) -> str:
    """What is wrong with that state directory, as doctor and spool status both say; "" for nothing."""
    site.write(state_dir=str(place))
    done = site.run("doctor", "--no-network", "--json")
    (check,) = [c for c in done.json["checks"] if c["name"] == "state directory"]
    trouble = site.run("spool", "status", "--json").json["trouble"].get("state_dir", "")
    assert trouble == ("" if check["ok"] else check["detail"])
    assert done.status == (0 if check["ok"] else 1) and bool(check["advice"]) != check["ok"]
    return str(trouble)


def test_a_state_directory_that_cannot_be_made(site: Site) -> None:
    (site.place / "file").write_text("")
    assert "is not a directory" in state_check(site, site.place / "file")
    assert "is not a directory" in state_check(site, site.place / "file" / "a" / "b")
    os.symlink(site.place, site.place / "link")
    assert "is a link" in state_check(site, site.place / "link")
    before = sorted(os.listdir(site.place))
    assert state_check(site, site.place / "new" / "deep") == ""
    assert sorted(os.listdir(site.place)) == before, "nothing was made to find out"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="HOME decides there")
def test_a_home_that_takes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    document = site.document()
    del document["state_dir"]
    for home, words in (("/proc", "/proc"), ("", "no home")):
        monkeypatch.setenv("HOME", home)
        site.write(state_dir=None)
        done = site.run("doctor", "--no-network")
        line = next(line for line in done.out.splitlines() if "state directory" in line)
        assert done.status == 1 and line.startswith("  FAIL  ") and words in line


@pytest.mark.skipif(os.name == "nt", reason="no such modes there")
def test_a_state_directory_that_others_use_too(site: Site) -> None:
    shared = site.place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    assert "is shared with other users" in state_check(site, shared)
    assert state_check(site, shared / "own") == "" and shared.stat().st_mode & 0o7777 == 0o1777
