"""What is stored against what can be derived: the decision table cell by cell, damage, foreign homes, moves, resets."""

import json
import os
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from support.identity import CONTEXT, DERIVED, MACHINE, NAMES, OTHER_MACHINE, bare, machine
from support.systems import posix

from agent import identity as identities, lines
from agent.identity import Identity, System, context, derive, explain, resolve
from agent.spool import segment

STORED = "5" * 16 + "a" * 16
TAG_OF_ELSEWHERE = "0123456789abcdef"
root = pytest.mark.skipif(
    getattr(os, "geteuid", bool)() != 0 or os.name == "nt", reason="needs root"
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def file_of(state: Path) -> Path:
    return state / identities.file_name(CONTEXT)


def plant(state: Path, **changes: Any) -> bytes:
    """An intact file, as another run or another version may have left it."""
    record = {"v": 1, "id": STORED, "source": "machine-id", "quality": "strong", "tag": None}
    line = lines.encode({**record, **changes})
    file_of(state).write_bytes(line)
    return line


def ask(state: Path, system: System) -> Identity:
    return resolve(system, str(state), **NAMES)


def reset(state: Path, system: System) -> Identity:
    return resolve(system, str(state), reset=True, **NAMES)


def told(state: Path, system: System) -> dict[str, Any]:
    found = explain(system, str(state), **NAMES)
    json.dumps(found)
    return found


def _damaged(state: Path) -> None:
    file_of(state).write_bytes(plant(state)[:-30] + b"\n")


def _directory(state: Path) -> None:
    file_of(state).mkdir()


def _planted(**changes: Any) -> Callable[[Path], Any]:
    return lambda state: plant(state, **changes)


STATES: dict[str, tuple[Callable[[Path], Any], Optional[bool], bool]] = {
    # name: (make it, moved_or_cloned with a machine id, does it give the identifier)
    "none": (lambda state: None, False, False),
    "intact, match": (_planted(tag=identities.tag(MACHINE, CONTEXT)), False, True),
    "intact, mismatch": (_planted(tag=TAG_OF_ELSEWHERE), True, True),
    "random": (_planted(source="random", quality="random"), None, True),
    "damaged": (_damaged, False, False),
    "newer": (_planted(v=2, tag={"another": "kind"}, more=list(range(9000))), None, True),
    "newer without id": (_planted(v=3, id={"parts": []}), None, False),
    "no file can be there": (_directory, None, False),
}
REPLACED = ("none", "damaged")


@pytest.mark.parametrize("found", ["id", "weak id", "no id"])
@pytest.mark.parametrize("name", STATES)
def test_decision_table(tmp_path: Path, state: Path, name: str, found: str) -> None:
    make, moved, decides = STATES[name]
    make(state)
    file = file_of(state)
    before = file.read_bytes() if file.is_file() else None
    system = bare() if found == "no id" else machine(tmp_path, container=found == "weak id")

    identity = ask(state, system)

    if decides:
        assert identity.value == STORED
    elif found == "no id":
        assert identity.value not in (STORED, DERIVED) and len(identity.value) == 32
        assert (identity.source, identity.quality) == ("random", "random")
    else:
        assert identity.value == DERIVED
        quality = "weak" if found == "weak id" else "strong"
        assert (identity.source, identity.quality) == ("machine-id", quality)

    assert identity.stored == (decides or name in REPLACED)
    after = file.read_bytes() if file.is_file() else None
    if name in REPLACED:
        assert after != before and lines.decode((after or b"").rstrip())["id"] == identity.value
    else:
        assert after == before
    for _ in range(2):  # and so it stays
        assert ask(state, system).value == identity.value
    report = told(state, system)
    assert report["user_identifier"] == identity.value
    assert report["moved_or_cloned"] is (None if found == "no id" else moved)
    assert report["in_container"] is (found == "weak id")
    assert not [path.name for path in state.iterdir() if path.name.endswith(".tmp")]


def test_the_file_is_one_private_checksummed_line(tmp_path: Path, state: Path) -> None:
    assert ask(state, machine(tmp_path)).value == DERIVED
    content = file_of(state).read_bytes()
    record = lines.decode(content[:-1])
    tag = identities.tag(MACHINE, CONTEXT)
    facts = {"id": DERIVED, "source": "machine-id", "quality": "strong", "tag": tag}
    assert record == {"v": 1, **facts} and content == lines.encode(record)
    assert os.name == "nt" or file_of(state).stat().st_mode & 0o777 == 0o600
    name, *lock = sorted(path.name for path in state.iterdir())
    # What is held cannot be unlinked on Windows: the lock keeps its name.
    assert lock == ([] if os.name == "posix" else [name + ".lock"])
    for ours in (name, name + ".lock", name + ".0123456789abcdef.tmp"):
        assert segment.is_ours(ours)  # whoever erases knows them


def test_deleting_the_store_gives_the_same_identity(tmp_path: Path, state: Path) -> None:
    system = machine(tmp_path)
    first = ask(state, system)
    file_of(state).unlink()
    assert ask(state, system).value == first.value == DERIVED
    elsewhere = ask(tmp_path / "a/new/place", system)
    nowhere = resolve(system, None, **NAMES)
    assert elsewhere.value == nowhere.value == first.value
    assert elsewhere.stored and not nowhere.stored


def test_users_and_products_share_a_state_directory(tmp_path: Path, state: Path) -> None:
    other = {**NAMES, "product_name": "something else"}
    found = [ask(state, machine(tmp_path)), ask(state, machine(tmp_path, user="1001"))]
    found.append(resolve(machine(tmp_path), str(state), **other))
    assert len({one.value for one in found}) == 3 and all(one.stored for one in found)


def test_a_stored_identity_is_read_without_looking_at_the_machine(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(state, tag=TAG_OF_ELSEWHERE)
    monkeypatch.setattr(System, "machine_id", lambda self: pytest.fail("a process, on macOS"))
    assert ask(state, machine(tmp_path)).value == STORED


def test_a_changed_machine_id_is_shown_and_changes_nothing_but_by_a_reset(
    tmp_path: Path, state: Path
) -> None:
    first = ask(state, machine(tmp_path))
    moved = machine(tmp_path, OTHER_MACHINE)
    assert ask(state, moved).value == first.value
    report = told(state, moved)
    assert report["moved_or_cloned"] is True and report["user_identifier"] == first.value
    fresh = reset(state, moved)
    assert fresh.stored and fresh.value == derive(OTHER_MACHINE, CONTEXT)
    assert ask(state, moved).value == fresh.value
    assert told(state, moved)["moved_or_cloned"] is False


def test_reset_of_a_random_identity(tmp_path: Path, state: Path) -> None:
    first = ask(state, bare())
    second = reset(state, bare())
    assert second.value != first.value
    assert ask(state, bare()).value == second.value
    system = machine(tmp_path)  # since then the machine has an id
    assert ask(state, system).value == second.value
    assert told(state, system)["moved_or_cloned"] is None
    assert reset(state, system).value == DERIVED


def test_reset_leaves_the_file_of_a_newer_version(tmp_path: Path, state: Path) -> None:
    line = plant(state, v=2)
    assert reset(state, machine(tmp_path)).value == STORED and file_of(state).read_bytes() == line
    plant(state, v=2, id=None)
    fresh = reset(state, machine(tmp_path))
    assert fresh.value == DERIVED and not fresh.stored


def test_reset_without_a_state_directory() -> None:
    unknown = bare(user="reset-nowhere")
    first = resolve(unknown, None, **NAMES)
    assert resolve(unknown, None, **NAMES).value == first.value
    assert resolve(unknown, None, reset=True, **NAMES).value != first.value


def test_a_bit_flip_a_cut_and_every_nonsense_is_damage(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda s: None)  # nobody is about to finish the file
    system, whole = machine(tmp_path), plant(state)
    damaged = [whole[:end] for end in range(0, len(whole) - 1, 9)]
    for position in range(0, len(whole) - 1, 3):
        bit = bytes([whole[position] ^ 1 << position % 8])
        damaged.append(whole[:position] + bit + whole[position + 1 :])
    damaged += [b"\0" * len(whole), b"\n", b"\xff" * 9000, whole[9:], b"[" * 4000]
    senseless: tuple[Any, ...] = (None, [], {}, {"v": True}, {"v": 0}, {"v": 1})
    damaged += map(lines.encode, senseless)
    damaged += [plant(state, id=id) for id in (STORED[1:], STORED.upper(), None, ["x"] * 32)]
    for content in [*damaged, plant(state, v="1")]:
        file_of(state).write_bytes(content)
        assert ask(state, system).value == DERIVED, content
        assert lines.decode(file_of(state).read_bytes()[:-1])["id"] == DERIVED


def test_an_intact_line_in_another_shape_is_read(tmp_path: Path, state: Path) -> None:
    record = {"quality": "weak", "id": STORED, "source": 'o"dd', "v": 1, "tag": None, "more": [1]}
    for content in (lines.encode(record), plant(state)[:-1]):
        file_of(state).write_bytes(content)
        assert ask(state, machine(tmp_path)).value == STORED
        assert file_of(state).read_bytes() == content


@posix
@pytest.mark.parametrize("what", ["link", "dangling link", "fifo"])
def test_a_planted_link_or_pipe_is_neither_followed_nor_waited_for(
    tmp_path: Path, state: Path, what: str
) -> None:
    target = tmp_path / "target"
    if what == "link":
        target.write_bytes(plant(state))
        file_of(state).unlink()
    os.mkfifo(file_of(state)) if what == "fifo" else file_of(state).symlink_to(target)
    before = target.read_bytes() if target.exists() else None
    identity = ask(state, machine(tmp_path))
    assert identity.value == DERIVED and not identity.stored and identity.note
    assert (target.read_bytes() if target.exists() else None) == before


@pytest.mark.parametrize("with_id", [True, False])
def test_an_unusable_state_directory_keeps_the_identity_in_memory(
    tmp_path: Path, with_id: bool
) -> None:
    (tmp_path / "file").write_text("in the way")
    system = machine(tmp_path) if with_id else bare(user="unusable")
    found = set()
    for name in ("file", "file/below", "x" * 300, "a\0b", "\udfff\ud800"):
        identity = ask(tmp_path / name, system)
        report = told(tmp_path / name, system)
        assert not identity.stored and identity.note and report["note"]
        found |= {identity.value, report["user_identifier"]}
    assert len(found) == 1  # one process shows one identity
    assert not with_id or found == {DERIVED}


@root
@pytest.mark.parametrize("exists", [True, False])
def test_in_the_home_of_another_user_nothing_is_written(tmp_path: Path, exists: bool) -> None:
    # What sudo does: root, with the HOME of the user.
    home = tmp_path / "home"
    state = home / "state" if exists else home / "not/yet/there"
    (state if exists else home).mkdir(parents=True)
    for path in (home, *home.iterdir()):
        os.chown(path, 4321, 4321)
    identity = ask(state, machine(tmp_path, user="0"))
    assert identity.value == derive(MACHINE, context("0", **NAMES)) and not identity.stored
    assert [path for path in home.rglob("*") if path != state] == []


@root
def test_a_file_of_another_user_is_neither_believed_nor_touched(
    tmp_path: Path, state: Path
) -> None:
    line = plant(state)
    os.chown(file_of(state), 4321, 4321)
    identity = ask(state, machine(tmp_path))
    assert identity.value == DERIVED and not identity.stored
    assert file_of(state).read_bytes() == line


@pytest.mark.parametrize("stored", [True, False])
def test_the_raw_machine_id_is_nowhere(tmp_path: Path, state: Path, stored: bool) -> None:
    dashed = "-".join((MACHINE[:8], MACHINE[8:12], MACHINE[12:16], MACHINE[16:20], MACHINE[20:]))
    system = machine(tmp_path, "{%s}" % dashed.upper())
    where = str(state) if stored else None
    found = [resolve(system, where, reset=reset, **NAMES) for reset in (False, True)]
    report = explain(system, where, **NAMES)
    assert [one.value for one in found] == [DERIVED] * 2 and report["user_identifier"] == DERIVED
    shown = repr((found, system, report, [vars(one) for one in found])) + json.dumps(report)
    kept = b"".join(path.read_bytes() + path.name.encode() for path in state.iterdir())
    assert bool(kept) is stored
    haystack = (shown.encode() + kept).lower()
    for needle in (MACHINE, dashed, MACHINE[:16], MACHINE[16:], MACHINE[::-1]):
        assert needle.encode() not in haystack
    assert bytes.fromhex(MACHINE) not in haystack


def test_explain_says_what_was_wrong_with_each_source(tmp_path: Path, state: Path) -> None:
    report = told(state, machine(tmp_path, "uninitialized\n", dbus=MACHINE))
    assert report["source"] == "dbus-machine-id"
    assert report["sources"] == [
        {"source": "machine-id", "problem": "not 32 hexadecimal digits"},
        {"source": "dbus-machine-id", "problem": ""},
    ]
    assert report["path"] == str(file_of(state))
