"""Private files in processes that belong to somebody else: umasks, descriptors, forks, names, full disks."""

import errno
import ntpath
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import spool as support
from support.spool import Calls
from support.systems import posix, windows

from agent import files, lines


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def test_a_descriptor_that_is_no_longer_ours_is_neither_written_cut_moved_nor_closed(
    place: Path,
) -> None:
    file = files.create(str(place / "ours"))
    os.close(file._fd)
    theirs = os.open(place / "theirs", os.O_RDWR | os.O_CREAT)
    assert theirs == file._fd
    os.write(theirs, b"precious")
    for act in (lambda: file.write(b"x"), file.cut):
        with pytest.raises(OSError):
            act()
    file.read(0, 3)
    assert os.lseek(theirs, 0, os.SEEK_CUR) == 8 or not hasattr(os, "pread")
    file.close()
    file.close()
    os.close(theirs)
    assert (place / "theirs").read_bytes() == b"precious"


def test_one_write_is_one_call_or_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with files.create(str(place / "file")) as file:
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
        with pytest.raises(OSError) as caught:
            file.write(b"abcdef")
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("how", ["write", "fsync"])
def test_a_new_file_is_whole_or_not_there(place: Path, calls: Calls, how: str) -> None:
    before = set(support.open_now)
    calls.fail(how, 28)
    for make in (files.write_new, files.beside, files.replace):
        with pytest.raises(OSError):
            make(str(place / "file"), b"x")
    assert os.listdir(place) == [] and support.open_now <= before


# --- locks ----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="EACCES means that a lock is held there")
@pytest.mark.parametrize("error", ["EAGAIN", "EACCES", "ENOLCK", "EIO", "EINTR", "EDEADLK"])
def test_only_try_again_means_that_a_lock_is_held(place: Path, calls: Calls, error: str) -> None:
    calls.fail_locks(getattr(errno, error))
    with files.create(str(place / "file")) as file:
        assert file.lock() is (False if error == "EAGAIN" else None)


@posix
def test_a_lock_on_a_file_that_lost_its_name_is_no_lock(place: Path) -> None:
    path = str(place / "file")
    for successor in (False, True):
        with files.create(path) as file:
            assert file.hold() is True
            os.unlink(path)
            if successor:
                files.create(path).close()
            assert file.hold() is False


@windows
def test_a_name_whose_numbers_are_shorter_than_its_files_is_still_its(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.lstat

    def short(path: str) -> os.stat_result:
        mode, _, device, *rest = real(path)
        return os.stat_result((mode, 0, device & 0xFFFF, *rest))

    monkeypatch.setattr(os, "lstat", short)
    with files.create(str(place / "file")) as file:
        assert file.hold() is True


# --- where state lies -----------------------------------------------------------------------------


def directory(environ: dict[str, str], **changes: Any) -> tuple[Any, str]:
    given = {"state_dir": None, "vendor": "Acme", "product_name": "Studio", **changes}
    return files.state_directory(SimpleNamespace(**given), environ)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="XDG")
def test_state_lies_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    for environ in ({"HOME": "/home/u"}, {"HOME": "/home/u", "XDG_STATE_HOME": "/x"}):
        for name in ("HOME", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        theirs = platformdirs.user_state_dir(roaming=False)
        assert directory(environ) == (theirs + "/Acme/Studio/telemetry", "")
    assert directory({"HOME": "/h", "XDG_STATE_HOME": "relative"})[0].startswith("/h/.local/state/")
    flatpak = {"FLATPAK_ID": "example.acme.Studio"}
    assert directory({"HOME": "/h", **flatpak})[0].startswith(
        "/h/.var/app/example.acme.Studio/.local/state/"
    )
    assert directory({"HOME": "/h", "XDG_STATE_HOME": "/x", **flatpak})[0].startswith("/x/")
    for environ in ({}, {"HOME": ""}, {"HOME": "relative"}, flatpak):
        assert directory(environ) == (None, "there is no home directory to keep state in")


@windows
def test_windows_says_itself_where_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    environ = dict(__import__("nt").environ)  # of the start: the tests' own is another
    theirs = os.path.join(platformdirs.user_state_dir(roaming=False), "Acme", "Studio", "telemetry")
    assert directory({}) == (theirs, "")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert directory(environ) == (theirs, "")


@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "nul.txt",
        "Con.nect",
        "conin$",
        "lpt\xb9 .x",
        "a/b",
        "a\\b",
        "..",
        " x ",
        "x.",
        "\x00",
        "",
        "\ud800",
        "e\u0301" * 99,
    ]
    + ["\U0001f600" * 64, "d" * 300],
)
def test_any_name_is_a_part_of_a_path_and_distinct(place: Path, name: str) -> None:
    environ = dict.fromkeys(("HOME", "LOCALAPPDATA"), str(place))
    found, trouble = directory(environ, vendor=name)
    assert trouble == "" and found is not None
    part = Path(found).parts[-3]
    assert 0 < len(part.encode()) <= 80 and part not in ("..", name)
    assert not getattr(ntpath, "isreserved", lambda name: False)(
        part
    ) and not part.upper().startswith("CON")
    others = {directory(environ, vendor=name + more)[0] for more in ("", "x", "y")}
    assert len(others) == 3
    files.ensure_directory(found)


def test_a_path_that_cannot_be_encoded_is_no_directory_and_says_why() -> None:
    for path in ("/tmp/\x00", "/tmp/\ud800")[: 1 + (os.name == "posix")]:
        found, trouble = directory({}, state_dir=path)
        assert found is None and "encoded" in trouble


def test_sha256_is_the_interpreters_own_and_looked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import hashlib

    for data in (b"", b"x" * 1000):
        assert lines.sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(
        sys, "meta_path", [None]
    )  # an import that fails goes through the whole path
    lines.sha256(b"")
