"""Machines with a missing, empty, broken or shared machine id, and where each platform keeps it."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.identity import MACHINE, OTHER_MACHINE, machine

from agent.identity import System, windows
from agent.identity.machine import in_container, judge

BAD = {
    "": "empty",
    " \r\n\t\n": "empty",
    "uninitialized\n": "uninitialized",
    "UNINITIALIZED": "uninitialized",
    "0" * 32 + "\n": "all zero",
    MACHINE[:31]: "not 32 hexadecimal digits",
    MACHINE + "0": "not 32 hexadecimal digits",
    MACHINE + "\n" + OTHER_MACHINE: "not 32 hexadecimal digits",
    "g" + MACHINE[1:]: "not 32 hexadecimal digits",
    "\uff11" * 32: "not 32 hexadecimal digits",
    "\0" * 32: "not 32 hexadecimal digits",
    "f" * 32: "known to be shared by many machines",
    "fe" * 16: "known to be shared by many machines",
    "DEADBEEF" * 4: "known to be shared by many machines",
    "03000200040005000006000700080009": "known to be shared by many machines",
    "d41d8cd98f00b204e9800998ecf8427e": "known to be shared by many machines",
}
UUID = "4b1d0c6e-9f2a-47d3-8e55-60b7a1c3f290"
GOOD = [MACHINE, MACHINE + "\n", MACHINE + "\r\n", "  %s \n\n" % MACHINE, MACHINE.upper() + "\n"]
GOOD += [UUID, "{%s}" % UUID.upper()]


@pytest.mark.parametrize("content", GOOD, ids=ascii)
def test_a_usable_id_is_read_however_its_line_ends(tmp_path: Path, content: str) -> None:
    found = machine(tmp_path, content).read()
    assert (found.machine_id, found.source, found.problems) == (MACHINE, "machine-id", [])


@pytest.mark.parametrize("content", BAD, ids=ascii)
def test_a_bad_id_is_named_and_the_next_source_taken(tmp_path: Path, content: str) -> None:
    found = machine(tmp_path, content, dbus=OTHER_MACHINE).read()
    assert (found.machine_id, found.source) == (OTHER_MACHINE, "dbus-machine-id")
    assert found.problems == [("machine-id", BAD[content])]


@pytest.mark.parametrize("content", BAD, ids=ascii)
def test_with_bad_ids_only_there_is_none(tmp_path: Path, content: str) -> None:
    found = machine(tmp_path, content, dbus=content).read()
    assert (found.machine_id, found.source) == (None, "")
    assert [source for source, _ in found.problems] == ["machine-id", "dbus-machine-id"]


def _missing(file: Path) -> None:
    file.unlink()


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _noise(file: Path) -> None:
    file.write_bytes(bytes(range(128, 256)) * 40)


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs, links or such roots")
@pytest.mark.parametrize("spoil", [_missing, _directory, _loop, _fifo, _noise])
def test_an_unreadable_file_neither_raises_nor_blocks(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    system = machine(tmp_path, dbus=OTHER_MACHINE + "\r\n")
    spoil(tmp_path / "etc/machine-id")
    found = system.read()
    assert (found.machine_id, found.source) == (OTHER_MACHINE, "dbus-machine-id")
    assert found.problems[0][0] == "machine-id" and found.problems[0][1]


def test_a_missing_root_is_no_id_and_no_container(tmp_path: Path) -> None:
    system = System(platform="linux", root=str(tmp_path / "nowhere"), environ={})
    assert system.read().machine_id is None
    assert not system.in_container()


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv", "run/systemd/container"])
def test_container_marks(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    assert not in_container(str(tmp_path), {})
    (tmp_path / mark).touch()
    assert in_container(str(tmp_path), {})


@pytest.mark.parametrize(
    "cgroups, inside",
    [
        ("0::/init.scope\n", False),
        ("0::/\n", False),
        ("12:memory:/docker/3b1c\n0::/\n", True),
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n", True),
        ("1:name=systemd:/lxc/one\n", True),
        ("0::/machine.slice/libpod-1.scope\n", True),
    ],
)
def test_container_cgroups(tmp_path: Path, cgroups: str, inside: bool) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text(cgroups)
    assert in_container(str(tmp_path), {}) is inside


@pytest.mark.parametrize(
    "value, inside", [("docker", True), ("systemd-nspawn", True), ("", False), ("flatpak", False)]
)
def test_container_variable(tmp_path: Path, value: str, inside: bool) -> None:
    # Flatpak shows the host's machine id inside, so it is none of these.
    assert in_container(str(tmp_path), {"container": value}) is inside


@pytest.mark.parametrize(
    "platform, source", [("darwin", "IOPlatformUUID"), ("win32", "MachineGuid")]
)
@pytest.mark.skipif(sys.platform != "linux", reason="asks for what is not there on Linux")
def test_the_reader_of_another_platform_is_a_problem_not_an_error(
    platform: str, source: str
) -> None:
    system = System(platform=platform, environ={})
    found = system.read()
    assert found.machine_id is None
    assert [name for name, _ in found.problems] == [source] and found.problems[0][1]
    assert system.os_user() == ("" if platform == "win32" else str(os.getuid()))
    assert not system.in_container()


def sid(*subs: int, authority: int = 5) -> bytes:
    packed = struct.pack("<%dI" % len(subs), *subs)
    return bytes((1, len(subs))) + authority.to_bytes(6, "big") + packed


def token(binary: bytes, *, pointer_bytes: int = 8, address: int = 0x7FFE0010) -> bytes:
    """A TOKEN_USER written at ``address``: a pointer to the SID behind it, attributes, the SID."""
    head = 2 * pointer_bytes
    return (address + head).to_bytes(pointer_bytes, "little").ljust(head, b"\0") + binary


@pytest.mark.parametrize("pointer_bytes", [8, 4])
@pytest.mark.parametrize(
    "binary, text",
    [
        (sid(18), "S-1-5-18"),
        (sid(32, 544), "S-1-5-32-544"),
        (
            sid(21, 3623811015, 3361044348, 30300820, 1013),
            "S-1-5-21-3623811015-3361044348-30300820-1013",
        ),
        (sid(0, authority=1), "S-1-1-0"),
        (sid(), "S-1-5"),
        (sid(18) + b"what lies behind", "S-1-5-18"),
    ],
)
def test_a_sid_is_written_as_windows_writes_it(
    binary: bytes, text: str, pointer_bytes: int
) -> None:
    given = token(binary, pointer_bytes=pointer_bytes)
    assert windows.token_sid(given, 0x7FFE0010, pointer_bytes=pointer_bytes) == text


@pytest.mark.parametrize(
    "binary", [b"", b"\1", sid(18)[:-1], b"\2" + sid(18)[1:], bytes((1, 16)) + bytes(60)]
)
def test_half_a_sid_is_none(binary: bytes) -> None:
    with pytest.raises(ValueError):
        windows.token_sid(token(binary), 0x7FFE0010, pointer_bytes=8)


@pytest.mark.parametrize("away", [-4096, 4096, 16])
def test_a_sid_outside_of_its_token_is_none(away: int) -> None:
    with pytest.raises(ValueError):  # 16: a pointer to itself
        windows.token_sid(token(sid(21, 7)), 0x7FFE0010 + away, pointer_bytes=8)


def test_the_user_of_a_windows_process() -> None:
    pointer = 8 if sys.maxsize > 2**32 else 4
    given = token(sid(21, 7), pointer_bytes=pointer, address=4096)
    assert windows.user(lambda: (given, 4096)) == "S-1-5-21-7"


def test_a_windows_user_without_a_token_is_nobody_in_particular() -> None:
    def refused() -> tuple[bytes, int]:
        raise OSError("access denied")

    assert windows.user(refused) == ""


def test_a_problem_never_quotes_what_was_found() -> None:
    def leaks() -> str:
        raise ValueError(MACHINE)

    for ask in (leaks, lambda: "x" + MACHINE, lambda: MACHINE + "?", lambda: MACHINE * 2):
        found = System(sources=[("test", ask)]).read()
        assert found.machine_id is None and MACHINE not in repr(found.problems)
    good = System(sources=[("test", lambda: MACHINE)]).read()
    assert good.machine_id == MACHINE and MACHINE not in repr(good)
    assert judge(MACHINE) == (MACHINE, "")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no uids here")
def test_the_user_is_the_real_one() -> None:
    assert System().os_user() == str(os.getuid())
