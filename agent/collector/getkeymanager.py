"""GetKeyManager's licence telemetry as the vendor documents it: fields in, flags, errors and a code out.

Whatever a caller with a good API key sends is stored: 830 when all of it is right, else 831 with red flags and
the ``errors`` in the vendor's own wording. Pure; signing, storing and faults are decided above.
"""

from __future__ import annotations

import email
import email.policy
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union
from urllib.parse import parse_qsl

from ..errors import ConfigError
from .answers import Received

PATH = "/api/v1/send-telemetry-data"

SAVED = "Correct format data saved"
SAVED_WITH_ERRORS = "Incorrect format data saved"
# HTTP status and message of the codes that refuse a caller, as published.
REFUSALS = {
    100: (401, "Invalid API Key"),
    101: (401, "Inactive API Key"),
    102: (
        401,
        "The used API key doesn't have the required capability to access this endpoint",
    ),
    103: (401, "API key can't be used from this IP address"),
    150: (403, "Access denied"),
}
DATA_TYPES = {
    "numeric-single-value": ("numeric_data_single_value",),
    "numeric-xy-axis": ("numeric_data_x", "numeric_data_y"),
    "text": ("text_data",),
}
# The order of the published example of code 831; the data fields stand behind data_type.
_IDENTITY = (
    "product_id",
    "user_identifier",
    "license_key",
    "activation_identifier",
    "product_version",
)
# What PHP's is_numeric takes: no hexadecimal, no infinity, no "NaN".
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
# Thirteen fields are documented; PHP itself stops at a thousand.
_MAX_FIELDS = 1000

ApiKeys = Union[Iterable[str], Mapping[str, Optional[int]]]
Products = Mapping[str, Iterable[str]]


class Catalogue(NamedTuple):
    """What the server knows: API keys (each with the code that refuses it, or None), licences, products."""

    api_keys: Dict[str, Optional[int]]
    license_keys: Tuple[str, ...]
    products: Dict[str, Tuple[str, ...]]


def catalogue(api_keys: ApiKeys, license_keys: Iterable[str], products: Products) -> Catalogue:
    """A checked catalogue; ``ConfigError`` where an API key is given a code that refuses nobody."""
    keys = dict(api_keys) if isinstance(api_keys, Mapping) else dict.fromkeys(api_keys)
    for code in keys.values():
        if code is not None and code not in REFUSALS:
            allowed = ", ".join(map(str, REFUSALS))
            raise ConfigError(
                "an API key's code is None or %s, not %r" % (allowed, code), "api_keys"
            )
    versions = {str(product): tuple(map(str, known)) for product, known in products.items()}
    return Catalogue(keys, tuple(license_keys), versions)


def refusal(code: int, now: float) -> Dict[str, Any]:
    """The JSON of a refusal, in the published order of keys."""
    return {"code": code, "message": REFUSALS[code][1], "timestamp": int(now)}


def saved(errors: Dict[str, List[str]], now: float) -> Dict[str, Any]:
    """The JSON of code 830 (``errors`` an empty list, as PHP encodes it) or 831."""
    code, message = (831, SAVED_WITH_ERRORS) if errors else (830, SAVED)
    return {"code": code, "message": message, "errors": errors or [], "timestamp": int(now)}


def receive(headers: Mapping[str, str], body: bytes, known: Catalogue, now: float) -> Received:
    """Judge one request. ``headers`` have lower-case names; ``now`` is Unix seconds."""
    try:
        form = parse_form(headers.get("content-type", ""), body)
    except ValueError as error:
        return Received({}, {}, 400, 400, {"message": str(error)})
    api_key = form.get("api_key") or _bearer(headers.get("authorization", ""))
    if form.get("api_key"):
        form["api_key"] = "****"
    code = known.api_keys.get(api_key, 100)
    if code is not None:
        status = REFUSALS[code][0]
        return Received(form, {}, code, status, refusal(code, now), signed=True)
    errors, flags = check(form, known)
    answer = saved(errors, now)
    return Received(form, flags, answer["code"], 200, answer, signed=True)


def parse_form(content_type: str, body: bytes) -> Dict[str, str]:
    """The fields of a urlencoded or multipart form, the last of equal names; ``ValueError`` for anything else."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        if not body:
            return {}
        try:
            pairs = parse_qsl(
                body.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=_MAX_FIELDS,
            )
        except ValueError:
            raise ValueError("malformed urlencoded body") from None  # theirs would quote a secret
        return dict(pairs)
    if kind == "multipart/form-data":
        return _parse_multipart(content_type, body)
    raise ValueError("send form fields: application/x-www-form-urlencoded or multipart/form-data")


def _parse_multipart(content_type: str, body: bytes) -> Dict[str, str]:
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    if message.defects or not message.is_multipart():
        raise ValueError("malformed multipart body")
    fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes) or part.get_filename():
            raise ValueError("a part is no plain form field")
        fields[name] = content.decode("utf-8")
    return fields


def check(
    form: Mapping[str, str], known: Catalogue
) -> Tuple[Dict[str, List[str]], Dict[str, bool]]:
    """The errors (field → messages) and the flags that the server stores with the record.

    ``is_correct_format`` is about form alone: everything required is there and can be read. Whether the licence,
    product and version exist are flags of their own; any of the four that fails is a red flag.
    """
    errors: Dict[str, List[str]] = {}
    versions = known.products.get(form.get("product_id", ""), ())
    exists = {
        "license_key": form.get("license_key", "") in known.license_keys,
        "product_id": form.get("product_id", "") in known.products,
        "product_version": form.get("product_version", "") in versions,
    }
    for field in _IDENTITY:
        _require(form, field, errors)
    data_type = form.get("data_type", "")
    _require(form, "data_type", errors)
    if data_type.strip() and data_type not in DATA_TYPES:
        errors["data_type"] = ["The selected data type is invalid."]
    for field in DATA_TYPES.get(data_type, ()):
        _require(form, field, errors, " when data type is %s" % data_type)
        if field not in errors and field != "text_data" and not _NUMBER.fullmatch(form[field]):
            errors[field] = ["The %s field must be a number." % _words(field)]
    _require(form, "data_group", errors)
    flags = {
        "is_correct_format": not errors,
        "license_key_exists": exists["license_key"],
        "product_exists": exists["product_id"],
        "product_version_exists": exists["product_version"],
    }
    flags["has_red_flags"] = not all(flags.values())
    for field, found in exists.items():
        if not found and field not in errors:
            errors[field] = ["The selected %s is invalid." % _words(field)]
    order = (
        list(_IDENTITY) + ["data_type"] + sum(map(list, DATA_TYPES.values()), []) + ["data_group"]
    )
    return {field: errors[field] for field in order if field in errors}, flags


def _require(
    form: Mapping[str, str], field: str, errors: Dict[str, List[str]], when: str = ""
) -> None:
    # The vendor's framework trims text and reads an empty one as missing.
    if not form.get(field, "").strip():
        errors[field] = ["The %s field is required%s." % (_words(field), when)]


def _words(field: str) -> str:
    return field.replace("_", " ")


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
