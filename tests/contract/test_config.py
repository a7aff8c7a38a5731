"""A configuration that cannot work is refused at once, and a secret never shows."""

import copy
import itertools
import pathlib
import pickle
import sys
from typing import Any, Callable

import pytest
from support.endpoints import API_KEY, licence_server as getkeymanager, public_key

from agent.config import Config, GetKeyManager, Reo
from agent.errors import ConfigError, Missing

SECRET = "canary-secret-51c9"
NAMES = ("vendor", "product_name", "product_id", "product_version")


def reo(**changes: Any) -> Reo:
    return Reo(**{"api_key": API_KEY, **changes})


def config(**changes: Any) -> Config:
    return Config(**{**dict(zip(NAMES, ("Acme", "Studio", "42", "5.2.5"))), **changes})


MAKERS: list[Callable[..., Any]] = [config, getkeymanager, reo]


def refusal(make: Callable[..., Any], **changes: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    return caught.value


def test_a_missing_name_and_an_unknown_one_with_its_neighbour() -> None:
    for name in NAMES:
        assert refusal(Config, **dict.fromkeys(set(NAMES) - {name}, "x")).field == name
    right = ["product_version", "start_delay_s", "base_url", "api_key"]
    for make, wrong in zip(
        (config, config, *MAKERS[1:]), "product_versoin start_delay url apikey".split()
    ):
        error = refusal(make, **{wrong: SECRET})
        assert (
            error.field == wrong and repr(right.pop(0)) in str(error) and SECRET not in str(error)
        )


NO_LINES: list[Any] = [42, "", "  ", "a\nb", "a\0", "\ud800", "x" * 1025, b"x"]
NO_NUMBERS: list[Any] = [-0.1, float("nan"), float("inf"), "1", None, True, 10**400, 1j]
WRONG: list[tuple[list[Any], str, list[Any]]] = [
    *(([config], name, [None, *NO_LINES]) for name in NAMES),
    ([config], "identity_name", NO_LINES),
    ([config], "deliver", ["threads", "", None, 1, ["thread"]]),
    ([config], "durability", ["disk", None, True]),
    *(([config], name + "_s", NO_NUMBERS) for name in ("start_delay", "exit_timeout")),
    *(([config], name + "_s", [0, *NO_NUMBERS]) for name in ("request_timeout", "count_window")),
    ([config], "max_age_days", [0, *NO_NUMBERS]),
    ([config], "max_bytes", [4_095, 50_000.0, *NO_NUMBERS]),
    ([config], "max_records", [0, 2.0, *NO_NUMBERS]),
    ([config], "usage_consent", ["yes", 1, 0, ()]),
    *(([config], name, ["", 1, b"x", "a\0b"]) for name in ("state_dir", "ca_bundle")),
    ([config], "detached_command", ["program", [1], [""], ["a\0"], {"a"}, None]),
    ([config], "proxy", ["", 5, "proxy:8080", "ftp://p", "http://", "http://h:0", "http://h/p"]),
    ([config], "proxy_auth", ["", "user", ":password", 5, "u:p\n"]),
    ([config], "endpoints", [None, "x", [1], [Reo], {}]),
    ([reo], "source", ["telemetry", "", None]),
    ([reo], "ip_addr", ["1.2.3", "1.2.3.4.5", "::g", "fe80::1%eth0", "", 5, "1.2.3.4 "]),
    ([reo], "domain", ["", "a b", "https://reo.dev", "a@b.example", 5, b"x", "a" * 300]),
    ([reo], "environment", NO_LINES),
    ([getkeymanager], "keys", ["PEM", {"global": 1}, [1], 5, None, ("PEM",), public_key()]),
    ([getkeymanager], "allow_unsigned", [1, None, "yes"]),
    ([getkeymanager], "data_group", [None, *NO_LINES]),
    ([getkeymanager, reo], "product_id", NO_LINES),
    ([getkeymanager, reo], "name", [None, *NO_LINES]),
    ([getkeymanager, reo], "api_key", [None, " k", "k\u00e9y", "", "k\n", 42]),
]


@pytest.mark.parametrize(("makers", "field", "values"), WRONG)
def test_a_setting_out_of_its_range(makers: list[Any], field: str, values: list[Any]) -> None:
    for make, value in itertools.product(makers, values):
        error = refusal(make, **{field: value})
        assert error.field == field and str(error).startswith(field), value
        assert "allowed is" in str(error)


def test_two_endpoints_of_one_name() -> None:
    error = refusal(config, endpoints=[reo(), reo()], usage_consent=True)
    assert error.field == "endpoints" and "each of its own name" in str(error)
    both = config(endpoints=[reo(), reo(name="reo-eu")], usage_consent=True)
    assert [endpoint.name for endpoint in both.endpoints] == ["reo", "reo-eu"]


def test_usage_without_a_word_about_consent() -> None:
    error = refusal(config, endpoints=[reo()])
    assert error.field == "usage_consent" and "callable" in str(error)
    for consent in (True, False, None, lambda: True):
        assert config(endpoints=[reo()], usage_consent=consent).usage_consent is consent
    assert config(endpoints=[getkeymanager()], start_delay_s=0).usage_consent is None


# --- addresses ----------------------------------------------------------------------------------


def test_addresses_that_are_used() -> None:
    changed = {
        "https://keys.acme.example/": "https://keys.acme.example",
        "HTTPS://Keys.Acme.Example:8443/Prefix/": "https://keys.acme.example:8443/Prefix",
        "http://[::1]:9/": "http://[::1]:9",
    }
    same = "http://localhost:8080 http://127.0.0.1:1/a/b http://127.255.255.255 https://[2001:db8::1] https://h/%7Eu"
    for given, kept in [*changed.items(), *zip(same.split(), same.split())]:
        assert getkeymanager(base_url=given).base_url == reo(base_url=given).base_url == kept
    assert reo(ip_addr="::ffff:1.2.3.4").ip_addr == "::ffff:1.2.3.4"
    proxies = "direct http://proxy:8080 https://p/ http://u:p%40@[::1]:1 socks5://127.0.0.1:1080 socks5h://p"
    for address in proxies.split():
        assert config(proxy=address).proxy == address


@pytest.mark.parametrize(
    "address",
    (
        "keys.acme.example //keys.acme.example https:/h https:// https:///path ftp://h file:///etc/passwd"
        " https://h/?api_key=1 https://h/#top https://h? https://user:%s@h https://%s@h https://@h"
        " https://h:0 https://h:65536 https://h: https://h:8o https://h:١ https://h:1:2 https://h/a\\b"
        " https://h\\@evil.example https://h/../admin https://h/\u00e9 https://m\u00fcnchen.example"
        " https://.h https://h..x https://-h https://[::1 https://[::1]x https://[fe80::1%%25eth0]"
        " https://[127.0.0.1] https://[:] http://keys.acme.example http://127.0.0.1.evil.example"
        " http://127.1 http://0127.0.0.1 http://127.0.0.256 http://localhost.evil.example"
        " http://localhost@evil.example http://0x7f.0.0.1 http://[::2] http://0.0.0.0"
        % (SECRET, SECRET)
    ).split()
    + ["", "https ://h", "https://a b", "https://h/a b", "https://h/\r\nX-Evil: 1", "https://h\n"]
    + [" https://h", "https://" + "h" * 64, "https://" + "h." * 127],
)
def test_addresses_that_are_refused(address: str) -> None:
    for make in (getkeymanager, reo):
        error = refusal(make, base_url=address)
        assert error.field == "base_url" and SECRET not in str(error)


def test_an_address_as_the_documents_show_it_is_refused_with_the_right_one() -> None:
    """Else every record goes to a path that is not there."""
    for make, path in ((getkeymanager, "/api/v1/send-telemetry-data"), (reo, "/api/product/usage")):
        for end in (path, path.rpartition("/")[0], path.rpartition("/")[0] + "/"):
            for right in ("https://h.example", "https://h.example:8443/keys"):
                error = refusal(make, base_url=right + end)
                assert error.field == "base_url" and str(error).endswith("allowed is " + right)
        for other in ("https://h/api", "https://h/api/v10", "https://h/api/products"):
            assert make(base_url=other).base_url == other


# --- endpoints ----------------------------------------------------------------------------------


def test_a_licence_server_without_keys() -> None:
    error = refusal(getkeymanager, keys=())
    assert error.field == "keys"
    assert "PublicKey.from_pem" in str(error) and "allow_unsigned=True" in str(error)
    assert getkeymanager(keys=(), allow_unsigned=True).keys == ()


def test_keys_are_a_tuple_or_a_keyring_as_it_is() -> None:
    ring = type("Keyring", (), {"keys": (public_key(), public_key("next")), "trusted": None})()
    assert getkeymanager(keys=ring).keys is ring
    assert getkeymanager(keys=[public_key()]).keys == (public_key(),)


@pytest.mark.parametrize("name", ["detached", "domain", "keyring"])
def test_a_part_that_this_copy_lacks_is_named_when_the_configuration_is_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "agent.extras." + name, None)
    lacks = Missing(name, name)
    calls: dict[str, Callable[[], Any]] = {
        "detached": lambda: config(deliver="detached"),
        "domain": lambda: reo(domain=lacks),
        "keyring": lambda: getkeymanager(keys=lacks),
    }
    for make in (calls[name], lambda: lacks((), version=1)):
        with pytest.raises(ConfigError, match="vendor DEST --with " + name):
            make()


