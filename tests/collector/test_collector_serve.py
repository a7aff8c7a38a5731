"""The collector as a program of its own: one line for scripts, some for people, and a clean end."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.agent import ROOT
from support.collector import Reply, post_licence, set_fault, verified
from support.systems import posix

from agent import Agent, ConfigError
from agent.cli.config_file import load_with_licence
from agent.collector import serve


@contextlib.contextmanager
def serving(**arguments: object) -> Iterator[Any]:
    program = "from agent.collector import serve; raise SystemExit(serve(**%r))" % (arguments,)
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def post(url: str, **form: str) -> Reply:
    return post_licence(SimpleNamespace(url=url), **form)


@posix  # there whoever is ended says no more
def test_a_script_reads_one_line_and_ends_it_with_a_signal() -> None:
    with serving(as_json=True) as child:
        hello = json.loads(child.stdout.readline())
        assert list(hello) == ["url", "pid", "keys"] and hello["pid"] == child.pid
        envelope = post(hello["url"]).json
        assert verified(envelope, hello["keys"][0])["code"] == 830
        child.send_signal(signal.SIGTERM)
        assert (child.stdout.read(), child.stderr.read(), child.wait(20)) == ("", "", 0)


@posix  # there whoever is ended says no more
def test_what_it_knows_and_does_can_be_given() -> None:
    given = {"api_keys": ("k1",), "license_keys": ("l1",), "products": {"7": ("1.0",)}}
    with serving(as_json=True, algorithm="ed25519", fault="refuse", **given) as child:
        hello = json.loads(child.stdout.readline())
        url = hello["url"]
        with pytest.raises(ConnectionError):
            post(url)
        set_fault(SimpleNamespace(url=url), fault=None)  # refusing can still be switched off
        assert post(url).status == 401
        form = {"license_key": "l1", "product_id": "7", "product_version": "1.0"}
        envelope = post(url, api_key="k1", **form).json
        assert verified(envelope, hello["keys"][0])["code"] == 830
        child.send_signal(signal.SIGINT)
        assert (child.stdout.read(), child.stderr.read(), child.wait(20)) == ("", "", 0)


@posix  # there whoever is ended says no more
def test_the_configuration_that_it_writes_delivers_and_is_never_written_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "product.json"
    with serving(as_json=True, write_config=str(path)) as child:
        child.stdout.readline()
        config, key, activation = load_with_licence(path)
        config = config.replace(state_dir=tmp_path, deliver="manual")
        with Agent(config, key, activation) as product:
            assert product.call_home() and product.flush().delivered == 2
    with pytest.raises(ConfigError, match="write-config.*exists"):
        serve(write_config=str(path))


@posix  # there whoever is ended says no more
def test_a_person_reads_how_to_use_it() -> None:
    with serving() as child:
        lines = list(iter(lambda: child.stdout.readline().rstrip(), "-----END PUBLIC KEY-----"))
        text, url = "\n".join(lines), lines[0].split()[2]
        shown = ("/_collector/records", "--json '{\"fault\": null}'", "demo-api-key", "42 (5.2.5)")
        assert not [part for part in shown if part not in text]
        assert post(url).status == 200
        assert child.stderr.readline() == "getkeymanager 200\n"
        child.send_signal(signal.SIGTERM)
        assert (child.stderr.read(), child.wait(20)) == ("", 0)
