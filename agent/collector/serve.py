"""The collector as a program: says on one line where it listens, then serves until it is interrupted.

``--json`` output is for scripts, exactly one line; otherwise a few lines for a person, and one more for every request
on standard error. Parsing a command line is ``cli``'s.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Iterable, Mapping, Optional, TextIO

from ..errors import ConfigError
from .getkeymanager import ApiKeys, Products
from .server import API_KEYS, LICENSE_KEYS, PRODUCTS, Collector

_HELP = """\
Collector on {url} (process {pid}), signing with {algorithm}; Ctrl-C stops it.
The address is the base_url of GetKeyManager and of Reo alike. It knows
  API key {api_keys}, product {products},
  licence key {license_keys} with any activation identifier.
  curl {url}/_collector/records
  curl -X DELETE {url}/_collector/records
  curl {url}/_collector/requests
  curl --json '{{"fault": "500", "count": 3}}' {url}/_collector/fault
  curl --json '{{"fault": null}}' {url}/_collector/fault
Its test keys are published and protect nothing. Trust for a test:
{public_key}"""


def serve(
    *,
    port: int = 0,
    algorithm: str = "rsa",
    fault: Optional[str] = None,
    api_keys: ApiKeys = API_KEYS,
    license_keys: Iterable[str] = LICENSE_KEYS,
    products: Products = PRODUCTS,
    as_json: bool = False,
    write_config: Optional[str] = None,
    out: Optional[TextIO] = None,
    interrupted: int = 0,
) -> int:
    """Serve until SIGINT, then give ``interrupted``, or until SIGTERM, then give 0; on the main thread only.

    Raises ``ConfigError`` for what cannot be, ``OSError`` where the port is taken. A ``fault`` that refuses resets
    connections, so that the control API can still switch it off. ``write_config`` is where a new file goes: the
    configuration of a product that reports here.
    """
    out = sys.stdout if out is None else out
    license_keys = tuple(license_keys)
    api_keys = api_keys if isinstance(api_keys, Mapping) else tuple(api_keys)
    collector = Collector(
        port=port,
        algorithm=algorithm,
        api_keys=api_keys,
        license_keys=license_keys,
        products=products,
        log=None if as_json else _log,
    )
    if fault is not None:
        collector.fault(fault, keep_port=True)
    ended_by: list[int] = []

    def end(number: int, frame: object) -> None:
        ended_by.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:  # SIGINT too: a shell starts its background jobs with it ignored
            signal.signal(number, end)
        with collector:
            hello = {"url": collector.url, "pid": os.getpid(), "keys": collector.keys}
            if write_config is not None:
                _write(write_config, collector, api_keys, license_keys, products)
            if as_json:
                text = json.dumps(hello)
            else:
                text = _HELP.format(
                    url=collector.url,
                    pid=os.getpid(),
                    algorithm=collector.keys[0]["algorithm"],
                    api_keys=_names(api_keys),
                    license_keys=_names(license_keys),
                    products=_names(
                        "%s (%s)" % (name, _names(versions)) for name, versions in products.items()
                    ),
                    public_key=collector.keys[0]["public_key"].rstrip(),
                )
            print(text, file=out, flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return interrupted if ended_by[:1] == [signal.SIGINT] else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _write(
    path: str,
    collector: Collector,
    api_keys: ApiKeys,
    license_keys: Iterable[str],
    products: Products,
) -> None:
    keys = [{"name": key["name"], "pem": key["public_key"]} for key in collector.keys]
    at = {"base_url": collector.url, "api_key": next(iter(api_keys), "none")}
    id, versions = next(iter(products.items()), ("none", ()))
    config = {
        "vendor": "Acme",
        "product_name": "Studio on a test collector",
        "product_id": id,
        "product_version": next(iter(versions), "none"),
        "usage_consent": True,
        "license_key": next(iter(license_keys), ""),
        "activation_identifier": "12135644",
        "endpoints": [
            {"kind": "getkeymanager", "keys": keys, **at},
            {"kind": "reo", "domain": "acme.example", **at},
        ],
    }
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(config, file, indent=2)
    except OSError as error:
        message = "--write-config: %s cannot be made: %s" % (path, error.strerror or error)
        raise ConfigError(message, "write_config") from None


def _names(values: Iterable[str]) -> str:
    return ", ".join(values) or "none"


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
