"""Machines with a missing, empty, broken or shared machine id, and where each platform keeps it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.identity import MACHINE, OTHER_MACHINE, Machine, machine

from agent import identity
from agent.identity import System

HEX, SHARED = "not 32 hexadecimal digits", "known to be shared by many machines"
BAD = {
    "": HEX,
    "uninitialized\n": HEX,
    "0" * 32 + "\n": SHARED,
    MACHINE[:31]: HEX,
    MACHINE + "\n" + OTHER_MACHINE: HEX,
    "\uff11" * 32: HEX,
    "\0" * 32: HEX,
    "f" * 32: SHARED,
    "0123456789abcdef" * 2: SHARED,
    "03000200040005000006000700080009": SHARED,
    "d41d8cd98f00b204e9800998ecf8427e": SHARED,
}
UUID = "4b1d0c6e-9f2a-47d3-8e55-60b7a1c3f290"
GOOD = [MACHINE, MACHINE + "\n", MACHINE + "\r\n", "  %s \n\n" % MACHINE, MACHINE.upper() + "\n"]
GOOD += [UUID, "{%s}" % UUID.upper()]


@pytest.mark.parametrize("content", GOOD, ids=ascii)
def test_a_usable_id_is_read_however_its_line_ends(tmp_path: Path, content: str) -> None:
    assert machine(tmp_path, content).machine_id() == (MACHINE, [("machine-id", "")])


@pytest.mark.parametrize("content", BAD, ids=ascii)
def test_a_bad_id_is_named_and_the_next_source_taken(tmp_path: Path, content: str) -> None:
    looked = [("machine-id", BAD[content])]
    found = machine(tmp_path, content, dbus=OTHER_MACHINE).machine_id()
    assert found == (OTHER_MACHINE, [*looked, ("dbus-machine-id", "")])
    looked.append(("dbus-machine-id", BAD[content]))
    assert machine(tmp_path, content, dbus=content).machine_id() == (None, looked)


def test_of_ids_made_at_random_none_is_bad() -> None:
    assert not any(identity.judge(os.urandom(16).hex())[1] for _ in range(20_000))


SPOILT: dict[str, Callable[[Path], Any]] = {
    "missing": lambda file: None,
    "a directory": Path.mkdir,
    "a loop": lambda file: file.symlink_to(file),
    "a fifo": lambda file: os.mkfifo(file),
    "noise": lambda file: file.write_bytes(bytes(range(128, 256)) * 40),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs, links or such roots")
@pytest.mark.parametrize("what", SPOILT)
def test_an_unreadable_file_neither_raises_nor_blocks(tmp_path: Path, what: str) -> None:
    system = machine(tmp_path, dbus=OTHER_MACHINE + "\r\n")
    (tmp_path / "etc/machine-id").unlink()
    SPOILT[what](tmp_path / "etc/machine-id")
    machine_id, ((first, problem), second) = system.machine_id()
    assert (machine_id, second) == (OTHER_MACHINE, ("dbus-machine-id", ""))
    assert first == "machine-id" and problem


# -- containers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", identity._MARKS)
def test_containers(tmp_path: Path, mark: str) -> None:
    def contained(root: Path, **environ: str) -> bool:
        return Machine(root, environ=environ).is_container()

    assert not contained(tmp_path)
    assert not contained(tmp_path, container="flatpak")  # shows the host's machine id
    assert contained(tmp_path, container="docker")
    assert contained(tmp_path, KUBERNETES_SERVICE_HOST="10.0.0.1")
    mounts = tmp_path / "proc" / "self" / "mountinfo"  # of containerd, with cgroups of version 2
    mounts.parent.mkdir(parents=True)
    for name, inside in (("hostname", True), ("fstab", False)):
        mounts.write_text("612 590 8:1 /x /etc/%s rw,relatime - ext4 /dev/sda1 rw\n" % name)
        assert contained(tmp_path) is inside
    file = tmp_path / mark[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert contained(tmp_path)


# -- other platforms, users ----------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="asks for what is not there on Linux")
def test_the_reader_of_another_platform_is_a_problem_not_an_error() -> None:
    system = System({})
    system.platform = "darwin"
    machine_id, ((source, problem),) = system.machine_id()
    assert machine_id is None and source == "IOPlatformUUID" and problem


@pytest.mark.skipif(sys.platform != "win32", reason="asks Windows")
def test_the_user_of_a_windows_process_is_its_sid() -> None:
    assert System({}).user().startswith("S-1-5-")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no uids here")
def test_the_user_is_the_real_one() -> None:
    assert System({}).user() == str(os.getuid())


def test_a_problem_never_quotes_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in ("x" + MACHINE, MACHINE + "?", MACHINE * 2):
        machine_id, looked = machine(tmp_path, content).machine_id()
        assert machine_id is None and MACHINE not in repr(looked)

    def leaks(text: str) -> Any:
        raise ValueError(text)

    monkeypatch.setattr(identity, "judge", leaks)
    assert machine(tmp_path).machine_id()[1][0] == ("machine-id", "ValueError")
