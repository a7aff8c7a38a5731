"""The peers: what is installed of each, what its users import, and how it records one event.

Each lives in a virtual environment of its own below ``.bench/peers``, made on demand from PyPI. What cannot be
installed is left out, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .measure import HERE

INSTALL_LIMIT_S = 240.0


class Peer(NamedTuple):
    """``code`` is what a user imports; ``record`` records one event at 127.0.0.1:PORT and leaves the rest to exit."""

    code: str = ""
    record: str = ""
    packages: tuple[str, ...] = ()  # where they are not named as the peer


PEERS = {
    "reo-census": Peer(
        "import reo_census",
        'logger = reo_census.ReoEventLogger("http://127.0.0.1:%d/data" % port)\n'
        'logger.log_event({"event": "event"})',
    ),
    "licensing": Peer("from licensing.models import *; from licensing.methods import Key, Helpers"),
    "scarf-sdk": Peer("from scarf import ScarfEventLogger"),
    "sentry-sdk": Peer(
        "import sentry_sdk",
        'sentry_sdk.init("http://key@127.0.0.1:%d/1" % port)\nsentry_sdk.capture_message("event")',
    ),
    "snowplow-tracker": Peer(
        "from snowplow_tracker import Tracker, Emitter, StructuredEvent",
        'emitter = Emitter("127.0.0.1", protocol="http", port=port, batch_size=1)\n'
        'Tracker("bench", emitter).track(StructuredEvent("category", "action"))',
    ),
    "mixpanel": Peer(
        "import mixpanel",
        'url = "http://127.0.0.1:%d/track" % port\n'
        'mixpanel.Mixpanel("token", mixpanel.Consumer(events_url=url)).track("user", "event")',
    ),
    "posthog": Peer(
        "from posthog import Posthog",
        'client = Posthog("key", host="http://127.0.0.1:%d" % port)\n'
        'client.capture("event", distinct_id="user")',
    ),
    "segment-analytics-python": Peer(
        "import segment.analytics as analytics",
        'analytics.write_key, analytics.host = "key", "http://127.0.0.1:%d" % port\n'
        'analytics.track("user", "event")',
    ),
    "licensespring": Peer("import licensespring.api, licensespring.licensefile"),
    "glean-sdk": Peer("from glean import Glean, Configuration"),
    "azure-monitor-opentelemetry-exporter": Peer(
        "from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter"
    ),
    "spools": Peer(packages=("persist-queue", "litequeue", "diskcache")),
}


def libraries(directory: Path) -> Path:
    """The site-packages of a virtual environment."""
    if sys.platform == "win32":
        return directory / "Lib" / "site-packages"
    return directory / "lib" / ("python%d.%d" % sys.version_info[:2]) / "site-packages"


def install(say: Callable[[str], None]) -> tuple[dict[str, Path], dict[str, str]]:
    """(name: its site-packages, name: why it is not there)."""
    with ThreadPoolExecutor(2) as pool:
        reasons = dict(zip(PEERS, pool.map(lambda name: _install(name, say), PEERS)))
    found = {name: libraries(HERE / "peers" / name) for name, why in reasons.items() if not why}
    return found, {name: why for name, why in reasons.items() if why}


def _install(name: str, say: Callable[[str], None]) -> str:
    directory = HERE / "peers" / name
    if libraries(directory).is_dir() and (directory / "complete").exists():
        return ""
    say("installing %s" % name)
    python = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    packages = PEERS[name].packages or (name,)
    for command in ([sys.executable, "-m", "venv", str(directory)], [*pip, *packages]):
        try:
            more = {"capture_output": True, "text": True, "timeout": INSTALL_LIMIT_S}
            done = subprocess.run(command, check=False, **more)  # type: ignore[call-overload]
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["exit status %d" % done.returncode])[-1]
    (directory / "complete").touch()
    return ""
