"""The command ``vendor``: which of its three tasks is meant, whether it may be done, and what is told about it."""

from __future__ import annotations

import argparse
import keyword
import os
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Union

from ...errors import AgentError
from ..arguments import UsageError
from ..output import Output, counted, printable
from . import libraries
from .place import PENDING, Difference, Manifest, Place
from .source import PACKAGE, PARTS, Content, content

if TYPE_CHECKING:
    Options = Union[Manifest, Content]

_NONE = "none"


def run(args: argparse.Namespace, out: Output) -> int:
    """Copy, check or upgrade; the exit status."""
    place = Place(_destination(args.destination))
    before = place.pending or place.installed  # of an unfinished change: what it was to be
    if args.overwrite and not args.upgrade:
        args.parser.error("--overwrite goes with --upgrade")
    if args.check or args.upgrade:
        if before is None:
            raise UsageError(
                "%s holds no copy that this command made" % args.destination,
                "vendor without --check and --upgrade makes one",
            )
    elif place.installed is not None:
        raise UsageError(
            "%s holds a copy of version %s already" % (args.destination, place.installed.version),
            "vendor --check shows its state, vendor --upgrade brings it up to date",
        )
    elif place.pending is None and not place.empty:
        raise UsageError(
            "%s is not empty, and nothing in it is ours" % args.destination,
            "name a folder that does not exist yet; a copy that was made by hand has to go first",
        )
    wanted = content(_chosen(args.parts, before))
    found = place.difference(wanted)
    if args.check:
        return _check(args.destination, place, wanted, found, out)
    return _update(args, place, wanted, found, out)


def _destination(given: str) -> str:
    root = os.path.realpath(given)
    there, ours = (os.path.normcase(path) + os.sep for path in (root, os.path.realpath(PACKAGE)))
    name = os.path.basename(root)
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError("%s: the folder's name is the package's, and %r is none" % (given, name))
    if there.startswith(ours) or ours.startswith(there):
        raise UsageError("%s: a copy lies neither in this package nor around it" % given)
    if os.path.lexists(root) and not os.path.isdir(root):
        raise UsageError("%s is no directory" % given)
    return root


def _chosen(said: Optional[str], before: Optional[Manifest]) -> list[str]:
    """The parts that a copy is to have; raises ``UsageError`` for one that there is not."""
    if said is None:
        return [] if before is None else [part for part in before.parts if part in PARTS]
    named = [] if said == _NONE else said.split(",")
    unknown = [part for part in named if part not in PARTS]
    if unknown:
        raise UsageError(
            "--with: there is no part %s" % printable(repr(unknown[0])),
            "the parts are %s; they are named with commas between, or %s"
            % (", ".join(PARTS), _NONE),
        )
    return named


def _check(destination: str, place: Place, wanted: Content, found: Difference, out: Output) -> int:
    now = place.installed
    ok = not (found.local or found.foreign or found.behind or place.pending)
    value = {
        "ok": ok,
        "destination": destination,
        "unfinished": place.pending is not None,
        **_state(now, wanted, found),
    }
    lines = _lines(found)
    version = now.version if now else "?"
    if ok:
        lines.append(
            "%s is version %s, as it was copied, and nothing else" % (destination, version)
        )
    out.answer(value, map(printable, lines))
    if place.pending is not None:
        out.say("%s is there: a change was interrupted; repeat vendor --upgrade" % PENDING)
    if found.local:
        out.say("the copy was edited; vendor --upgrade --overwrite undoes that")
    if found.foreign:
        out.say("what is foreign is not ours, and no upgrade removes it: keep it elsewhere")
    if any(path.endswith(".pyc") for path in found.foreign):
        out.say("bytecode cannot be compared: remove every __pycache__, Python makes it anew")
    if found.behind:
        which = "the copy is of version %s, this is %s" % (version, wanted.version)
        if version == wanted.version:
            which = "the copy is of this version, but not what it writes with these options and libraries"
        out.say("%s; vendor --upgrade with the same options brings it up to date" % which)
    return 0 if ok else 1


def _update(
    args: argparse.Namespace,
    place: Place,
    wanted: Content,
    found: Difference,
    out: Output,
) -> int:
    before = place.installed
    if found.local and not args.overwrite:
        _refuse(args, found)
    try:
        left = place.update(wanted)
    except (OSError, KeyboardInterrupt):
        if Place(place.root).pending is not None:
            out.say("unfinished: some files are new and some old; repeat the command to finish it")
        raise
    value = {"destination": args.destination, "left": left, **_state(before, wanted, found)}
    lines = _lines(found) if args.upgrade else []
    made_of = ["the core", *wanted.parts, *("%s %s" % one for one in wanted.libraries.items())]
    what = "%s, %s" % (counted(len(wanted.files), "file"), ", ".join(made_of))
    if not args.upgrade:
        lines.append("%s is a copy of version %s: %s" % (args.destination, wanted.version, what))
    elif before is not None and before.version != wanted.version:
        versions = (args.destination, before.version, wanted.version, what)
        lines.append("%s was version %s and is %s: %s" % versions)
    else:
        same = "is" if found.behind or found.local else "was already"
        lines.append("%s %s version %s: %s" % (args.destination, same, wanted.version, what))
    out.answer(value, map(printable, lines))
    for folder in left:
        out.say("%s/%s is left: it holds files that are not ours" % (args.destination, folder))
    for name, python in wanted.pythons.items():
        if python:
            asked = (name, wanted.libraries[name], python)
            out.say("%s %s asks for Python %s, and with it the copy" % asked)
    if wanted.libraries:
        out.say(libraries.WHY_NOT)
    return 0


def _refuse(args: argparse.Namespace, found: Difference) -> NoReturn:
    first = ", ".join(found.local[:5]) + ", …" * (len(found.local) > 5)
    way = "--overwrite replaces them" if args.upgrade else "vendor --upgrade --overwrite would"
    raise AgentError(
        "not changed: %s in the copy would be lost: %s; %s"
        % (counted(len(found.local), "local edit"), printable(first), way)
    )


def _state(before: Optional[Manifest], wanted: Content, found: Difference) -> dict[str, Any]:
    return {
        "from": None if before is None else {"version": before.version, **_options(before)},
        "to": {"version": wanted.version, **_options(wanted)},
        **found._asdict(),
    }


def _options(one: Options) -> dict[str, Any]:
    return {"parts": one.parts, "libraries": one.libraries}


def _lines(found: Difference) -> list[str]:
    """One line for each path: what is the matter with it."""
    words = ("edited", "missing", "foreign", "in the way", "changed", "new", "gone")
    return ["%-10s  %s" % (word, path) for word, paths in zip(words, found) for path in paths]
