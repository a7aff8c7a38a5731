"""What an attacker wants, one attack for each, on the machine itself or from a page that somebody has open.

Each of these succeeds where its mend is taken out: usage sent behind a refusal, a forged library in a checked copy, a
planted module that is handed the API key, a user's document cut.
"""

import contextlib
import json
import os
import py_compile
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, child_environ, endpoint, run_python, snapshot, work_until
from support.attacks import DAY_S, HOUR_S, Scene, http_answer, receipt, signed
from support.cli import Site, collector, installed, run, vendored
from support.collector import LICENCE, ask, post_licence, wait_until
from support.product import quiet
from support.requests import post, refused
from support.sockets import Server, silent
from support.spool import segments

import agent
from agent import files
from agent.cli import findings
from agent.collector import Collector
from agent.collector.signing import Keys
from agent.extras import transfer
from agent.signatures.keys import PublicKey
from agent.transport import HttpTransport, client_context

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks, links, pipes, modes")


# -- to have usage after it was refused ----------------------------------------------------------


@pytest.mark.parametrize("who", ["another instance", "another process"])
def test_usage_that_is_refused_while_it_connects(
    at: Desk, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    from urllib3.connection import HTTPConnection

    connect = HTTPConnection._new_conn

    def slowly(self: Any) -> Any:
        if who == "another process":
            quiet(at, "agent.Agent(config.replace(usage_consent=False)).close()")
        else:
            agent.Agent(at.config(usage_consent=False)).close()
        return connect(self)

    with Server(silent) as server:
        reo = agent.Reo(base_url="http://127.0.0.1:%d" % server.port, api_key="demo-api-key")
        with at.agent(endpoints=(reo,)) as product:
            product.track("EXPORT")
            monkeypatch.setattr(HTTPConnection, "_new_conn", slowly)
            report = product.flush(5)
            assert (report.pending, report.drained) == (0, True)
            assert endpoint(product, "reo")["failures"] == 0 and product.history() == []
        assert server.left.wait(20) and not server.seen.is_set()


def test_usage_in_what_a_kill_left_of_a_file(at: Desk) -> None:
    with at.agent(deliver="manual") as product:
        product.track("SECRET-HABIT")
        product.count("SECRET-HABIT")
    for name in ("agent.book", "agent.consent"):
        piece = at.state_dir / ("%s.%016x.tmp" % (name, 1))
        piece.write_bytes(segments(at.state_dir, "u")[0].read_bytes()[:-9])
    agent.Agent(at.config(usage_consent=False)).close()
    assert not [n for n, data in snapshot(at.state_dir).items() if b"SECRET-HABIT" in data]


# -- to have other code run ----------------------------------------------------------------------

CACHED = "signatures/__pycache__/keys.%s.pyc" % sys.implementation.cache_tag


def bytecode(dest: Path) -> None:
    """Of a source that accepts all: by its flags Python never looks at the one that is there."""
    forged = dest.parent / "forged.py"
    forged.write_text("def _fits_rsa(*given):\n    return True\n")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(forged), str(dest / CACHED), invalidation_mode=unchecked)
    code = "from telemetry_agent.signatures import keys; raise SystemExit(keys._fits_rsa())"
    assert run_python(code, cwd=dest.parent).returncode == 1


