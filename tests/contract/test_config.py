"""A configuration that cannot work is refused at once, and a secret never shows."""

from __future__ import annotations

import copy
import itertools
import pathlib
import pickle
import subprocess
import sys
from typing import Any, Callable

import pytest
from support.endpoints import API_KEY, public_key

from agent.config import Config, GetKeyManager, Reo
from agent.errors import ConfigError

SECRET = "canary-secret-51c9"


def getkeymanager(**changes: Any) -> GetKeyManager:
    fields: dict[str, Any] = {
        "base_url": "https://keys.acme.example",
        "api_key": API_KEY,
        "keys": (public_key(),),
    }
    return GetKeyManager(**{**fields, **changes})


def reo(**changes: Any) -> Reo:
    return Reo(**{"api_key": API_KEY, **changes})


def config(**changes: Any) -> Config:
    fields: dict[str, Any] = {
        "vendor": "Acme",
        "product_name": "Studio",
        "product_id": "42",
        "product_version": "5.2.5",
    }
    return Config(**{**fields, **changes})


MAKERS: dict[str, Callable[..., Any]] = {
    "Config": config,
    "GetKeyManager": getkeymanager,
    "Reo": reo,
}


def refusal(make: Callable[..., Any], **changes: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    return caught.value


def test_the_defaults_are_those_of_the_contract() -> None:
    made = config()
    assert (made.endpoints, made.usage_consent, made.state_dir) == ((), None, None)
    assert (made.identity_name, made.deliver, made.detached_command) == (None, "thread", ())
    assert (made.durability, made.start_delay_s, made.exit_timeout_s) == ("power", 1.0, 0.25)
    assert (made.request_timeout_s, made.count_window_s, made.max_age_days) == (10.0, 3600, 90)
    assert (made.max_bytes, made.max_records) == (10_000_000, 10_000)
    assert (made.proxy, made.ca_bundle) == (None, None)
    licence = getkeymanager()
    assert (licence.data_group, licence.product_id) == ("call-home", None)
    assert (licence.name, licence.allow_unsigned) == ("getkeymanager", False)
    usage = reo()
    assert (usage.base_url, usage.name) == ("https://ingest.reo.dev", "reo")
    assert (usage.product_id, usage.environment, usage.domain, usage.ip_addr) == (None,) * 4


@pytest.mark.parametrize("name", ["vendor", "product_name", "product_id", "product_version"])
@pytest.mark.parametrize("value", [None, 42, "", "  ", "a\nb", "a\0", "\ud800", "x" * 1025, b"x"])
def test_a_name_that_is_no_line_of_text(name: str, value: Any) -> None:
    error = refusal(config, **{name: value})
    assert error.field == name and name in str(error) and "allowed" in str(error)


@pytest.mark.parametrize("name", ["vendor", "product_name", "product_id", "product_version"])
def test_a_missing_name(name: str) -> None:
    fields = {name: getattr(config(), name) for name in Config.__slots__[:4]}
    del fields[name]
    assert refusal(Config, **fields).field == name


@pytest.mark.parametrize(
    ("make", "wrong", "right"),
    [
        ("Config", "product_versoin", "product_version"),
        ("Config", "start_delay", "start_delay_s"),
        ("Config", "license_key", "detached_command|vendor|max_age_days|usage_consent|state_dir"),
        ("GetKeyManager", "key", "keys"),
        ("GetKeyManager", "url", "base_url"),
        ("Reo", "apikey", "api_key"),
    ],
)
def test_an_unknown_name_and_its_neighbour(make: str, wrong: str, right: str) -> None:
    error = refusal(MAKERS[make], **{wrong: SECRET})
    assert error.field == wrong and repr(wrong) in str(error)
    assert any(repr(name) in str(error) for name in right.split("|"))
    assert SECRET not in str(error)


def test_a_positional_argument() -> None:
    with pytest.raises(ConfigError, match="keyword"):
        Config("Acme")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("deliver", ["threads", "", None, 1, ["thread"]]),
        ("durability", ["disk", None, True]),
        ("start_delay_s", [-1, float("nan"), float("inf"), "1", None, True, 10**400, 1e12, 1j]),
        ("exit_timeout_s", [-0.1, float("-inf"), False]),
        ("request_timeout_s", [0, -1, float("nan"), "10"]),
        ("count_window_s", [0, -5, None]),
        ("max_age_days", [0, -1, float("nan"), True]),
        ("max_bytes", [0, 1, 4_095, -1, 50_000.0, "50000", True, None]),
        ("max_records", [0, -1, 2.0, False, 10**400]),
        ("usage_consent", ["yes", 1, 0, ()]),
        ("state_dir", ["", 1, b"x", "a\0b"]),
        ("ca_bundle", ["", 1, "a\0b"]),
        ("identity_name", ["", 5, "\n"]),
        ("detached_command", ["program", [1], [""], ["a\0"], {"a"}, None]),
        (
            "proxy",
            [
                "",
                5,
                "proxy:8080",
                "ftp://proxy",
                "http://",
                "http://h:0",
                "http://h/p",
                "http://h?q",
            ],
        ),
        ("endpoints", [None, "x", [1], [Reo], {}]),
    ],
)
def test_a_setting_out_of_its_range(field: str, values: list[Any]) -> None:
    for value in values:
        error = refusal(config, **{field: value})
        assert error.field == field and str(error).startswith(field), value


