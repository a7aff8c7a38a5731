"""In a real subinterpreter, where native cryptography may refuse to load: never an acceptance for want of a check.

The module that makes them is ``_xxsubinterpreters`` on Python 3.9 to 3.12 and ``_interpreters`` from 3.13. PyNaCl loads
in those that share the lock of the main one ("legacy", the only kind before 3.12) and not in isolated ones, so both
outcomes are met. Each test has a process of its own: what goes wrong here may end it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, FakeClock, desk, run_python
from support.product import PRODUCT, arguments, arrived
from support.signatures import RSA_2048, Ed25519Signer, envelope

ED = Ed25519Signer()
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
    for trusted in ("rsa", "ed25519", "ed25519 rsa", "rsa ed25519"):
        try:
            what = agent.verify(text.encode(), [keys[key] for key in trusted.split()]).key_name
        except agent.VerificationError as error:
            what = type(error).__name__
        found[name + " under " + trusted] = what
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
    made = {"rsa": RSA_2048, "ed25519": ED, "forged": Ed25519Signer(b"\2" * 32)}
    answers: dict[str, Any] = {name: envelope(signer=by).decode() for name, by in made.items()}
    answers["keys"] = {"rsa": RSA_2048.pem, "ed25519": ED.pem}
    found = run_inside(CHECKS % json.dumps(answers), tmp_path, mode, first)
    loads = found.pop("PyNaCl") == "loads"
    assert loads == (mode == "legacy")
    ed, no = ("ed25519", "SignatureInvalid") if loads else ("Unverifiable", "Unverifiable")
    # By RSA alone, by Ed25519 alone, by both. A 256-byte signature is none of Ed25519's, which needs no library to see.
    expected = {
        "rsa": ["rsa", "SignatureInvalid", "rsa", "rsa"],
        "ed25519": ["SignatureInvalid", ed, ed, ed],
        "forged": ["SignatureInvalid", no, no, no],
    }
    for name, wanted in expected.items():
        assert [found[key] for key in found if key.startswith(name + " under")] == wanted, name


WHOLE = """
t.call_home()
report = t.flush()
seen = t.status()["endpoints"][0]
tell([report.delivered, report.pending, seen["reason"], [a["verdict"] for a in t.history() if a["kind"] == "licence"]])
t.close()
"""


@pytest.mark.parametrize("fault", [None, "wrong-key"])
@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
@pytest.mark.parametrize("mode", MODES)
def test_the_whole_agent_in_a_subinterpreter(
    mode: str, algorithm: str, fault: str | None, tmp_path: Path
) -> None:
    """What cannot be checked is kept, and the reason told; a product without the trouble delivers it later."""
    with desk(tmp_path / "state", FakeClock(time.time()), algorithm=algorithm) as at:
        at.collector.fault(fault, endpoint="getkeymanager") if fault else None
        given = ["-", *arguments(at, deliver="manual")]
        program = "import sys; sys.argv = %r\n" % given + PRODUCT + WHOLE
        delivered, pending, reason, verdicts = run_inside(program, tmp_path, mode, "PyNaCl never")
        checked = algorithm == "rsa" or mode == "legacy"
        if checked and fault is None:
            assert (delivered, pending, verdicts) == (2, 0, ["delivered"])
            return
        assert (delivered, pending, verdicts) == (1, 1, ["untrusted"])
        assert ("no trusted key" if checked else "cannot be checked here") in reason
        arrived(at, "CALL HOME", "CALL HOME")  # the server took it the first time, too
