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


def post(url: str, form: Optional[dict[str, str]] = None) -> urllib3.BaseHTTPResponse:
    body = urlencode(form or licence_form())
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request("POST", url + LICENCE, body=body, headers=FORM_TYPE)


@pytest.mark.parametrize(
    ("algorithm", "number"), [("rsa", signal.SIGTERM), ("ed25519", signal.SIGINT)]
)
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
        with urllib3.PoolManager(retries=False) as pool:
            pool.request("POST", url + "/_collector/fault", body='{"fault": null}')
        assert post(url).status == 200


def test_what_it_knows_can_be_given() -> None:
    given = {"api_keys": ("k1",), "license_keys": ("l1",), "products": {"7": ("1.0",)}}
    with serving(as_json=True, **given) as child:
        assert child.stdout is not None
        url = json.loads(child.stdout.readline())["url"]
        assert post(url).status == 401
        form = licence_form(api_key="k1", license_key="l1", product_id="7", product_version="1.0")
        assert json.loads(post(url, form).data)["response"]["code"] == 830


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
