"""A product in a process of its own: what it says, how it ends, and what a later run delivers of it."""

import json
import subprocess
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

from support.agent import Desk, child_environ, run_python

# argv: address, public key, state directory, settings as JSON; the rest is the product.
PRODUCT = """
import json, os, signal, sys, threading, time
import agent
url, pem, state_dir, settings = sys.argv[1:5]
config = agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=state_dir, endpoints=(
        agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=(agent.PublicKey.from_pem(pem),)),
        agent.Reo(base_url=url, api_key="demo-api-key", domain="acme.example")), **json.loads(settings))
t = agent.Agent(config, ("demo-license-key", "a"))
"""
# Until the worker has a request under way, so that what comes meets it there.
UNDER_WAY = """
deadline = time.monotonic() + 10
while not t._delivery.in_flight:
    assert time.monotonic() < deadline, t.status()["trouble"]
    time.sleep(0.001)
"""
# How long the end took is said by the very last that a process runs.
SAYS_HOW_LONG = """
class Last:
    def __del__(self, write=os.write, now=time.monotonic, began=time.monotonic()):
        write(1, b"%.3f" % (now() - began))
last = Last()
"""
# From 3.12 on a fork beside a thread warns, into the host.
FORKS = ("-W", "ignore::DeprecationWarning")


class Ended(NamedTuple):
    """What a product said, and its seconds."""

    out: str
    err: str
    took_s: float


def arguments(at: Desk, url: str = "", **settings: Any) -> list[str]:
    """What ``PRODUCT`` is given."""
    pem = at.collector.keys[0]["public_key"]
    return [url or at.collector.url, pem, str(at.state_dir), json.dumps(settings)]


def run(
    at: Desk,
    code: str,
    *,
    status: int = 0,
    url: str = "",
    options: tuple[str, ...] = (),
    product: str = PRODUCT,
    **settings: Any,
) -> Ended:
    """A product that ends with this status."""
    began = time.monotonic()
    found = run_python(product + code, *arguments(at, url, **settings), options=options)
    assert found.returncode == status, found.stderr
    return Ended(found.stdout, found.stderr, time.monotonic() - began)


def started(
    at: Desk, code: str, *, options: tuple[str, ...] = (), **settings: Any
) -> subprocess.Popen[str]:
    """A product that lives beside the test, with pipes for what it is told and says."""
    program = [sys.executable, *options, "-c", PRODUCT + code, *arguments(at, **settings)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(program, env=child_environ(), **pipes)


def quiet(at: Desk, code: str, **given: Any) -> float:
    """A product that ends without a word; its seconds."""
    out, err, took_s = run(at, code, **given)
    assert (out, err) == ("", "")
    return took_s


def says(at: Desk, code: str, **given: Any) -> Any:
    """What a product prints, in JSON, and nothing else."""
    out, err, _ = run(at, code, **given)
    assert err == ""
    return json.loads(out)


def arrived(at: Desk, *texts: str, sums: Any = None) -> None:
    """A later run delivers all that waits, and each of these texts has come once, with these sums."""
    at.collector.fault(None)
    with at.agent() as product:
        report = product.flush(timeout=30)
        assert (report.pending, report.dead, product.status()["damaged"]) == (0, 0, 0)
    assert Counter(at.texts()) == Counter(texts)
    if sums is not None:
        assert at.sums() == sums
