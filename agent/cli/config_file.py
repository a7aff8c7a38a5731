"""The settings from a JSON or TOML file, for the command line: the names of ``Config``, spelled out.

Endpoints are tables with a ``kind``, keys are tables with a ``name`` and either ``pem`` or ``pem_file``; the licence
may stand beside them. A mistake raises ``ConfigError`` with the dotted path of its field. Products do not load this
module; what each setting means is written in ``config``.
"""

from __future__ import annotations

import os

from ..config import Config, GetKeyManager, Reo, unknown_name
from ..errors import ConfigError, mistake, part
from ..signatures.keys import PublicKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Union

    from ..extras.keyring import Keyring

    Path = Union[str, os.PathLike[str]]

_KINDS: dict[str, type[GetKeyManager] | type[Reo]] = {"getkeymanager": GetKeyManager, "reo": Reo}
_FILE_MAX_BYTES = 1 << 20
# A product has its licence from elsewhere; the command line has only this file.
_LICENCE = ("license_key", "activation_identifier")
# TOML has no null.
_NOT_ASKED = "not-asked"
_NOT_GIVEN = object()
# The one callable of ours that a product may pass as domain, in whatever copy; no domain ends like that.
_DNS_DOMAIN = "dns_domain"
_CONSENT = 'true, false or null (not asked yet; in TOML "not-asked")'
_NO_KEYS = (
    'none given, so no answer of this server could be proven; add "keys": [{"name": "global", '
    '"pem_file": "global.pem"}] with the public key of your GetKeyManager account, or '
    '"allow_unsigned": true to believe any answer'
)
# How Python's values are written in a file.
_WORDS = (
    ("a callable that gives one, or None", '"dns_domain" (this machine\'s own) or null'),
    ("None", "null"),
    ("True", "true"),
    ("False", "false"),
    (", or os.PathLike", ""),
    ("tuple", "list"),
    ("str", "text"),
    ("an int ", "a whole number "),
)


def load(path: Path) -> Config:
    """The configuration in the file ``path``; TOML if its name ends so, else JSON."""
    return load_with_licence(path)[0]


def load_with_licence(path: Path) -> tuple[Config, str, str]:
    """(configuration, licence key, activation identifier) of a file, "" for what it does not hold."""
    name = os.fspath(path)
    text = _read(name, "")
    document = _toml(text) if name.lower().endswith(".toml") else _json(text)
    licence = ["", ""]
    if isinstance(document, dict):
        for place, field in enumerate(_LICENCE):
            value = document.pop(field, "")
            if not isinstance(value, str):
                raise _wrong(field, value, "a text")
            licence[place] = value
    config = from_mapping(document, base_dir=os.path.dirname(os.path.abspath(name)))
    return config, licence[0], licence[1]


def from_mapping(document: Any, *, base_dir: str = "") -> Config:
    """The configuration in plain data; a ``pem_file`` is looked up from ``base_dir``."""
    table = _table(document, "", Config.fields)
    found = table.get("endpoints", [])
    if not isinstance(found, (list, tuple)):
        raise mistake("endpoints", found, "a list of tables with a kind")
    places = [("endpoints[%d]" % index, value) for index, value in enumerate(found)]
    table["endpoints"] = [_endpoint(value, place, base_dir) for place, value in places]
    if table.get("usage_consent") == _NOT_ASKED:
        table["usage_consent"] = None
    try:
        return Config(**table)
    except ConfigError as error:
        if error.field != "usage_consent":
            raise _at("", error) from None
        came = table.get("usage_consent", _NOT_GIVEN)
        if came is _NOT_GIVEN:
            message = (
                'usage_consent is missing: for a usage endpoint add "usage_consent": ' + _CONSENT
            )
        else:
            message = str(_wrong("usage_consent", came, _CONSENT))
        raise ConfigError(message, "usage_consent") from None


def _endpoint(value: Any, place: str, base_dir: str) -> GetKeyManager | Reo:
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or kind not in _KINDS:
        came = kind if isinstance(value, dict) else value
        raise _at(place, mistake("kind", came, " or ".join(map(repr, _KINDS))))
    made = _KINDS[kind]
    table = _table(value, place, ("kind", *made.fields))
    del table["kind"]
    if made is GetKeyManager and "keys" in table:
        table["keys"] = _keys(table["keys"], place + ".keys", base_dir)
    if str(table.get("domain", "")).rpartition(".")[2] == _DNS_DOMAIN:
        table["domain"] = part("domain", "domain").dns_domain
    try:
        return made(**table)
    except ConfigError as error:
        if error.field == "keys" and not table.get("keys"):
            raise ConfigError("%s.keys: %s" % (place, _NO_KEYS), place + ".keys") from None
        raise _at(place, error) from None


