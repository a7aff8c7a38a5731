"""All of Studio that knows the agent: what it is told, and what the user decides about it.

Studio has two files: ``settings.json``, which it writes, and ``server.json``, which says where to call home and whom to
believe. A real product has the latter in its code.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, Dict

before = perf_counter()
from ._vendor import telemetry  # noqa: E402

Agent, Config = telemetry.Agent, telemetry.Config
IMPORT_MS = (perf_counter() - before) * 1000

HOME = Path(os.environ.get("STUDIO_HOME") or Path.home() / ".acme-studio")


def settings() -> Dict[str, Any]:
    """What the user decided: ``licence``, ``usage``."""
    return _read("settings.json")


def save(**changes: object) -> None:
    """Change some settings."""
    HOME.mkdir(parents=True, exist_ok=True)
    new = HOME / "settings.json.new"
    new.write_text(json.dumps({**settings(), **changes}, indent=2), "utf-8")
    new.replace(HOME / "settings.json")


def _read(name: str) -> Dict[str, Any]:
    try:
        content = json.loads((HOME / name).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def start() -> Agent:
    """The start-up hook: on disk when this returns, sent in the background."""
    agent = Agent(_config(), license_key=tuple(settings().get("licence") or ()) or None)
    agent.call_home()
    return agent


def _config() -> Config:
    server = _read("server.json")
    program = os.path.abspath(sys.argv[0] if "__compiled__" in globals() else sys.executable)
    frozen = getattr(sys, "frozen", False) or "__compiled__" in globals()
    return Config(
        vendor="Acme",
        product_name="Studio",
        product_id="42",
        product_version="5.2.5",
        endpoints=_endpoints(server) if server else (),
        usage_consent=settings().get("usage"),
        deliver=server.get("deliver", "thread"),
        detached_command=[program, "--deliver"] if frozen else (),
    )


def _endpoints(server: Dict[str, Any]) -> Any:
    keys = tuple(telemetry.PublicKey.from_pem(key["public_key"]) for key in server["keys"])
    address = {"base_url": server["url"], "api_key": "demo-api-key"}
    licences = telemetry.GetKeyManager(keys=keys, **address)
    return licences, telemetry.Reo(domain=server.get("domain"), **address)


def self_check() -> Dict[str, Any]:
    """What a build is made of, to be looked at before it is shipped."""
    with Agent(_config()) as agent:
        return {"import_ms": round(IMPORT_MS, 1), **agent.diagnostics()}
