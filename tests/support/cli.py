"""Running the command line: in this process for speed, in another where the process itself is what matters."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from support.agent import ROOT, child_environ, run_python
from support.endpoints import ACME
from support.scripted import YES, Scripted, response

from agent import Agent, Config, __version__, cli
from agent.cli import config_file
from agent.collector import Collector

API_KEY = "canary-api-key-7f3a"
LICENSE_KEY = "canary-licence-91c2"
PEM = Collector().keys[0]["public_key"]
COMMANDS = """\
demo|id|call-home|track|count|record|preview|history|spool|spool status|spool list|spool show|spool replay|\
spool export|spool import|spool purge|verify|keys|keys new|keys sign|keys inspect|keys check|\
collector|doctor|vendor|erase""".split("|")


class Result(NamedTuple):
    """What one command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The value on stdout, which holds nothing else."""
        return json.loads(self.out)


def run(*argv: str, config: Config | None = None) -> Result:
    """One command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(argv, config=config)
    return Result(status, out.getvalue(), err.getvalue())


def command(*argv: str, package: str = "agent") -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", package, *argv]


def spawn(*argv: str, cwd: Path = ROOT, env: dict[str, str] | None = None, **more: Any) -> Result:
    """One command in a process of its own, as a user types it."""
    done = subprocess.run(
        command(*argv, **more),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=40,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def collector(**given: Any) -> Collector:
    """A collector that knows the canaries."""
    return Collector(api_keys=(API_KEY,), license_keys=(LICENSE_KEY,), **given)


def installed(site: Path, *without: str) -> None:
    """This package and its libraries, as they come by pip, but for some files of ours."""
    libraries = map(importlib.metadata.distribution, ("urllib3", "platformdirs"))
    for path in [path for library in libraries for path in library.files or ()]:
        if path.parts[0] != ".." and path.suffix != ".pyc":
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(path.locate()), site / path)
    info = "callhome_agent-%s.dist-info/" % __version__
    files = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "agent").rglob("*.py")}
    files.update(
        {"agent/py.typed": ROOT / "agent" / "py.typed", info + "LICENSE": ROOT / "LICENSE"}
    )
    (site / info).mkdir()
    (site / info / "METADATA").write_text("Name: callhome-agent\nVersion: %s\n" % __version__)
    with open(site / info / "RECORD", "w") as record:
        for place in sorted({*files} - {info + name for name in without}):
            (site / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(files[place], site / place)
            digest = urlsafe_b64encode(sha256(files[place].read_bytes()).digest()).decode()
            record.write("%s,sha256=%s,\n" % (place, digest.rstrip("=")))


def vendored(site: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """What ``vendor`` of what is installed there does, and nothing else is."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from agent.cli import main\n"
    env = {**child_environ(), "PYTHONPATH": ""}
    code += "raise SystemExit(main(['vendor', *sys.argv[1:]]))"
    return run_python(code, str(site), *argv, options=("-S",), env=env, cwd=site)


def on_terminal(columns: int, act: Callable[[TextIO], Any]) -> tuple[Any, str]:
    """(what ``act`` gives, what it wrote to a terminal of so many columns)."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while more := os.read(ours, 65536):
                seen.append(more)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with open(theirs, "w", encoding="utf-8") as stream:
            found = act(stream)
    finally:
        reader.join(20)
        os.close(ours)
    return found, b"".join(seen).decode().replace("\r\n", "\n")


class Site:
    """A configuration file for a collector, and commands that use it."""

    def __init__(self, server: Collector, place: Path) -> None:
        self.server, self.place = server, place
        self.state = place / "state"
        self.write()

    def document(self, **changes: Any) -> dict[str, Any]:
        keys = [{"name": key["name"], "pem": key["public_key"]} for key in self.server.keys]
        address = {"base_url": self.server.url, "api_key": API_KEY}
        base = {
            **ACME,
            "usage_consent": True,
            "state_dir": str(self.state),
            "license_key": LICENSE_KEY,
            "activation_identifier": "desk-1",
            "endpoints": [
                {"kind": "getkeymanager", "keys": keys, **address},
                {"kind": "reo", "domain": "acme.example", **address},
            ],
        }
        return {**base, **changes}

    def write(self, **changes: Any) -> str:
        """Write the file anew; its path."""
        self.file = str(self.place / "agent.json")
        Path(self.file).write_text(json.dumps(self.document(**changes)))
        return self.file

    def unsigned(self) -> None:
        """From now on answers of the licence server need no signature."""
        licence, usage = self.document()["endpoints"]
        self.write(endpoints=[{**licence, "keys": [], "allow_unsigned": True}, usage])

    def dead_letter(self) -> str:
        """The id of a licence record that the server refused twice, while it took others."""
        self.unsigned()
        config = config_file.load(self.file).replace(deliver="manual", usage_consent=False)
        no = response(422, {"response": {"code": 422, "message": "Choosy."}})
        chooses: Any = Scripted(lambda text: no if text == "dead" else YES["licence"])
        with Agent(config, transport=chooses) as product:
            id = product.record_text("dead", data_group="g")
            for _ in range(3):
                product.record_text("alive", data_group="g")
                product.flush()
            assert id and product.status()["dead"] == 1
        return id

    def run(self, *argv: str) -> Result:
        return run(*argv, "--config", self.file)

    def answers(self, endpoint: str) -> Sequence[int]:
        return [r["answer"] for r in self.server.records() if r["endpoint"] == endpoint]

    def fields(self, endpoint: str) -> list[dict[str, Any]]:
        """What the records of an endpoint said, in the order in which they came."""
        return [r["fields"] for r in self.server.records() if r["endpoint"] == endpoint]