def _keys(value: Any, place: str, base_dir: str) -> tuple[PublicKey, ...] | Keyring:
    """A list of keys, or the table of a keyring: its path is looked up from ``base_dir`` too."""
    if not isinstance(value, dict):
        return _key_list(value, place, base_dir)
    made = part("keyring", "keys").Keyring
    table = _table(value, place, made.__slots__)
    for name in ("keys", "roots"):
        if name in table:
            table[name] = _key_list(table[name], "%s.%s" % (place, name), base_dir)
    if isinstance(table.get("document"), str):
        table["document"] = os.path.join(base_dir, table["document"])
    try:
        found: Keyring = made(**{"keys": (), **table})
        return found
    except ConfigError as error:
        raise _at(place, error) from None


def _key_list(value: Any, place: str, base_dir: str) -> tuple[PublicKey, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(place, value, "a list of tables with name and pem or pem_file")
    places = [("%s[%d]" % (place, index), key) for index, key in enumerate(value)]
    return tuple(_key(key, where, base_dir) for where, key in places)


def _key(value: Any, place: str, base_dir: str) -> PublicKey:
    table = _table(value, place, ("name", "pem", "pem_file"))
    if ("pem" in table) == ("pem_file" in table):
        raise ConfigError("%s: needs either pem or pem_file" % place, place)
    pem = table.get("pem", "")
    if "pem_file" in table:
        field, name = place + ".pem_file", table["pem_file"]
        if not isinstance(name, str):
            raise mistake(field, name, "a path")
        pem = _read(os.path.join(base_dir, name), field)
    return public_key(pem, table.get("name", "global"), place)


def public_key(pem: Union[str, bytes], name: Any, place: str) -> PublicKey:
    """The key in a PEM text that came from a file; raises ``ConfigError``, the field named ``place``."""
    try:
        return PublicKey.from_pem(pem, name=name)
    except ConfigError as error:
        text = pem if isinstance(pem, str) else pem.decode("ascii", "replace")
        reason = str(error)
        for owner in ("keys: ", "%s: " % name):
            reason = reason[len(owner) :] if reason.startswith(owner) else reason
        begins = text.count("-----BEGIN ")
        if begins == 0:
            reason = "holds no PEM public key (-----BEGIN PUBLIC KEY-----)"
        elif begins > 1:
            reason = "holds more than one PEM block"
        elif type(name) is str and "name" not in reason:
            reason = "holds no usable public key: " + reason
        raise ConfigError("%s: %s" % (place, reason), place) from None


def _at(place: str, error: ConfigError) -> ConfigError:
    """The same mistake, its field found by its path in the file, what is allowed in the file's words."""
    path = ".".join(filter(None, (place, error.field)))
    owner, colon, rest = str(error).partition(": ")
    if colon and owner == error.field:
        message = "%s: %s" % (path, rest)
    elif colon and owner in ("Config", "GetKeyManager", "Reo", place):
        message = "%s: %s" % (place, rest) if place else rest
    else:
        message = "%s: %s" % (place, error) if place else str(error)
    said, allowed, words = message.partition(", allowed is ")
    for python, file in _WORDS:
        words = words.replace(python, file)
    return ConfigError(said + allowed + words, path)


def _wrong(field: str, value: object, allowed: str) -> ConfigError:
    """Names only the type of what came: it may be a secret, or long."""
    return ConfigError("%s: got %s, allowed is %s" % (field, type(value).__name__, allowed), field)


def _table(value: Any, place: str, allowed: Iterable[str]) -> dict[str, Any]:
    """A copy of a table of these names."""
    if not isinstance(value, dict):
        raise mistake(place or "the file", value, "a table")
    for name in value:
        if name not in allowed:
            near = [*allowed, *(other for other in _LICENCE if not place and other != name)]
            raise _at(place, unknown_name(place or "Config", str(name), near))
    return dict(value)


def _read(path: str, field: str) -> str:
    place = field and field + ": "
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError("%s%s cannot be read: %s" % (place, path, reason), field) from None
    if len(data) > _FILE_MAX_BYTES:
        raise ConfigError("%s%s is larger than %d bytes" % (place, path, _FILE_MAX_BYTES), field)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("%s%s is not UTF-8" % (place, path), field) from None


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the file is not JSON: %s" % error) from None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one table")
    return found


def _toml(text: str) -> Any:
    from importlib import import_module

    try:
        tomllib: Any = import_module("tomllib")
    except ImportError:
        raise ConfigError("TOML needs Python 3.11 or newer; write JSON") from None
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ConfigError("the file is not TOML: %s" % error) from None
