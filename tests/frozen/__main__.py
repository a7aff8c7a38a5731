"""The matrix: each packager, with and without PyNaCl, built and driven; one line for each, figures as JSON."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.collector import Collector

from . import builds, driving


def main(argv: list[str]) -> int:
    """Build and drive what was asked for; 1 if something did not do what it must."""
    args = _parser().parse_args(argv)
    missing = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
    if missing:
        raise SystemExit("not installed here: " + ", ".join(missing))
    args.python = builds.find_python(args.python)
    results = []
    with tempfile.TemporaryDirectory(prefix="frozen-") as top, driving.display() as screen:
        for name in args.packager or builds.PACKAGERS:
            for pynacl in (True, False):
                results.append(_case(Path(top), screen, name, args, pynacl=pynacl))
                print(json.dumps(results[-1]), flush=True)
    return int(any(said != "ok" for one in results for said in one["seen"].values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.frozen", description=__doc__)
    add = parser.add_argument
    add("--packager", action="append", choices=list(builds.PACKAGERS), help="default: all")
    add("--python", default="", metavar="X.Y", help="or a path; default: this one")
    add("--with", dest="parts", default="none", help="parts of the copy, as for vendor")
    return parser


def _case(
    top: Path, screen: str, name: str, args: argparse.Namespace, *, pynacl: bool
) -> dict[str, Any]:
    packager = builds.PACKAGERS[name]
    libraries = ("urllib3", "platformdirs", *(("pynacl",) if pynacl else ()))
    interpreter = builds.environment(top, args.python, packager, libraries)
    out = Path(tempfile.mkdtemp(prefix=name + "-", dir=top)) / "build"
    began = time.monotonic()
    recipe = builds.options(packager.recipe, pynacl=pynacl)
    program = builds.build(packager, interpreter, builds.product(top, args.parts), out, recipe)
    result = {"packager": name, "pynacl": pynacl, "build_s": round(time.monotonic() - began)}
    result.update(_size(packager, program))
    detached = "detached" in args.parts
    homes = out.with_name("homes")
    return {**result, **_drive(program, homes, screen, pynacl=pynacl, detached=detached)}


def _size(packager: builds.Packager, program: Path) -> dict[str, int]:
    found = program.parent.rglob("*") if "/" in packager.program else [program]
    sizes = [path.stat().st_size for path in found if path.is_file() and not path.is_symlink()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _drive(
    program: Path, homes: Path, screen: str, *, pynacl: bool, detached: bool
) -> dict[str, Any]:
    ed25519 = {"algorithm": "ed25519"}
    scenes: dict[str, tuple[Callable[[driving.Desk], None], dict[str, Any]]] = {
        "rsa": (driving.killed_and_started_again, {}),
        "rsa, wrong key": (driving.not_believed_with_a_wrong_key, {}),
        "ed25519": (driving.killed_and_started_again, ed25519),
    }
    if not pynacl:
        scenes["ed25519 not believed"] = (driving.not_believed, scenes.pop("ed25519")[1])
    if detached:
        # Late, and with what is loaded last, if a one-file program takes its files away.
        slow = {"answer_delay_s": 2.0, **(ed25519 if pynacl else {})}
        scenes["detached"] = (driving.delivered_after_the_end, slow)
    seen: dict[str, str] = {}
    said: dict[str, Any] = {}
    for number, (name, (scene, options)) in enumerate(scenes.items()):
        with Collector(**options) as collector:
            desk = driving.Desk(program, homes / str(number), screen, collector)
            said = said or driving.self_check(desk)
            try:
                scene(desk)
                seen[name] = "ok"
            except driving.Failed as error:
                seen[name] = str(error)
    return {"python": said["python"], "import_ms": said["import_ms"], "seen": seen}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
