"""Real processes: sixteen first starts at once, a full disk, and what must not change who a user is."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, run_python
from support.identity import CONTEXT, DERIVED, NAMES, Machine, machine

from agent import files, identity

START = """
import os, sys
sys.path.insert(0, {root!r})
from {package} import identity
def start(state, root):
    return identity.resolve(on(root), state, vendor="Acme", product_name="Studio")
def on(root):
    system = identity.System({{}})
    system.platform, system.root, system.user = "linux", root, lambda: "1000"
    return system
"""


def run(code: str, *args: object, **given: Any) -> str:
    """The standard output of a fresh interpreter without site-packages."""
    program = START.format(root=str(ROOT), package=identity.__name__.rpartition(".")[0]) + code
    options = ("-I", "-S", "-W", "error")
    done = run_python(program, *map(str, args), options=options, **given)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    machine(tmp_path)
    return tmp_path


# ``AGREE`` makes sixteen processes that all stand at the same line when a pipe closes, and prints every identifier
# that any of them got, round by round.
AGREE = """
rounds, how, state, root = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
for number in range(rounds):
    here = "%s/%d" % (state, number)
    if "damaged" in how:
        # Not made by a start of ours: what a parent drew at random its children would share.
        os.makedirs(here, 0o700)
        name = identity.file_name(identity.context("1000", "Acme", "Studio"))
        with open(os.path.join(here, name), "w") as file:
            file.write("00000000 {}")
    gate, opener = os.pipe()
    answers, answer = os.pipe()
    for _ in range(16):
        if os.fork() == 0:
            os.close(opener)
            os.read(gate, 1)
            found = start(here, root)
            os.write(answer, b"%s %d\\n" % (found.value.encode(), found.stored))
            os._exit(0)
    os.close(answer); os.close(gate); os.close(opener)
    text = b""
    while True:
        chunk = os.read(answers, 65536)
        if not chunk:
            break
        text += chunk
    os.close(answers)
    for _ in range(16):
        assert os.wait()[1] == 0
    lines = text.split(b"\\n")[:-1]
    assert len(lines) == 16
    assert start(here, root).value.encode() + b" 1" in lines
    assert not [name for name in os.listdir(here) if name.endswith(".tmp")]
    print(" ".join(sorted({line.decode() for line in lines})))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["first", "damaged"])
@pytest.mark.parametrize("with_id", [True, False], ids=["machine id", "no machine id"])
def test_sixteen_starts_at_once_agree(root: Path, how: str, with_id: bool) -> None:
    state = root / "state"
    state.mkdir()
    rounds = run(AGREE, 5, how, state, root if with_id else root / "nowhere").split("\n")
    assert len(rounds) == 5
    for found in rounds:
        value, stored = found.split()
        assert stored == "1"
        assert (value == DERIVED) is with_id
    if not with_id:
        assert len(set(rounds)) == 5


def test_somebody_who_holds_the_lock_does_not_hold_up_the_start(root: Path) -> None:
    state = root / "state"
    state.mkdir(mode=0o700)
    damaged = state / identity.file_name(CONTEXT)
    damaged.write_text("damaged")
    lock = files.open_append(str(damaged) + ".lock")
    try:
        if not lock.lock():
            pytest.skip("no locks here")
        found = identity.resolve(Machine(root), str(state), **NAMES)
    finally:
        lock.close()
    assert found.value == DERIVED and not found.stored and found.note
    assert damaged.read_text() == "damaged"
    assert identity.resolve(Machine(root), str(state), **NAMES).stored


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
def test_a_full_disk_leaves_nothing_behind(root: Path) -> None:
    # The nearest to a full disk that needs no root: no file may grow at all.
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
found, again = start(*sys.argv[1:]), start(*sys.argv[1:])
assert found.value == again.value and not found.stored and found.note
os.write(1, found.value.encode())
"""
    state = root / "state"
    assert run(code, state, root) == DERIVED
    assert len(run(code, state, root / "nowhere")) == 32
    assert list(state.iterdir()) == []


def test_names_locale_time_zone_and_directory_do_not_matter(root: Path) -> None:
    code = "\nprint(start(None, sys.argv[1]).value)"
    for environ, directory in (
        ({}, "/"),
        ({"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}, str(root)),
        ({"HOSTNAME": "another", "COMPUTERNAME": "ANOTHER", "USER": "x", "LOGNAME": "y"}, "/"),
        ({"PYTHONHASHSEED": "7", "HOME": "/elsewhere"}, "/"),
    ):
        assert run(code, root, env=environ, cwd=directory) == DERIVED