def test_a_quota_too_small_for_any_record_says_how_large_it_must_be() -> None:
    error = refusal(config, max_bytes=1)
    assert str(error).startswith("max_bytes: got 1, allowed is an int >= 4096, at most ")
    assert "max_records: got 0, allowed is an int >= 1," in str(refusal(config, max_records=0))


@pytest.mark.parametrize("field", ["start_delay_s", "exit_timeout_s"])
def test_no_wait_at_all_is_allowed(field: str) -> None:
    assert getattr(config(**{field: 0}), field) == 0


def test_two_endpoints_of_one_name() -> None:
    error = refusal(config, endpoints=[reo(), reo()], usage_consent=True)
    assert error.field == "endpoints" and "'reo'" in str(error)
    both = config(endpoints=[reo(), reo(name="reo-eu")], usage_consent=True)
    assert [endpoint.name for endpoint in both.endpoints] == ["reo", "reo-eu"]


def test_usage_without_a_word_about_consent() -> None:
    error = refusal(config, endpoints=[reo()])
    assert error.field == "usage_consent" and "callable" in str(error)
    for consent in (True, False, None, lambda: True):
        assert config(endpoints=[reo()], usage_consent=consent).usage_consent is consent
    assert config(endpoints=[getkeymanager()]).usage_consent is None


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://keys.acme.example", "https://keys.acme.example"),
        ("https://keys.acme.example/", "https://keys.acme.example"),
        ("HTTPS://Keys.Acme.Example:8443/Prefix/", "https://keys.acme.example:8443/Prefix"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:1/a/b", "http://127.0.0.1:1/a/b"),
        ("http://127.255.255.255", "http://127.255.255.255"),
        ("http://[::1]:9/", "http://[::1]:9"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("https://h/%7Euser", "https://h/%7Euser"),
    ],
)
def test_addresses_that_are_used(given: str, kept: str) -> None:
    for make in (getkeymanager, reo):
        assert make(base_url=given).base_url == kept


@pytest.mark.parametrize(
    "address",
    [
        "",
        "keys.acme.example",
        "//keys.acme.example",
        "https:/keys.acme.example",
        "https://",
        "https:///path",
        "ftp://keys.acme.example",
        "file:///etc/passwd",
        "https ://h",
        "https://h/?api_key=1",
        "https://h/#top",
        "https://h?",
        "https://user:%s@h" % SECRET,
        "https://%s@h" % SECRET,
        "https://@h",
        "https://h:0",
        "https://h:65536",
        "https://h:",
        "https://h:8o",
        "https://h:١",
        "https://h:1:2",
        "https://a b",
        "https://h/a b",
        "https://h/a\\b",
        "https://h\\@evil.example",
        "https://h/../admin",
        "https://h/\r\nX-Evil: 1",
        "https://h\n",
        " https://h",
        "https://h/\u00e9",
        "https://m\u00fcnchen.example",
        "https://.h",
        "https://h..x",
        "https://-h",
        "https://" + "h" * 64,
        "https://" + "h." * 127,
        "https://[::1",
        "https://[::1]x",
        "https://[fe80::1%25eth0]",
        "https://[127.0.0.1]",
        "https://[:]",
        "http://keys.acme.example",
        "http://127.0.0.1.evil.example",
        "http://127.1",
        "http://0127.0.0.1",
        "http://127.0.0.01",
        "http://127.0.0.256",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://0x7f.0.0.1",
        "http://2130706433",
        "http://[::2]",
        "http://[::ffff:127.0.0.1]",
        "http://0.0.0.0",
    ],
)
def test_addresses_that_are_refused(address: str) -> None:
    for make in (getkeymanager, reo):
        error = refusal(make, base_url=address)
        assert error.field == "base_url" and SECRET not in str(error)


