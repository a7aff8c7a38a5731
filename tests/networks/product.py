"""The product: a real ``agent.Agent``, in this process or, run as a program, at the other end of a pipe.

Both take the same settings, JSON-ready, and the same three calls: ``record``, ``flush``, ``look``.
"""

import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from campaign.processes import Beside
from support.agent import config

import agent

LICENCE, USAGE = "getkeymanager", "reo"


class Product:
    """One run of the product that delivers only when it is told to."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        environ: Optional[Mapping[str, str]] = None,
        clock: Any = None,
    ) -> None:
        self._usage = settings["usage"]
        api_key, *licence = settings["secrets"]
        keys = tuple(agent.PublicKey.from_pem(pem) for pem in settings["keys"])
        given = {"api_key": api_key, "only": None if self._usage else "licence"}
        found = config(settings["url"], keys, **given, **settings["config"])
        self._agent = agent.Agent(found, tuple(licence), environ=environ)

    def record(self, *texts: str) -> None:
        """On disk when it returns."""
        for text in texts:
            assert self._agent.record_text(text, data_group="networks")
            if self._usage:
                assert self._agent.track("NETWORKS", meta={"text": text})

    def flush(self, timeout_s: float) -> dict[str, Any]:
        """One delivery: the seconds it took, its report, and the reasons that ``status()`` then shows."""
        began = time.perf_counter()
        report = self._agent.flush(timeout=timeout_s)
        took_s = time.perf_counter() - began
        reasons = {one["name"]: one["reason"] for one in self._agent.status()["endpoints"]}
        return {"seconds": took_s, "reasons": reasons, **report.to_json()}

    def look(self) -> dict[str, Any]:
        """Everything that anybody is shown."""
        return {
            "status": self._agent.status(),
            "preview": self._agent.preview(samples=True),
            "history": self._agent.history(),
            "diagnostics": self._agent.diagnostics(),
        }

    def close(self) -> None:
        """Within the time that an exit may take."""
        self._agent.close()


class Distant(Beside):
    """The same in a process of its own, started by ``command`` with ``environ`` as its environment."""

    def __init__(
        self,
        command: Sequence[str],
        settings: Mapping[str, Any],
        environ: Mapping[str, str],
        log: Any,
    ) -> None:
        words = (*command, sys.executable, "-B", "-X", "utf8", __file__)
        super().__init__(*words, stderr=log, env=dict(environ))
        self._call("begin", settings)

    def _call(self, *words: Any) -> Any:
        return self.ask(json.dumps(words))

    def __getattr__(self, call: str) -> Any:
        return functools.partial(self._call, call)

    close = Beside.end


def main() -> None:
    """Answer what comes in by the line, until there is no more."""
    product: Any = None
    for line in sys.stdin:
        call, *arguments = json.loads(line)
        if call == "begin":
            product, value = Product(*arguments), None
        else:
            value = getattr(product, call)(*arguments)
        print(json.dumps(value, default=str), flush=True)
    if product is not None:
        product.close()


if __name__ == "__main__":
    main()
