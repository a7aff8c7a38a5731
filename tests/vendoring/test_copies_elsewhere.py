"""A copy made by the real command, in the places where products keep it and under the switches they start with.

Every product here runs in a process of its own, sends to the collector, and must not say a word.
"""

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.agent import child_environ, run_python
from support.cli import run

from agent.collector import Collector

# argv: where the product lies, "" if that is known; address, public key, state directory.
PRODUCT = """
import json, sys
place, url, pem, state_dir = sys.argv[1:5]
if place:
    sys.path.insert(0, place)


def product(copy, **settings):
    keys = (copy.PublicKey.from_pem(pem),)
    config = copy.Config(
        vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
        usage_consent=True, state_dir=state_dir, start_delay_s=0, **settings, endpoints=(
            copy.GetKeyManager(base_url=url, api_key="demo-api-key", keys=keys),
            copy.Reo(base_url=url, api_key="demo-api-key", domain="acme.example")))
    return copy.Agent(config, ("demo-license-key", "a"))


def expect(found, wanted):
    if found != wanted:
        raise SystemExit("%r is not %r" % (found, wanted))
"""
ONE = """
from product._vendor import telemetry_agent
expect(telemetry_agent.__doc__ is None, sys.flags.optimize == 2)
with product(telemetry_agent) as telemetry:
    for event in (telemetry.call_home(), telemetry.track("EXPORT")):
        expect(isinstance(event, str), True)
    telemetry.count("RENDER")
    report = telemetry.flush(20)
expect((report.delivered, report.drained), (4, True))
expect([name for name in sys.modules if name.partition(".")[0] == "agent"], [])
"""
ALONE = """
import product._vendor.telemetry_agent._vendor.platformdirs.__main__  # imports its own package by name
expect({"urllib3", "platformdirs"} & set(sys.modules), set())
"""
TWO = """
import product._vendor.telemetry_agent as old
import product._vendor.later_agent as new
expect((old.__version__, new.__version__), ("0.1.0", "9.9.9"))
with product(old, deliver="manual") as first, product(new, deliver="manual") as second:
    expect(first.user_identifier, second.user_identifier)
    for n in range(3):
        expect(None in (first.record_text("old%d" % n, data_group="g"),
                        second.record_text("new%d" % n, data_group="g")), False)
        first.count("RENDER"); second.count("RENDER")
    expect(second.flush(20).delivered >= 6, True)  # what both recorded
    for copy in (first, second):
        copy.record_text("last", data_group="g")
    expect(first.flush(20).drained, True)
    expect(second.flush(20).pending, 0)
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


def vendor(top: Path, name: str = "telemetry_agent", *options: str) -> Path:
    """A product with a copy in it."""
    dest = top / "product" / "_vendor" / name
    done = run("vendor", *options, str(dest))
    assert done.status == 0, done.err
    for package in (dest.parent, dest.parent.parent):
        (package / "__init__.py").write_text("")
    return dest


def records(collector: Collector, endpoint: str) -> list[dict[str, Any]]:
    return [r["fields"] for r in collector.records() if r["endpoint"] == endpoint]


def started(collector: Collector, state: Path, program: str, place: object, *options: str) -> None:
    """Run a product; it must end well and print nothing."""
    arguments = [str(place), collector.url, collector.keys[0]["public_key"], str(state)]
    env = {**child_environ(), "PYTHONPATH": ""}
    del env["PYTHONDONTWRITEBYTECODE"]
    done = run_python(program, *arguments, options=options, env=env, cwd=state.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def delivered_once(collector: Collector) -> None:
    """Of ``ONE``: each of its records came once, proven."""
    assert [r["text_data"] for r in records(collector, "getkeymanager")] == ["CALL HOME"]
    usage = sorted(r["activity_type"] for r in records(collector, "reo-usage"))
    assert usage == ["CALL HOME", "EXPORT"]
    assert [r["count"] for r in records(collector, "reo-aggregate")] == [1]
    collector.clear()


@pytest.mark.parametrize("options", [("-W", "error", "-X", "dev"), ("-I", "-OO")], ids="".join)
@pytest.mark.parametrize("name", ["product", "Prográmme für 日本 & co"])
def test_a_copy_in_a_folder(
    collector: Collector, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    place = tmp_path / name
    vendor(place, "telemetry_agent", *(() if name == "product" else ("--with", "cli")))
    started(collector, place / "stäte", PRODUCT + ONE, place, *options)
    delivered_once(collector)
    assert list(place.rglob("*.pyc"))


def test_a_copy_that_cannot_be_written_to(collector: Collector, tmp_path: Path) -> None:
    vendor(tmp_path / "top")
    everything = [tmp_path / "top", *(tmp_path / "top").rglob("*")]
    for path in everything:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        started(collector, tmp_path / "state", PRODUCT + ONE, tmp_path / "top")
        written = {*(tmp_path / "top").rglob("*")} - {*everything}
        # Root writes everywhere, but only the interpreter does.
        assert not [path for path in written if "__pycache__" not in path.parts]
    finally:
        for path in everything:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    delivered_once(collector)


def test_a_zip_with_its_libraries_needs_nothing_but_python(
    collector: Collector, tmp_path: Path
) -> None:
    vendor(tmp_path / "top", "telemetry_agent", "--with", "deps")
    archive = tmp_path / "product.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted((tmp_path / "top").rglob("*")):
            target.write(path, path.relative_to(tmp_path / "top").as_posix())
    bare = ("-I", "-S", "-W", "error")
    started(collector, tmp_path / "state", PRODUCT + ONE, archive, *bare)
    delivered_once(collector)


def test_libraries_that_come_along_serve_this_copy_alone(
    collector: Collector, tmp_path: Path
) -> None:
    if version("platformdirs").startswith("2."):
        pytest.skip("this platformdirs imports itself by a name in a string")
    vendor(tmp_path, "telemetry_agent", "--with", "deps")
    started(collector, tmp_path / "state", PRODUCT + ONE + ALONE, tmp_path, "-W", "error")
    delivered_once(collector)


def test_two_versions_in_one_process_share_a_state_directory(
    collector: Collector, tmp_path: Path
) -> None:
    vendor(tmp_path)
    later = vendor(tmp_path, "later_agent")
    path = later / "__init__.py"
    text = path.read_text("utf-8")
    assert text.count('"0.1.0"') == 1
    path.write_text(text.replace('"0.1.0"', '"9.9.9"'), "utf-8")
    checked = run("vendor", "--check", "--json", str(later))
    assert json.loads(checked.out)["edited"] == ["__init__.py"]
    started(collector, tmp_path / "state", PRODUCT + TWO, tmp_path, "-W", "error")
    texts = sorted(r["text_data"] for r in records(collector, "getkeymanager"))
    assert texts == sorted(["old0", "old1", "old2", "new0", "new1", "new2", "last", "last"])
    assert sum(r["count"] for r in records(collector, "reo-aggregate")) == 6
    assert not [name for name in os.listdir(tmp_path / "state") if name.endswith(".tmp")]
    collector.clear()
