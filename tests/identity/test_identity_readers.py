"""Machines with a missing, empty, broken or shared machine id, and where each platform keeps it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.identity import MACHINE, OTHER_MACHINE, Machine, machine

from agent import identity
from agent.identity import System

BAD = {
    "": "empty",
    " \r\n\t\n": "empty",
    "uninitialized\n": "uninitialized",
    "UNINITIALIZED": "uninitialized",
    "0" * 32 + "\n": "all zero",
    MACHINE[:31]: "not 32 hexadecimal digits",
    MACHINE + "\n" + OTHER_MACHINE: "not 32 hexadecimal digits",
    "g" + MACHINE[1:]: "not 32 hexadecimal digits",
    "\uff11" * 32: "not 32 hexadecimal digits",
    "\0" * 32: "not 32 hexadecimal digits",
    "f" * 32: "known to be shared by many machines",
    "DEADBEEF" * 4: "known to be shared by many machines",
    "03000200040005000006000700080009": "known to be shared by many machines",
    "d41d8cd98f00b204e9800998ecf8427e": "known to be shared by many machines",
}
UUID = "4b1d0c6e-9f2a-47d3-8e55-60b7a1c3f290"
GOOD = [MACHINE, MACHINE + "\n", MACHINE + "\r\n", "  %s \n\n" % MACHINE, MACHINE.upper() + "\n"]
GOOD += [UUID, "{%s}" % UUID.upper()]


@pytest.mark.parametrize("content", GOOD, ids=ascii)
def test_a_usable_id_is_read_however_its_line_ends(tmp_path: Path, content: str) -> None:
    assert machine(tmp_path, content).machine_id() == (MACHINE, "machine-id", [])


@pytest.mark.parametrize("content", BAD, ids=ascii)
def test_a_bad_id_is_named_and_the_next_source_taken(tmp_path: Path, content: str) -> None:
    problems = [("machine-id", BAD[content])]
    found = machine(tmp_path, content, dbus=OTHER_MACHINE).machine_id()
    assert found == (OTHER_MACHINE, "dbus-machine-id", problems)
    problems.append(("dbus-machine-id", BAD[content]))
    assert machine(tmp_path, content, dbus=content).machine_id() == (None, "", problems)


def _missing(file: Path) -> None: ...


def _loop(file: Path) -> None:
    file.symlink_to(file)


def _noise(file: Path) -> None:
    file.write_bytes(bytes(range(128, 256)) * 40)


def _fifo(file: Path) -> None:
    os.mkfifo(file)


SPOILT: list[Callable[[Path], Any]] = [_missing, Path.mkdir, _loop, _fifo, _noise]


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs, links or such roots")
@pytest.mark.parametrize("spoil", SPOILT)
def test_an_unreadable_file_neither_raises_nor_blocks(
    tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    system = machine(tmp_path, dbus=OTHER_MACHINE + "\r\n")
    (tmp_path / "etc/machine-id").unlink()
    spoil(tmp_path / "etc/machine-id")
    machine_id, source, ((first, problem),) = system.machine_id()
    assert (machine_id, source) == (OTHER_MACHINE, "dbus-machine-id")
    assert first == "machine-id" and problem


# -- containers ----------------------------------------------------------------------------------

# What /proc/self/mountinfo says inside: Docker, containerd under Kubernetes, CRI-O, rootless Podman.
MOUNTS = {
    "/": "1 0 0:61 / / rw - overlay overlay rw,lowerdir=%s/l/X,upperdir=%s/Y",
    "/etc/hosts": "2 1 8:1 %s/hosts /etc/hosts rw - ext4 /dev/sda1 rw",
}
INSIDE = [
    MOUNTS["/"].replace("%s", "/var/lib/docker/overlay2"),
    MOUNTS["/"].replace("%s", "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"),
    MOUNTS["/"].replace("%s", "/home/u/.local/share/containers/storage/overlay"),
    MOUNTS["/etc/hosts"] % "/var/lib/kubelet/pods/1b2c/etc-hosts",
    MOUNTS["/etc/hosts"] % "/var/lib/docker/containers/3b1c",
]
# And on a machine that runs containers: their file systems are mounted there too, elsewhere.
OUTSIDE = [
    "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "5 1 0:61 / /var/lib/docker/overlay2/X/merged rw - overlay overlay rw,lowerdir=/var/lib/docker/\n"
    "6 1 0:62 / /var/lib/kubelet/pods/1b2c/volumes rw - tmpfs tmpfs rw",
    "1 0 0:61 / / rw - overlay overlay rw,lowerdir=/run/live/rootfs",
    "nonsense",
    "",
]


def contained(root: Path, *, cgroup: str = "0::/\n", mounts: str = "", **environ: str) -> bool:
    for name, text in (("1/cgroup", cgroup), ("self/mountinfo", mounts)):
        (root / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "proc" / name).write_text(text)
    return Machine(root, environ=environ).is_container()


def test_a_bare_machine_is_no_container(tmp_path: Path) -> None:
    assert not contained(tmp_path)
    assert not Machine(tmp_path / "nowhere").is_container()
    assert Machine(tmp_path / "nowhere").machine_id()[0] is None


@pytest.mark.parametrize("mark", identity._MARKS)
def test_container_marks(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).touch()
    assert contained(tmp_path)


@pytest.mark.parametrize(
    "cgroup, inside",
    [
        ("0::/init.scope\n", False),
        ("12:memory:/docker/3b1c\n0::/\n", True),
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n", True),
        ("1:name=systemd:/lxc/one\n", True),
        ("0::/machine.slice/libpod-1.scope\n", True),
    ],
)
def test_container_cgroups(tmp_path: Path, cgroup: str, inside: bool) -> None:
    assert contained(tmp_path, cgroup=cgroup) is inside


@pytest.mark.parametrize("mounts", INSIDE + OUTSIDE)
def test_behind_cgroup_v2_a_container_shows_in_its_mounts(tmp_path: Path, mounts: str) -> None:
    far = "".join("%d 1 0:9 / /mnt/%d rw - tmpfs tmpfs rw\n" % (n, n) for n in range(300))
    assert contained(tmp_path, mounts=far + mounts) is (mounts in INSIDE)


def test_container_variables(tmp_path: Path) -> None:
    # Flatpak shows the host's machine id inside, so it is none of these.
    for value, inside in (
        ("docker", True),
        ("systemd-nspawn", True),
        ("", False),
        ("flatpak", False),
    ):
        assert contained(tmp_path, container=value) is inside
    assert contained(tmp_path, KUBERNETES_SERVICE_HOST="10.0.0.1")


# -- other platforms, users ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "platform, source", [("darwin", "IOPlatformUUID"), ("win32", "MachineGuid")]
)
@pytest.mark.skipif(sys.platform != "linux", reason="asks for what is not there on Linux")
def test_the_reader_of_another_platform_is_a_problem_not_an_error(
    platform: str, source: str
) -> None:
    system = System({"container": "docker"})
    system.platform = platform
    machine_id, _, ((name, problem),) = system.machine_id()
    assert machine_id is None and name == source and problem
    assert system.user() == ("" if platform == "win32" else str(os.getuid()))
    assert not system.is_container()


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
        machine_id, _, problems = machine(tmp_path, content).machine_id()
        assert machine_id is None and MACHINE not in repr(problems)

    def leaks(text: str) -> Any:
        raise ValueError(text)

    monkeypatch.setattr(identity, "judge", leaks)
    problems = machine(tmp_path).machine_id()[2]
    assert problems[0] == ("machine-id", "ValueError")
