"""``keys``: a release manager's day, and the mistakes that would cost a root key or lock out every shipped copy."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.agent import snapshot
from support.cli import Site, run

import agent
from agent.collector.signing import Keys, seal
from agent.extras.keyring import read_document

BOTH = ("--root", "root-1", "--root", "root-2")


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two roots and a key for answers."""
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    for name in ("root-1", "root-2", "next"):
        assert run("keys", "new", name).status == 0
    return tmp_path / "release"


def sign(*words: str, status: int = 0) -> Any:
    done = run("keys", "sign", *words, "--json")
    assert done.status == status, done.err
    return done.json if status == 0 else done.err


def roots(*names: str) -> list[agent.PublicKey]:
    return [agent.PublicKey.from_pem(Path(name + ".pub").read_bytes(), name=name) for name in names]


def configuration(site: Site, at: Path, **keyring: Any) -> str:
    """The file of a product that has the keys of the server, and both roots."""
    licence, _ = site.document()["endpoints"]
    roots = [{"name": name, "pem_file": str(at / (name + ".pub"))} for name in ("root-1", "root-2")]
    keys = {"keys": licence["keys"][:1], "roots": roots, "threshold": 2, **keyring}
    return site.write(endpoints=[{**licence, "keys": keys}])


def test_a_pair_is_private_and_says_who_it_is(at: Path) -> None:
    if os.name == "posix":
        assert stat.S_IMODE((at / "root-1").stat().st_mode) == 0o600
        assert stat.S_IMODE((at / "root-1.pub").stat().st_mode) == 0o644
    shown = [run("keys", "inspect", name, "--json").json for name in ("root-1", "root-1.pub")]
    assert [found["kind"] for found in shown] == ["private key", "public key"]
    assert shown[0]["fingerprint"] == shown[1]["fingerprint"] == roots("root-1")[0].fingerprint


@pytest.mark.parametrize("name", ["root-1", "root-1.pub"])
def test_a_key_is_never_overwritten(at: Path, name: str) -> None:
    ({"root-1": at / "root-1.pub", "root-1.pub": at / "root-1"}[name]).unlink()
    before = snapshot(at)
    done = run("keys", "new", "root-1")
    assert done.status == 2 and "never overwritten" in done.err
    assert snapshot(at) == before


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_reads_and_writes_the_same_keys(at: Path) -> None:
    public = subprocess.run(
        ["openssl", "pkey", "-in", "root-1", "-pubout"], capture_output=True, check=True
    ).stdout
    assert public == (at / "root-1.pub").read_bytes()
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", "theirs"], check=True)
    sign("--version", "1", "--key", "next.pub", "--root", "theirs", "keyring.json")


def test_several_sign_one_after_another(site: Site, at: Path) -> None:
    words = ["--version", "7", "--key", "spare=next.pub", "--expires-days", "400", "--threshold"]
    first = sign(*words, "2", "--root", "root-1", "keyring.json")
    assert len(first["signatures_by"]) == 1
    check = ("keys", "check", "--config", configuration(site, at), "keyring.json", "--json")
    assert (run(*check).status, run(*check).json["accepted"]) == (1, False)
    text = json.loads((at / "keyring.json").read_bytes())["signed"]
    both = sign("--root", "root-2", "keyring.json")
    assert len(both["signatures_by"]) == 2 and both["version"] == 7
    before = (at / "keyring.json").read_bytes()
    assert json.loads(before)["signed"] == text
    found = read_document(before, roots("root-1", "root-2"), 2)
    assert found["expires"] == found["issued"] + 400 * 86400
    done = run(*check)
    assert (done.status, done.json["version"], done.json["keys"]) == (0, 7, ["spare"])
    # Signing again with the same root changes nothing but that signature, which is the same.
    sign("--root", "root-1", "keyring.json")
    assert (at / "keyring.json").read_bytes() == before


def test_check_says_why_a_product_would_refuse(site: Site, at: Path) -> None:
    sign("--version", "3", "--key", "next.pub", *BOTH, "k.json")
    other = {"name": "other", "pem_file": str(at / "next.pub")}
    for keyring, reason in (
        ({}, ""),
        ({"version": 3}, "not newer than the product's own"),
        ({"roots": [other], "threshold": 1}, "0 of the 1"),
    ):
        config = configuration(site, at, **keyring)
        done = run("keys", "check", "--config", config, "k.json", "--json")
        assert done.status == int(bool(reason)) and reason in done.json["trouble"]


def test_verify_uses_the_keys_that_are_in_force(site: Site, at: Path) -> None:
    signer = Keys("rsa").published[1]
    response = {"code": 830, "message": "x", "errors": [], "timestamp": 1_790_000_000}
    (at / "answer.json").write_text(json.dumps(seal(response, signer)))
    (at / "next-rsa.pub").write_text(site.server.keys[1]["public_key"])
    config = configuration(site, at, document=str(at / "keyring.json"))
    words = ("verify", "--config", config, "answer.json", "--json")
    assert run(*words).status == 1
    sign("--version", "1", "--key", "next-rsa.pub", *BOTH, "keyring.json")
    done = run(*words)
    assert (done.status, done.json["key"]) == (0, "next-rsa")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--version", "1", "--key", "next.pub", "k.json"], "--root FILE is missing"),
        (["--version", "1", "--root", "root-1", "k.json"], "both --version N and --key"),
        (["--version", "0", "--key", "next.pub", "--root", "root-1", "k.json"], "version: got 0"),
        (["--version", "1", "--key", "none", "--root", "root-1", "k.json"], "none cannot be read"),
        (["--version", "1", "--key", "root-1", "--root", "root-1", "k.json"], "a private key"),
        (["--version", "1", "--key", "next.pub", "--root", "next.pub", "k.json"], "no Ed25519"),
        (["--version", "1", "--key", "next.pub", "--root", "root-1", "next"], "never overwritten"),
        (["--root", "root-1", "none.json"], "none.json cannot be read"),
        (["--root", "root-1", "next.pub"], "not a keyring document"),
    ],
)
def test_a_mistake_writes_nothing_and_says_what_is_wrong(
    at: Path, words: list[str], said: str
) -> None:
    before = snapshot(at)
    assert said in sign(*words, status=2)
    assert snapshot(at) == before


def test_check_asks_which_keyring_is_meant(site: Site, at: Path) -> None:
    config = configuration(site, at)
    sign("--version", "1", "--key", "next.pub", "--root", "root-1", "k.json")
    (first,) = json.loads(Path(config).read_text())["endpoints"]
    site.write(endpoints=[first, {**first, "name": "second"}])
    check = ("keys", "check", "--config", config, "k.json")
    assert "several endpoints have a keyring; --endpoint NAME says" in run(*check).err
    done = run(*check, "--endpoint", "second", "--json")
    assert (done.status, done.json["endpoint"]) == (1, "second")
    done = run(*check, "--endpoint", "third")
    assert done.status == 2 and "no endpoint named third of this configuration" in done.err