def listed(dest: Path, path: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file together with its hash in the list."""
    manifest = json.loads((dest / "VENDORED.json").read_text())
    there = dest / path
    there.write_bytes(change(there.read_bytes() if there.exists() else b""))
    manifest["files"][path] = sha256(there.read_bytes()).hexdigest()
    (dest / "VENDORED.json").write_text(json.dumps(manifest))


def linked(dest: Path) -> None:
    (dest.parent / "elsewhere").mkdir()
    (dest / "clock").symlink_to(dest.parent / "elsewhere")


def planted(path: str) -> Callable[[Path], Any]:
    def plant(dest: Path) -> None:
        (dest / path).parent.mkdir(exist_ok=True)
        (dest / path).write_bytes(b"# not what was copied")

    return plant


COPIES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "bytecode": (CACHED, bytecode),
    "a source among bytecode": ("__pycache__/x.py", planted("__pycache__/x.py")),
    "a compiled module": ("clock.abi3.so", planted("clock.abi3.so")),
    "a package of that name": ("clock/__init__.py", planted("clock/__init__.py")),
    "a folder that is a link": ("clock", linked),
    "a program": ("clock.py", lambda dest: (dest / "clock.py").chmod(0o755)),
    "a module and the list": ("more.py", lambda d: listed(d, "more.py", lambda data: b"")),
    "the bill and the list": (
        "sbom.cdx.json",
        lambda dest: listed(dest, "sbom.cdx.json", lambda data: data.replace(b"1.26", b"1.25")),
    ),
}


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_with_something_else_in_it_that_passes_the_check(tmp_path: Path, what: str) -> None:
    dest = tmp_path / "telemetry_agent"
    path, plant = COPIES[what]
    assert run("vendor", str(dest)).status == run("vendor", "--check", str(dest)).status == 0
    plant(dest)
    said = run("vendor", "--check", "--json", str(dest))
    assert said.status == 1 and path in str(said.json), said.json
    if what == "a program":
        assert run("vendor", "--upgrade", "--overwrite", str(dest)).status == 0
        assert run("vendor", "--check", str(dest)).status == 0


@pytest.mark.parametrize("edited", ["urllib3/util/ssl_.py", "agent/clock.py", "agent/stray.py"])
def test_a_copy_made_of_something_that_was_edited_after_it_was_installed(
    tmp_path: Path, edited: str
) -> None:
    site, dest = tmp_path / "site", tmp_path / "telemetry_agent"
    installed(site)
    assert vendored(site, "--with", "deps", str(dest)).returncode == 0
    shutil.rmtree(dest)
    with open(site / edited, "a") as file:
        file.write("# edited\n")
    done = vendored(site, "--with", "deps", str(dest))
    assert done.returncode == 1 and str(site / edited) in done.stderr and not dest.exists()


PLANTED = "with open(%r, 'a') as file:\n    file.write(__name__ + ' ')\n"
# On some Python each of these is another one's.
ODD = "_sha2 _sha256 _sha512".split()


@pytest.mark.parametrize("entry", ["", "."])
@pytest.mark.parametrize("deliver", ["thread", "detached"])
def test_the_api_key_by_a_module_in_the_directory_of_a_document(
    at: Desk, tmp_path: Path, entry: str, deliver: str
) -> None:
    (tmp_path / "documents").mkdir()
    names = [name for name in ODD if find_spec(name) is None]
    names += ["urllib3", "ssl", "agent"] if deliver == "detached" else []
    for name in names:
        path = tmp_path / "documents" / (name + ".py")
        path.write_text(PLANTED % str(tmp_path / "ran"))
    code = "sys.path[0] = %r; os.chdir(%r); t.call_home()" % (entry, str(tmp_path / "documents"))
    quiet(at, code + "; t.flush(20)" * (deliver == "thread"), deliver=deliver, start_delay_s=0)
    wait_until(lambda: at.seen() >= 2)
    assert not (tmp_path / "ran").exists()


# -- to write where the user alone may -----------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277, 0o777])
def test_a_directory_that_the_umask_leaves_open_or_shut(tmp_path: Path, umask: int) -> None:
    place, before = tmp_path / "a" / "b" / "c", os.umask(umask)
    path = place / "file"
    try:
        files.ensure_directory(str(place))
        files.write_new(str(path), b"x")
        files.replace(str(path), b"y")
        for mode in (0o777, 0o000, 0o500):  # as a kill between two calls may leave it
            place.chmod(mode)
            files.ensure_directory(str(place))
            assert place.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    levels = [tmp_path / "a", tmp_path / "a" / "b", place, path]
    assert [level.stat().st_mode & 0o777 for level in levels] == [0o700] * 3 + [0o600]
    assert files.read(str(path), 9) == b"y" and os.listdir(place) == ["file"]


@pytest.mark.parametrize(
    "name", ["agent.book", "agent.lock", "agent.room", "agent.consent", "identity", "l", "u", "c"]
)
def test_a_document_of_the_user_under_a_name_of_ours(at: Desk, tmp_path: Path, name: str) -> None:
    """By a hard link, where the directory was open for a moment."""
    with at.agent() as product:
        product.call_home()
    (identity,) = [path.name for path in at.state_dir.glob("identity-*")]
    agent.erase(at.config())
    at.state_dir.mkdir(mode=0o700)
    document = tmp_path / "document"
    document.write_bytes(b"years of work\n")
    document.chmod(0o644)
    name = name + "-%012x-%016x.seg" % (1, 1) if len(name) == 1 else name
    os.link(document, at.state_dir / name.replace("identity", identity))
    for consent in (True, False):
        with at.agent(usage_consent=consent, max_bytes=40_000) as product:
            for _ in range(40):
                product.record_text("x" * 900, data_group="g")
            product.call_home()
            product.count("RENDER")
            product.flush()
    agent.erase(at.config())
    assert document.read_bytes() == b"years of work\n"
    assert document.stat().st_mode & 0o777 == 0o644 and "x" * 900 in at.texts()


@pytest.mark.parametrize("deliver", ["manual", "detached"])
@pytest.mark.parametrize("name", ["agent.lock", "agent.room"])
def test_to_hold_a_lock_for_ever_that_others_could_open(at: Desk, name: str, deliver: str) -> None:
    import fcntl

    with at.agent() as product:
        product.call_home()
    (at.state_dir / name).touch()
    (at.state_dir / name).chmod(0o644)
    with open(at.state_dir / name) as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        if deliver == "detached":
            quiet(at, "t.call_home()", deliver=deliver)
            return wait_until(lambda: at.seen() >= 2)
        with at.agent(max_bytes=40_000) as product:
            assert product.flush().pending == 0
            for _ in range(60):
                assert product.record_text("x" * 900, data_group="g")


# -- to drive the collector from a web page ------------------------------------------------------


JSON = {"Content-Type": "application/json"}
PAGES: dict[str, dict[str, str]] = {
    "a form": {"Content-Type": "text/plain"},
    "a page": {**JSON, "Origin": "https://evil.example"},
    "a page without a name": {**JSON, "Origin": "null"},
    "another server of this machine": {**JSON, "Origin": "http://localhost:3000"},
    "a picture": {**JSON, "Sec-Fetch-Site": "cross-site"},
    "a neighbour": {**JSON, "Sec-Fetch-Site": "same-site"},
    "a name that leads here": {**JSON, "Host": "evil.example:%d"},
    "a name of ours at another port": {**JSON, "Host": "127.0.0.1"},
}


@pytest.mark.parametrize("who", PAGES)
def test_a_page_that_somebody_has_open_drives_no_collector(who: str) -> None:
    fault = json.dumps({"fault": "redirect", "redirect_to": "https://evil.example"})
    with Collector() as target:
        post_licence(target)
        port = target.url.rpartition(":")[2]
        headers = {name: value.replace("%d", port) for name, value in PAGES[who].items()}
        sent = [ask(target, "POST", "/_collector/fault", fault, headers)]
        for how in ("GET", "DELETE") if who != "a form" else ():
            sent.append(ask(target, how, "/_collector/records", None, headers))
        assert {reply.status for reply in sent} <= {403, 415}
        assert b"demo-license-key" not in b"".join(reply.body for reply in sent)
        if who in ("a page", "a picture"):  # what it would have stored is no record either
            assert ask(target, "POST", LICENCE, "license_key=x", headers).status == 403
        assert len(target.records()) == 1 and post_licence(target).status == 200
        fine = {"Host": "LOCALHOST:" + port}, {"Origin": target.url}, {"Sec-Fetch-Site": "none"}
        for ours in fine:
            assert ask(target, "POST", "/_collector/fault", fault, {**JSON, **ours}).status == 200


# -- to silence us, or to hold us up -------------------------------------------------------------


@pytest.mark.parametrize("code", [100, 101, 102, 103, 150])
@pytest.mark.parametrize("proven", [False, True])
def test_fresh_refusals_that_anybody_can_have_signed(line: Scene, proven: bool, code: int) -> None:
    """With a made-up API key, and relayed: where the server was proven before, six hours are the most."""
    refusal = {"code": code, "message": "no"}
    with line.agent() as product:
        if proven:
            line.capture(product)
        line.attack = lambda request, honest: http_answer(
            signed(receipt(line.server_time(), **refusal)), 401
        )
        line.record(product, "first")
        product.flush()
        waits = work_until(product, line.clock, line.clock.at + 5 * DAY_S)
        hours = [round(wait / HOUR_S) for wait in waits]
        assert hours[:8] == ([1, 2, 4, 6, 6, 6, 6, 6] if proven else [1, 2, 4, 8, 16, 24, 24, 24])
        if proven:
            line.recovers(product)


@pytest.mark.parametrize("behind", ["the header", "all that was promised"])
def test_an_import_that_never_ends(at: Desk, tmp_path: Path, behind: str) -> None:
    """A terabyte of nothing, on the caller's thread; where no quota could have it, it is not even opened."""
    path = tmp_path / "file"
    with at.agent(only="licence", max_bytes=1 << 41) as product:
        product.call_home()
        product.export_spool(path)
        if behind == "the header":
            os.truncate(path, path.read_bytes().index(b"\n") + 1)
        os.truncate(path, 1 << 40)
        with pytest.raises(agent.EventError, match="damaged"):
            product.import_spool(path)
        assert product.status()["pending"] == 1
    with at.agent(only="licence") as product, pytest.raises(agent.EventError, match="quota"):
        product.import_spool(path)


def test_an_import_that_grows_behind_its_check(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    with at.agent(only="licence") as product:
        product.call_home()
        product.export_spool(path, move=True)
        more = path.read_bytes().splitlines(True)[1]
        check = transfer._check

        def grows(source: str) -> Any:
            found = check(source)
            with open(path, "ab") as file:
                file.write(more * 9)
            return found

        monkeypatch.setattr(transfer, "_check", grows)
        assert product.import_spool(path) == product.status()["pending"] == 1


def test_a_pipe_in_place_of_authorities(tmp_path: Path) -> None:
    """The environment's is passed over; what a vendor sets costs one request's limit."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    code = "import os; from agent.transport import client_context; client_context(None, os.environ)"
    environ = {**child_environ(), "SSL_CERT_FILE": pipe}  # which OpenSSL reads by itself
    assert run_python(code, env=environ, timeout=20).returncode == 0
    assert client_context(None, {"SSL_CERT_FILE": pipe})[1] != "SSL_CERT_FILE"
    transport = HttpTransport(proxy="direct", ca_bundle=pipe, environ={})
    with Server(silent) as server, contextlib.closing(transport):
        request = post(server.port, scheme="https")
        assert "no answer within" in refused(transport, request, 0.5).reason
        assert not server.accepted
    os.close(os.open(pipe, os.O_RDWR))  # ends the thread


# -- to be believed ------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
def test_a_product_that_trusts_a_key_with_which_anybody_can_sign(
    tmp_path: Path, algorithm: str
) -> None:
    every = Keys(algorithm)
    for signer in (*every.published, every.stranger):
        assert PublicKey.from_pem(signer.public_key).fingerprint in findings.PUBLISHED
    with collector(algorithm=algorithm) as server:
        site = Site(server, tmp_path)
        document = site.document()
        for address, status in ((server.url, 0), ("https://keys.example", 1)):
            document["endpoints"][0]["base_url"] = address
            site.write(**document)
            said = site.run("doctor", "--no-network", "--json")
            failed = [check["name"] for check in said.json["checks"] if not check["ok"]]
            assert (said.status, failed) == (status, ["test key getkeymanager"] * status)