@pytest.mark.parametrize(
    "address",
    [
        "http://proxy:8080",
        "https://proxy.acme.example/",
        "http://user:p%40ss@10.0.0.1:3128",
        "socks5://127.0.0.1:1080",
        "socks5h://proxy",
        "http://[::1]:8080",
    ],
)
def test_proxies_that_are_used(address: str) -> None:
    assert config(proxy=address).proxy == address


@pytest.mark.parametrize("value", ["1.2.3", "1.2.3.4.5", "::g", "fe80::1%eth0", "", 5, "1.2.3.4 "])
def test_an_ip_addr_that_is_none(value: Any) -> None:
    assert refusal(reo, ip_addr=value).field == "ip_addr"


@pytest.mark.parametrize("value", ["156.59.87.83", "2001:db8::1", "::ffff:1.2.3.4", None])
def test_an_ip_addr(value: Any) -> None:
    assert reo(ip_addr=value).ip_addr == value


@pytest.mark.parametrize("value", ["", "a b", "https://reo.dev", "a@b.example", 5, b"x", "a" * 300])
def test_a_domain_that_is_none(value: Any) -> None:
    assert refusal(reo, domain=value).field == "domain"


# --- endpoints ----------------------------------------------------------------------------------


def test_a_licence_server_without_keys() -> None:
    error = refusal(getkeymanager, keys=())
    assert error.field == "keys"
    assert "PublicKey.from_pem" in str(error) and "allow_unsigned=True" in str(error)
    assert getkeymanager(keys=(), allow_unsigned=True).keys == ()


@pytest.mark.parametrize("keys", ["PEM", b"PEM", {"global": 1}, [1], 5, None, ("PEM",)])
def test_keys_that_are_none(keys: Any) -> None:
    assert refusal(getkeymanager, keys=keys).field == "keys"


def test_one_key_instead_of_a_tuple() -> None:
    assert refusal(getkeymanager, keys=public_key()).field == "keys"


def test_a_keyring() -> None:
    class Keyring:
        keys = iter([public_key(), public_key("next")])

    found: Any = getkeymanager(keys=Keyring()).keys
    assert [key.name for key in found] == ["global", "next"]
    assert getkeymanager(keys=[public_key()]).keys == (public_key(),)


@pytest.mark.parametrize(
    "value", ["", " ", None, 5, "a\r\nX: 1", "a\0", " key", "k\u00e9y", "x" * 1025]
)
def test_an_api_key_that_breaks_a_header(value: Any) -> None:
    for make in (getkeymanager, reo):
        error = refusal(make, api_key=value)
        assert error.field == "api_key"
        assert not (isinstance(value, str) and len(value) > 2 and value in str(error))


@pytest.mark.parametrize("value", ["", "a b", "a/b", "\u00e9", "x" * 65, None, 5])
def test_an_endpoint_name_that_is_no_slug(value: Any) -> None:
    for make in (getkeymanager, reo):
        assert refusal(make, name=value).field == "name"


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_allow_unsigned_is_true_or_false(value: Any) -> None:
    assert refusal(getkeymanager, allow_unsigned=value).field == "allow_unsigned"


# --- values -------------------------------------------------------------------------------------


def every_value() -> list[Any]:
    targets = (getkeymanager(), reo(domain="acme.example"))
    proxy = "http://user:%s@proxy:1" % SECRET
    return [*targets, config(endpoints=targets, usage_consent=True, proxy=proxy, state_dir="/x")]


def test_a_secret_never_shows() -> None:
    text = repr(every_value())
    assert SECRET not in text and API_KEY not in text
    assert "api_key='****'" in text and "http://****@proxy:1" in text


def test_the_repr_shows_what_is_configured() -> None:
    def ask() -> bool:
        return True

    text = repr(config(endpoints=[reo(domain=ask)], usage_consent=ask))
    assert "vendor='Acme'" in text and "start_delay_s=1.0" in text
    assert text.count("ask>") == 2 and " at 0x" not in text


