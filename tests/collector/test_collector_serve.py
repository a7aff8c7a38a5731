"""The collector as a program of its own: one line for scripts, some for people, and a clean end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3
from support.collector import FORM_TYPE, LICENCE, licence_form, verified
from support.systems import posix

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(**arguments: object) -> Iterator[Any]:
    program = "from agent.collector import serve; raise SystemExit(serve(**%r))" % (arguments,)
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def post(url: str, **form: str) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False) as pool:
        body = urlencode(licence_form(**form))
        return pool.request("POST", url + LICENCE, body=body, headers=FORM_TYPE)


@posix  # there whoever is ended says no more
def test_a_script_reads_one_line_and_ends_it_with_a_signal() -> None:
    with serving(as_json=True) as child:
        hello = json.loads(child.stdout.readline())
        assert list(hello) == ["url", "pid", "keys"] and hello["pid"] == child.pid
        envelope = json.loads(post(hello["url"]).data)
        assert verified(envelope, hello["keys"][0])["code"] == 830
        child.send_signal(signal.SIGTERM)
        assert (child.stdout.read(), child.stderr.read(), child.wait(20)) == ("", "", 0)


@posix  # there whoever is ended says no more
def test_what_it_knows_and_does_can_be_given() -> None:
    given = {"api_keys": ("k1",), "license_keys": ("l1",), "products": {"7": ("1.0",)}}
    with serving(as_json=True, algorithm="ed25519", fault="refuse", **given) as child:
        hello = json.loads(child.stdout.readline())
        url = hello["url"]
        with pytest.raises(urllib3.exceptions.ProtocolError):
            post(url)
        with urllib3.PoolManager(retries=False) as pool:  # refusing can still be switched off
            off: Any = {"headers": {"Content-Type": "application/json"}, "body": '{"fault": null}'}
            pool.request("POST", url + "/_collector/fault", **off)
        assert post(url).status == 401
        form = {"license_key": "l1", "product_id": "7", "product_version": "1.0"}
        envelope = json.loads(post(url, api_key="k1", **form).data)
        assert verified(envelope, hello["keys"][0])["code"] == 830
        child.send_signal(signal.SIGINT)
        assert (child.stdout.read(), child.stderr.read(), child.wait(20)) == ("", "", 0)


@posix  # there whoever is ended says no more
def test_a_person_reads_how_to_use_it() -> None:
    with serving() as child:
        lines = list(iter(lambda: child.stdout.readline().rstrip(), "-----END PUBLIC KEY-----"))
        text, url = "\n".join(lines), lines[0].split()[2]
        for part in (
            "/_collector/records",
            "--json '{\"fault\": null}'",
            "demo-api-key",
            "42 (5.2.5)",
        ):
            assert part in text
        assert post(url).status == 200
        assert child.stderr.readline() == "getkeymanager 200\n"
        child.send_signal(signal.SIGTERM)
        assert (child.stderr.read(), child.wait(20)) == ("", 0)
