"""The peers: what is installed of each, what its users import, and how it records one event.

Each lives in a virtual environment of its own below ``.bench/peers``, made on demand from PyPI. What cannot be
installed is left out, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .measure import HERE

INSTALL_LIMIT_S = 240.0


@dataclass(frozen=True)
class Peer:
    """``code`` is what a user imports; ``record`` records one event at 127.0.0.1:PORT and leaves the rest to exit."""

    packages: tuple[str, ...]
    code: str = ""
    record: str = ""


PEERS: Mapping[str, Peer] = {
    "reo-census": Peer(
        ("reo-census",),
        "import reo_census",
        'logger = reo_census.ReoEventLogger("http://127.0.0.1:%d/data" % port)\n'
        'logger.log_event({"event": "event"})',
    ),
    "licensing": Peer(
        ("licensing",),
        "from licensing.models import *; from licensing.methods import Key, Helpers",
    ),
    "scarf-sdk": Peer(("scarf-sdk",), "from scarf import ScarfEventLogger"),
    "sentry-sdk": Peer(
        ("sentry-sdk",),
        "import sentry_sdk",
        'sentry_sdk.init("http://key@127.0.0.1:%d/1" % port)\nsentry_sdk.capture_message("event")',
    ),
    "snowplow-tracker": Peer(
        ("snowplow-tracker",),
        "from snowplow_tracker import Tracker, Emitter, StructuredEvent",
        'emitter = Emitter("127.0.0.1", protocol="http", port=port, batch_size=1)\n'
        'Tracker("bench", emitter).track(StructuredEvent("category", "action"))',
    ),
    "mixpanel": Peer(
        ("mixpanel",),
        "import mixpanel",
        'url = "http://127.0.0.1:%d/track" % port\n'
        'mixpanel.Mixpanel("token", mixpanel.Consumer(events_url=url)).track("user", "event")',
    ),
    "posthog": Peer(
        ("posthog",),
        "from posthog import Posthog",
        'client = Posthog("key", host="http://127.0.0.1:%d" % port)\n'
        'client.capture("event", distinct_id="user")',
    ),
    "segment-analytics-python": Peer(
        ("segment-analytics-python",),
        "import segment.analytics as analytics",
        'analytics.write_key, analytics.host = "key", "http://127.0.0.1:%d" % port\n'
        'analytics.track("user", "event")',
    ),
    "licensespring": Peer(
        ("licensespring",), "import licensespring.api, licensespring.licensefile"
    ),
    "glean-sdk": Peer(("glean-sdk",), "from glean import Glean, Configuration"),
    "azure-monitor-opentelemetry-exporter": Peer(
        ("azure-monitor-opentelemetry-exporter",),
        "from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter",
    ),
    "spools": Peer(("persist-queue", "litequeue", "diskcache")),
    "plots": Peer(("matplotlib",)),  # for the bench itself
}


def libraries(directory: Path) -> Path:
    """The site-packages of a virtual environment."""
    if sys.platform == "win32":
        return directory / "Lib" / "site-packages"
    return directory / "lib" / ("python%d.%d" % sys.version_info[:2]) / "site-packages"


def install(
    say: Callable[[str], None], names: Sequence[str] = tuple(PEERS)[:-1]
) -> tuple[dict[str, Path], dict[str, str]]:
    """(name: its site-packages, name: why it is not there)."""
    found, missing = {}, {}
    with ThreadPoolExecutor(2) as pool:
        for name, why in zip(names, pool.map(lambda name: _install(name, say), names)):
            if why:
                missing[name] = why
            else:
                found[name] = libraries(HERE / "peers" / name)
    return found, missing


def _install(name: str, say: Callable[[str], None]) -> str:
    directory = HERE / "peers" / name
    if libraries(directory).is_dir() and (directory / "complete").exists():
        return ""
    say("installing %s" % name)
    python = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [[sys.executable, "-m", "venv", str(directory)], [*pip, *PEERS[name].packages]]
    for command in commands:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["exit status %d" % done.returncode])[-1]
    (directory / "complete").touch()
    return ""