# --- values -------------------------------------------------------------------------------------


def every_value() -> list[Any]:
    targets = (getkeymanager(), reo(domain="acme.example"))
    proxy = "http://user:%s@proxy:1" % SECRET
    return [*targets, config(endpoints=targets, usage_consent=True, proxy=proxy, state_dir="/x")]


def test_a_secret_never_shows() -> None:
    text = repr(every_value())
    assert SECRET not in text and API_KEY not in text
    assert "api_key='****'" in text and "proxy='****'" in text


@pytest.mark.parametrize(
    "field", sorted({n for c in (Config, GetKeyManager, Reo) for n in c.fields})
)
def test_a_secret_in_the_wrong_field_is_in_no_exception(field: str) -> None:
    values: list[Any] = [SECRET, SECRET + "\n", [SECRET], {SECRET: 1}, ("x", SECRET, None)]
    values += ["https://h/?api_key=" + SECRET, "https://h/%s?" % SECRET, "https://u:%s@h" % SECRET]
    values += ["https://h#" + SECRET, "https://h/%s/.." % SECRET, SECRET + "://h"]
    values += ["https://h:" + SECRET, "http://%s h" % SECRET]
    for make, value in itertools.product(MAKERS, values):
        try:
            make(**{field: value})
        except ConfigError as error:
            assert SECRET not in repr(error) + str(error)


