"""The collector as a program of its own: one line for scripts, some for people, and a clean end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional
from urllib.parse import urlencode

import pytest
import urllib3
from support.collector import FORM_TYPE, LICENCE, licence_form, verified

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def serving(**arguments: object) -> Iterator[subprocess.Popen[str]]:
    program = "from agent.collector import serve; raise SystemExit(serve(**%r))" % (arguments,)
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with child:
            try:
                yield child
            finally:
                child.kill()
    finally:
        child.wait()


def post(url: str) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request(
            "POST", url + LICENCE, body=urlencode(licence_form()), headers=FORM_TYPE
        )


def control(method: str, url: str, body: Optional[str] = None) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request(
            method, url + "/_collector/" + ("fault" if body else "records"), body=body
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
def test_a_script_reads_one_line_and_ends_it_with_a_signal(
    algorithm: str, number: signal.Signals
) -> None:
    with serving(as_json=True, algorithm=algorithm) as child:
        assert child.stdout is not None and child.stderr is not None
        hello = json.loads(child.stdout.readline())
        assert list(hello) == ["url", "pid", "keys"]
        assert hello["pid"] == child.pid
        envelope = json.loads(post(hello["url"]).data)
        assert verified(envelope, hello["keys"][0])["code"] == 830
        child.send_signal(number)
        assert (child.stdout.read(), child.stderr.read(), child.wait(20)) == ("", "", 0)


def test_refusing_from_the_start_can_still_be_switched_off() -> None:
    with serving(as_json=True, fault="refuse") as child:
        assert child.stdout is not None
        url = json.loads(child.stdout.readline())["url"]
        with pytest.raises(urllib3.exceptions.ProtocolError):
            post(url)
        assert control("POST", url, '{"fault": null}').status == 200
        assert post(url).status == 200
        assert len(json.loads(control("GET", url).data)) == 1


def test_what_it_knows_can_be_given() -> None:
    given = {"api_keys": ("k1",), "license_keys": ("l1",), "products": {"7": ("1.0",)}}
    with serving(as_json=True, **given) as child:
        assert child.stdout is not None
        url = json.loads(child.stdout.readline())["url"]
        assert post(url).status == 401
        form = licence_form(api_key="k1", license_key="l1", product_id="7", product_version="1.0")
        with urllib3.PoolManager() as pool:
            reply = pool.request("POST", url + LICENCE, body=urlencode(form), headers=FORM_TYPE)
        assert json.loads(reply.data)["response"]["code"] == 830


def test_a_person_reads_how_to_use_it() -> None:
    with serving() as child:
        assert child.stdout is not None and child.stderr is not None
        out = child.stdout
        lines = list(iter(lambda: out.readline().rstrip(), "-----END PUBLIC KEY-----"))
        text = "\n".join(lines)
        url = lines[0].split()[2]
        for part in ("/_collector/records", "-d '{\"fault\": null}'", "demo-api-key", "42 (5.2.5)"):
            assert part in text
        assert post(url).status == 200
        assert child.stderr.readline() == "getkeymanager 200\n"
        child.send_signal(signal.SIGTERM)
        assert (child.stderr.read(), child.wait(20)) == ("", 0)
