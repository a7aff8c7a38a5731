"""A configuration file: every mistake is found where it is, by the path of its field."""

import json
import pathlib
import sys
from typing import Any

import pytest
from support.cli import API_KEY, PEM
from support.endpoints import ACME

from agent.cli import config_file
from agent.config import Config, GetKeyManager, Reo
from agent.errors import ConfigError
from agent.extras.domain import dns_domain
from agent.signatures.keys import PublicKey


def licence(**changes: Any) -> dict[str, Any]:
    base = {"kind": "getkeymanager", "base_url": "https://keys.acme.example", "api_key": API_KEY}
    return {**base, "keys": [{"name": "global", "pem": PEM}], **changes}


def document(**changes: Any) -> dict[str, Any]:
    endpoints = [licence(), {"kind": "reo", "api_key": API_KEY, "domain": "acme.example"}]
    return {**PRODUCT, "endpoints": endpoints, **changes}


PRODUCT: dict[str, Any] = {**ACME, "usage_consent": True, "start_delay_s": 0}
EXPECTED = Config(
    **PRODUCT,
    endpoints=(
        GetKeyManager(
            base_url="https://keys.acme.example",
            api_key=API_KEY,
            keys=(PublicKey.from_pem(PEM, name="global"),),
        ),
        Reo(api_key=API_KEY, domain="acme.example"),
    ),
)


def test_a_json_file_with_a_key_in_a_file_beside_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "etc"
    place.mkdir()
    (place / "global.pem").write_text(PEM)
    keys = [{"pem_file": "global.pem"}]
    text = json.dumps(document(endpoints=[licence(keys=keys), document()["endpoints"][1]]))
    (place / "agent.json").write_text(text, "utf-8-sig")  # as an editor on Windows does
    monkeypatch.chdir(tmp_path)
    assert config_file.load("etc/agent.json") == EXPECTED == config_file.from_mapping(document())


def test_a_toml_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        'vendor = "Acme"\nproduct_name = "Studio"\nproduct_id = "42"\nproduct_version = "5.2.5"\n'
        "usage_consent = true\nstart_delay_s = 0\n"
        '[[endpoints]]\nkind = "getkeymanager"\nbase_url = "https://keys.acme.example"\n'
        f'api_key = "{API_KEY}"\n[[endpoints.keys]]\nname = "global"\npem = """{PEM}"""\n'
        f'[[endpoints]]\nkind = "reo"\napi_key = "{API_KEY}"\ndomain = "acme.example"\n'
    )
    if sys.version_info >= (3, 11):
        assert config_file.load(path) == EXPECTED
    else:
        with pytest.raises(ConfigError, match="3.11"):
            config_file.load(path)


def test_a_file_names_the_dns_domain_of_the_machine_without_reporting_that_word() -> None:
    for written in ("dns_domain", "agent.dns_domain"):
        reo = {"kind": "reo", "api_key": API_KEY, "domain": written}
        (made,) = config_file.from_mapping(document(endpoints=[reo])).endpoints
        assert isinstance(made, Reo) and made.domain is dns_domain
