"""In a real subinterpreter, where native cryptography may refuse to load: never an acceptance for want of a check.

The module that makes them is ``_xxsubinterpreters`` on Python 3.9 to 3.12 and ``_interpreters`` from 3.13. PyNaCl loads
in those that share the lock of the main one ("legacy", the only kind before 3.12) and not in isolated ones, so both
outcomes are met. Each test has a process of its own: what goes wrong here may end it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, run_python
from support.signatures import RSA_2048, Ed25519Signer, envelope

from agent.collector import Collector

ED = Ed25519Signer()
OTHER = Ed25519Signer(b"\2" * 32)
ISOLATED = pytest.param(
    "isolated",
    marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="there is one kind before 3.12"),
)
MODES = ["legacy", ISOLATED]

MAIN = """
import json, os, sys
mode, first, path, work = sys.argv[1:5]
sys.path[:0] = json.loads(path)
if first == "PyNaCl before":
    import nacl.bindings
try:
    import _xxsubinterpreters as interpreters  # 3.9 to 3.12
    inside = interpreters.create(isolated=mode == "isolated")
except ImportError:
    import _interpreters as interpreters  # 3.13 and newer
    inside = interpreters.create(mode)
with open(work, encoding="utf-8") as file:
    program = file.read()
failed = interpreters.run_string(inside, "import sys; sys.path[:] = %r\\n" % sys.path + program)
interpreters.destroy(inside)
if failed is not None:
    sys.exit("the program failed: %s" % (failed,))
os._exit(0)  # 3.12.1 may abort at its end after an isolated one, as it does after "import hashlib" in it
"""

# os.write, for the streams of a subinterpreter have buffers of their own.
TELL = """
import json, os
def tell(found):
    os.write(1, (json.dumps(found) + "\\n").encode())
"""


def run_inside(program: str, tmp_path: Path, mode: str, first: str) -> Any:
    """What ``program`` tells in a subinterpreter."""
    work = tmp_path / "program.py"
    work.write_text(TELL + program, encoding="utf-8")
    path = json.dumps([str(ROOT), str(ROOT / "tests")])
    done = run_python(MAIN, mode, first, path, str(work))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


CHECKS = """
import agent
answers = json.loads(%r)
keys = {name: agent.PublicKey.from_pem(text, name=name) for name, text in answers.pop("keys").items()}
found = {}
for name, text in answers.items():
    for trusted in (("rsa",), ("ed25519",), ("ed25519", "rsa"), ("rsa", "ed25519")):
        try:
            receipt = agent.verify(text.encode(), [keys[key] for key in trusted])
            what = "accepted by " + receipt.key_name
        except agent.VerificationError as error:
            what = type(error).__name__
        found[name + " under " + " and ".join(trusted)] = what
try:
    import nacl.bindings
    found["PyNaCl"] = "loads"
except ImportError:
    found["PyNaCl"] = "refuses"
tell(found)
"""


@pytest.mark.parametrize("first", ["PyNaCl before", "PyNaCl never"])
@pytest.mark.parametrize("mode", MODES)
def test_missing_cryptography_is_never_an_acceptance(mode: str, first: str, tmp_path: Path) -> None:
    answers = {
        "rsa": envelope(signer=RSA_2048).decode(),
        "ed25519": envelope(signer=ED).decode(),
        "forged": envelope(signer=OTHER).decode(),
        "keys": {"rsa": RSA_2048.pem, "ed25519": ED.pem},
    }
    found = run_inside(CHECKS % json.dumps(answers), tmp_path, mode, first)
    loads = found.pop("PyNaCl") == "loads"
    no = "SignatureInvalid" if loads else "Unverifiable"
    ed = "accepted by ed25519" if loads else "Unverifiable"
    assert loads == (mode == "legacy")
    # A 256-byte signature is none of Ed25519's, which needs no library to see.
    assert found == {
        "rsa under rsa": "accepted by rsa",
        "rsa under ed25519": "SignatureInvalid",
        "rsa under ed25519 and rsa": "accepted by rsa",
        "rsa under rsa and ed25519": "accepted by rsa",
        "ed25519 under rsa": "SignatureInvalid",
        "ed25519 under ed25519": ed,
        "ed25519 under ed25519 and rsa": ed,
        "ed25519 under rsa and ed25519": ed,
        "forged under rsa": "SignatureInvalid",
        "forged under ed25519": no,
        "forged under ed25519 and rsa": no,
        "forged under rsa and ed25519": no,
    }


WHOLE = """
import agent
given = json.loads(%r)
config = agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
    endpoints=(agent.GetKeyManager(
        base_url=given["url"], api_key="demo-api-key", data_group="call-home",
        keys=tuple(agent.PublicKey.from_pem(text) for text in given["keys"])),),
    usage_consent=None, state_dir=given["state"], deliver="manual")
with agent.Agent(config, ("demo-license-key", "activation-1")) as product:
    product.call_home()
    report = product.flush()
    seen = product.status()["endpoints"][0]
    tell([report.delivered, report.pending, seen["reason"], [a["verdict"] for a in product.history()]])
"""  # fmt: skip


@pytest.mark.parametrize("fault", [None, "wrong-key"])
@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
@pytest.mark.parametrize("mode", MODES)
def test_the_whole_agent_in_a_subinterpreter(
    mode: str, algorithm: str, fault: str | None, tmp_path: Path
) -> None:
    """What cannot be checked is kept, and the reason told; a product without the trouble delivers it later."""
    with Collector(algorithm=algorithm, fault=fault) as collector:
        given = {
            "url": collector.url,
            "keys": [key["public_key"] for key in collector.keys],
            "state": str(tmp_path / "state"),
        }
        program = WHOLE % json.dumps(given)
        delivered, pending, reason, verdicts = run_inside(program, tmp_path, mode, "PyNaCl never")
        checked = algorithm == "rsa" or mode == "legacy"
        if checked and fault is None:
            assert (delivered, pending, verdicts) == (1, 0, ["delivered"])
            return
        assert (delivered, pending, verdicts) == (0, 1, ["untrusted"])
        assert ("no trusted key" if checked else "cannot be checked here") in reason
        collector.fault(None)
        done = run_python("def tell(found): print(json.dumps(found))\nimport json\n" + program)
        assert json.loads(done.stdout)[:2] == [2, 0], done.stderr