@pytest.mark.parametrize(
    "field", sorted({n for c in (Config, GetKeyManager, Reo) for n in c.__slots__})
)
def test_a_secret_in_the_wrong_field_is_in_no_exception(field: str) -> None:
    values: list[Any] = [SECRET, SECRET + "\n", [SECRET], {SECRET: 1}, ("x", SECRET, None)]
    values += ["https://h/?api_key=" + SECRET, "https://h/%s?" % SECRET, "https://u:%s@h" % SECRET]
    values += ["https://h#" + SECRET, "https://h/%s/.." % SECRET, SECRET + "://h"]
    values += ["https://h:" + SECRET, "http://%s h" % SECRET]
    for make, value in itertools.product(MAKERS.values(), values):
        try:
            make(**{field: value})
        except ConfigError as error:
            if field not in ("deliver", "durability"):  # closed sets: whatever came is shown
                assert SECRET not in repr(error) + str(error)


def test_a_number_that_is_an_api_key_is_in_no_exception() -> None:
    assert "7319" not in str(refusal(reo, api_key=73191234))


@pytest.mark.parametrize(
    ("make", "field", "value", "came"),
    [
        ("Config", "deliver", "threads", "'threads'"),
        ("Config", "start_delay_s", -1, "-1"),
        ("Config", "max_records", 1.5, "1.5"),
        ("Config", "vendor", None, "None"),
        ("Config", "vendor", "a\nb", "str of 3 characters"),
        ("Config", "endpoints", {}, "dict"),
        ("Config", "proxy", "socks5://h/p", "'socks5://h…'"),
        ("Config", "proxy", "proxy:8080", "str of 10 characters"),
        ("GetKeyManager", "base_url", "http://keys.acme.example", "'http://keys.acme.example'"),
        (
            "GetKeyManager",
            "base_url",
            "http://keys.acme.example:80/p",
            "'http://keys.acme.example…'",
        ),
        ("GetKeyManager", "base_url", "https://h/?q", "str of 12 characters"),
        ("GetKeyManager", "name", "a b", "str of 3 characters"),
        ("GetKeyManager", "keys", "PEM", "str of 3 characters"),
        ("Reo", "ip_addr", "1.2.3", "str of 5 characters"),
    ],
)
def test_a_refusal_says_what_came_as_far_as_it_is_no_secret(
    make: str, field: str, value: Any, came: str
) -> None:
    error = refusal(MAKERS[make], **{field: value})
    assert str(error).startswith("%s: got %s, allowed is " % (field, came))


def test_values_do_not_change() -> None:
    for value in every_value():
        before = repr(value)
        for name in (*value.__slots__, "anything"):
            with pytest.raises(AttributeError):
                setattr(value, name, 1)
        with pytest.raises(AttributeError):
            del value.name
        assert repr(value) == before and not hasattr(value, "__dict__")


def test_values_are_compared_by_their_fields() -> None:
    for one, other in zip(every_value(), every_value()):
        assert one == other and hash(one) == hash(other) and one is not other
    for one, other in itertools.combinations(every_value(), 2):
        assert one != other
    assert config() != config(vendor="Bcme")


def test_values_are_pickled_and_copied() -> None:
    for value, protocol in itertools.product(every_value(), range(2, 6)):
        assert pickle.loads(pickle.dumps(value, protocol)) == value
        assert copy.deepcopy(value) == copy.copy(value) == value


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


def test_a_str_of_another_class_is_kept_as_a_str() -> None:
    class Text(str):
        def __str__(self) -> str:
            raise RuntimeError

    made = config(vendor=Text("Acme"), endpoints=[reo(api_key=Text(API_KEY))], usage_consent=True)
    assert type(made.vendor) is str and type(made.endpoints[0].api_key) is str


def test_making_a_configuration_loads_nothing() -> None:
    program = (
        "import sys, os\n"
        "from agent import config\n"
        "before = set(sys.modules)\n"
        "config.Config(vendor='A', product_name='B', product_id='C', product_version='D',\n"
        "    proxy='http://u:p@h:1', state_dir='/x', usage_consent=True, endpoints=(\n"
        "    config.GetKeyManager(base_url='http://127.0.0.1:1', api_key='k', allow_unsigned=True),\n"
        "    config.Reo(api_key='k', domain='d', ip_addr='1.2.3.4')))\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("", "")
