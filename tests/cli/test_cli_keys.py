"""``keys``: a release manager's day, and the mistakes that would cost a root key or lock out every shipped copy."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.cli import collector, run

import agent
from agent.extras.keyring import read_document


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two roots and a key for answers."""
    monkeypatch.chdir(tmp_path)
    for name in ("root-1", "root-2", "next"):
        assert run("keys", "new", name).status == 0
    return tmp_path


def sign(*words: str, status: int = 0) -> Any:
    done = run("keys", "sign", *words, "--json")
    assert done.status == status, done.err
    return done.json if status == 0 else done.err


def roots(*names: str) -> list[agent.PublicKey]:
    return [agent.PublicKey.from_pem(Path(name + ".pub").read_bytes(), name=name) for name in names]


def configuration(at: Path, **keyring: Any) -> str:
    server = collector()
    found = {
        "keys": [{"name": "global", "pem": server.keys[0]["public_key"]}],
        "roots": [{"name": name, "pem_file": name + ".pub"} for name in ("root-1", "root-2")],
        "threshold": 2,
        **keyring,
    }
    endpoint = {
        "kind": "getkeymanager",
        "base_url": "https://keys.acme.example",
        "api_key": "key",
        "keys": found,
    }
    document = {
        "vendor": "Acme",
        "product_name": "Studio",
        "product_id": "42",
        "product_version": "5.2.5",
        "endpoints": [endpoint],
    }
    (at / "telemetry.json").write_text(json.dumps(document))
    return str(at / "telemetry.json")


def test_a_pair_is_private_and_says_who_it_is(at: Path) -> None:
    assert stat.S_IMODE((at / "root-1").stat().st_mode) == 0o600
    assert stat.S_IMODE((at / "root-1.pub").stat().st_mode) == 0o644
    shown = [run("keys", "inspect", name, "--json").json for name in ("root-1", "root-1.pub")]
    assert [found["kind"] for found in shown] == ["private key", "public key"]
    assert shown[0]["fingerprint"] == shown[1]["fingerprint"] == roots("root-1")[0].fingerprint


@pytest.mark.parametrize("name", ["root-1", "root-1.pub"])
def test_a_key_is_never_overwritten(at: Path, name: str) -> None:
    before = {path.name: path.read_bytes() for path in at.iterdir()}
    if name.endswith(".pub"):
        (at / "root-1").rename(at / "root-1.old")
        before["root-1.old"] = before.pop("root-1")
    done = run("keys", "new", "root-1")
    assert done.status == 2 and "never overwritten" in done.err
    assert {path.name: path.read_bytes() for path in at.iterdir()} == before


def test_openssl_reads_and_writes_the_same_keys(at: Path) -> None:
    public = subprocess.run(
        ["openssl", "pkey", "-in", "root-1", "-pubout"], capture_output=True, check=True
    ).stdout
    assert public == (at / "root-1.pub").read_bytes()
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", "theirs"], check=True)
    sign("--version", "1", "--key", "next.pub", "--root", "theirs", "keyring.json")


def test_several_sign_one_after_another(at: Path) -> None:
    words = ["--version", "7", "--key", "spare=next.pub", "--expires-days", "400", "--threshold"]
    first = sign(*words, "2", "--root", "root-1", "keyring.json")
    assert len(first["signatures_by"]) == 1
    config = configuration(at)
    check = ("keys", "check", "--config", config, "keyring.json", "--json")
    assert (run(*check).status, run(*check).json["accepted"]) == (1, False)
    text = json.loads((at / "keyring.json").read_bytes())["signed"]
    both = sign("--root", "root-2", "keyring.json")
    assert len(both["signatures_by"]) == 2 and both["version"] == 7
    assert json.loads((at / "keyring.json").read_bytes())["signed"] == text
    found = read_document((at / "keyring.json").read_bytes(), roots("root-1", "root-2"), 2)
    assert found["expires"] == found["issued"] + 400 * 86400
    done = run(*check)
    assert (done.status, done.json["version"], done.json["keys"]) == (0, 7, ["spare"])
    # Signing again with the same root changes nothing but that signature, which is the same.
    before = (at / "keyring.json").read_bytes()
    sign("--root", "root-1", "keyring.json")
    assert (at / "keyring.json").read_bytes() == before


def test_check_says_why_a_product_would_refuse(at: Path) -> None:
    sign("--version", "3", "--key", "next.pub", "--root", "root-1", "--root", "root-2", "k.json")
    for keyring, reason in (
        ({"version": 3}, "not newer than the product's own"),
        ({"roots": [{"name": "root-1", "pem_file": "root-1.pub"}], "threshold": 1}, ""),
        ({"roots": [{"name": "other", "pem_file": "next.pub"}], "threshold": 1}, "0 of the 1"),
    ):
        done = run("keys", "check", "--config", configuration(at, **keyring), "k.json", "--json")
        assert done.status == int(bool(reason)) and reason in done.json["trouble"]
    (at / "k.json").write_bytes((at / "k.json").read_bytes().replace(b":3", b":4"))
    done = run("keys", "check", "--config", configuration(at), "k.json", "--json")
    assert done.status == 1 and "0 of the 2" in done.json["trouble"]


def test_verify_uses_the_keys_that_are_in_force(at: Path) -> None:
    server = collector()
    envelope = at / "answer.json"
    from agent.collector.signing import Keys, seal

    signer = Keys("rsa").published[1]
    response = {"code": 830, "message": "x", "errors": [], "timestamp": 1_790_000_000}
    envelope.write_text(json.dumps(seal(response, signer)))
    (at / "next-rsa.pub").write_text(server.keys[1]["public_key"])
    config = configuration(at, document="keyring.json")
    words = ("verify", "--config", config, str(envelope), "--json")
    assert run(*words).status == 1
    both = ("--root", "root-1", "--root", "root-2")
    sign("--version", "1", "--key", "next-rsa.pub", *both, "keyring.json")
    done = run(*words)
    assert (done.status, done.json["key"]) == (0, "next-rsa")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--version", "1", "--key", "next.pub", "k.json"], "--root FILE is missing"),
        (["--version", "1", "--root", "root-1", "k.json"], "both --version N and --key"),
        (["--key", "next.pub", "--root", "root-1", "k.json"], "both --version N and --key"),
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
    before = {path.name: path.read_bytes() for path in at.iterdir()}
    assert said in sign(*words, status=2)
    assert {path.name: path.read_bytes() for path in at.iterdir()} == before


def test_check_asks_which_keyring_is_meant(at: Path) -> None:
    config = configuration(at)
    sign("--version", "1", "--key", "next.pub", "--root", "root-1", "k.json")
    document = json.loads(Path(config).read_text())
    document["endpoints"].append({**document["endpoints"][0], "name": "second"})
    Path(config).write_text(json.dumps(document))
    check = ("keys", "check", "--config", config, "k.json")
    assert "several endpoints have a keyring; --endpoint NAME says" in run(*check).err
    done = run(*check, "--endpoint", "second", "--json")
    assert (done.status, done.json["endpoint"]) == (1, "second")
    done = run(*check, "--endpoint", "third")
    assert done.status == 2 and "no endpoint named third of this configuration" in done.err