def test_a_refusal_says_what_came_as_far_as_it_is_no_secret() -> None:
    came = {"deliver": "threads", "start_delay_s": -1, "max_bytes": 1, "endpoints": {}}
    for (field, value), text in zip(came.items(), ("str", "-1", "1", "dict")):
        error = refusal(config, **{field: value})
        assert str(error).startswith("%s: got %s, allowed is " % (field, text))
    assert "7319" not in str(refusal(reo, api_key=73191234))


def test_values_do_not_change_and_are_what_their_fields_are() -> None:
    for value, again in zip(every_value(), every_value()):
        before = repr(value)
        for name in (*value.fields, "anything"):
            with pytest.raises(AttributeError):
                setattr(value, name, 1)
        with pytest.raises(AttributeError):
            del value.name
        assert repr(value) == before and value == again and value is not again
        for protocol in range(2, 6):
            assert pickle.loads(pickle.dumps(value, protocol)) == value
        assert copy.deepcopy(value) == copy.copy(value) == value
    for one, other in itertools.combinations(every_value(), 2):
        assert one != other
    assert config() != config(vendor="Bcme")


def test_a_mistake_is_pickled_with_its_field() -> None:
    error = refusal(config, max_bytes=1)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.field) == (ConfigError, str(error), "max_bytes")


def test_replace_checks_what_it_is_given() -> None:
    made = config(endpoints=[reo()], usage_consent=None)
    assert made.replace(vendor="Bcme").vendor == "Bcme" and made.vendor == "Acme"
    assert made.replace(usage_consent=True) == config(endpoints=[reo()], usage_consent=True)
    assert refusal(made.replace, max_bytes=-1).field == "max_bytes"
    assert refusal(made.replace, maxbytes=1).field == "maxbytes"


def test_paths_stay_where_they_were(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = config(state_dir="state", ca_bundle=pathlib.Path("ca.pem"))
    assert made.state_dir == str(tmp_path / "state") and made.ca_bundle == str(tmp_path / "ca.pem")
    assert config(state_dir=tmp_path).state_dir == str(tmp_path)


def test_a_socks_proxy_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    with pytest.raises(ConfigError, match="PySocks") as caught:
        config(proxy="socks5h://127.0.0.1:1080")
    assert caught.value.field == "proxy"
