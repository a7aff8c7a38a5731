"""The copy's bill of materials: CycloneDX 1.6, JSON.

It lists every file with its hash, the libraries that were copied along with their versions, and those that are not:
without a version, since whoever builds the product chooses it, but with the range that the code asks for. The same
copy gives the same bytes; a time is in it only where ``SOURCE_DATE_EPOCH`` names one.
"""

from __future__ import annotations

import datetime
import json
import os
import uuid
from hashlib import sha256
from typing import Any, Optional

from ...errors import ConfigError
from .libraries import FOLDER, LIBRARIES, Library

_EPOCH = "SOURCE_DATE_EPOCH"  # https://reproducible-builds.org/specs/source-date-epoch/
_FORM = "%Y-%m-%dT%H:%M:%SZ"
_REWRITTEN = "Its files are those of its RECORD; its imports of itself are relative; nothing else was changed."
# Taken from the product where it can be imported there, and done without where not.
_WHERE_THERE: tuple[tuple[str, str, Optional[str], str], ...] = (
    ("truststore", "pkg:pypi/truststore", "MIT", "the system's verifier on Windows and macOS"),
    ("certifi", "pkg:pypi/certifi", "MPL-2.0", "authorities where the system has none"),
    ("pysocks", "pkg:pypi/pysocks", "BSD-3-Clause", "proxies that speak SOCKS"),
)
# What PyNaCl brings: name, purl, licence, what it is there for. cffi changed its licence between versions.
_BEHIND_PYNACL: tuple[tuple[str, str, Optional[str], str], ...] = (
    ("libsodium", "pkg:generic/libsodium", "ISC", "compiled into the wheels of PyNaCl"),
    ("cffi", "pkg:pypi/cffi", None, "needed by PyNaCl on CPython"),
    (
        "pycparser",
        "pkg:pypi/pycparser",
        "BSD-3-Clause",
        "installed with cffi, not loaded by PyNaCl",
    ),
)


def of_materials(
    name: str, version: str, files: dict[str, bytes], brought: dict[str, str]
) -> bytes:
    """The bill of a copy that consists of ``files``; ``brought``: library → version, where it is among them."""
    root = "%s@%s" % (name, version)
    libraries = [_library(library, brought.get(library.name), files) for library in LIBRARIES]
    behind = [_behind(*one) for one in _BEHIND_PYNACL]
    taken = [_behind(*one) for one in _WHERE_THERE]
    own = {path: data for path, data in files.items() if _owner(path) is None}
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            **_timestamp(),
            "tools": {"components": [{"type": "application", "name": name, "version": version}]},
            "component": {
                "type": "library",
                "bom-ref": root,
                "name": name,
                "version": version,
                "licenses": _licence("MIT"),
                "purl": "pkg:generic/" + root,
                "components": _files(own),
            },
        },
        "components": [*libraries, *taken, *behind],
        "dependencies": [
            {"ref": root, "dependsOn": [one["bom-ref"] for one in libraries + taken]},
            {"ref": "pynacl", "dependsOn": ["cffi", "libsodium"]},
            {"ref": "cffi", "dependsOn": ["pycparser"]},
        ],
        "compositions": [
            {"aggregate": "complete", "assemblies": [root], "dependencies": [root]},
            {"aggregate": "incomplete", "dependencies": ["pynacl", "cffi"]},
        ],
    }
    return _numbered(document)


def timed_like(bill: bytes, other: bytes) -> bytes:
    """The same bill, had it been made at the time that ``other`` gives; raises where that is none of ours."""
    document, given = json.loads(bill), json.loads(other)["metadata"].get("timestamp")
    timed = {} if given is None else {"timestamp": _moment(_seconds(given))}
    document["metadata"].pop("timestamp", None)
    document["metadata"] = {**timed, **document["metadata"]}
    document.pop("serialNumber")
    return _numbered(document)


def _numbered(document: dict[str, Any]) -> bytes:
    identity = json.dumps(document, sort_keys=True)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, sha256(identity.encode("ascii")).hexdigest())
    document["serialNumber"] = serial.urn
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def _library(library: Library, version: Optional[str], files: dict[str, bytes]) -> dict[str, Any]:
    purl = "pkg:pypi/" + library.name
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": library.name,
        "name": library.name,
        "description": "for " + library.purpose,
        "scope": "required" if library.needed else "optional",
        "licenses": _licence(library.licence),
        "purl": purl,
        "properties": [
            {"name": "requirement", "value": "%s>=%s" % (library.name, library.at_least)},
            {"name": "vendored", "value": "no" if version is None else "yes"},
        ],
    }
    if version is not None:
        found["version"] = version
        found["purl"] = purl = "%s@%s" % (purl, version)
        found["pedigree"] = {
            "ancestors": [
                {"type": "library", "name": library.name, "version": version, "purl": purl}
            ],
            "notes": _REWRITTEN,
        }
        own = {path: data for path, data in files.items() if _owner(path) == library.name}
        found["components"] = _files(own)
    return found


def _behind(name: str, purl: str, licence: Optional[str], purpose: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": name,
        "name": name,
        "description": purpose,
        "scope": "optional",
        **({"licenses": _licence(licence)} if licence else {}),
        "purl": purl,
    }


def _licence(id: str) -> list[dict[str, Any]]:
    return [{"license": {"id": id}}]


def _owner(path: str) -> Optional[str]:
    """The library that a file belongs to; None for what is ours."""
    parts = path.split("/")
    return parts[1] if parts[0] == FOLDER and len(parts) > 2 else None


def _files(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "name": path,
            "hashes": [{"alg": "SHA-256", "content": sha256(files[path]).hexdigest()}],
        }
        for path in sorted(files)
    ]


def _timestamp() -> dict[str, str]:
    given = os.environ.get(_EPOCH)
    if not given:
        return {}
    try:
        return {"timestamp": _moment(int(given))}
    except (ValueError, OverflowError, OSError):
        raise ConfigError("%s: got %r, allowed is a number of seconds" % (_EPOCH, given)) from None


def _moment(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime(_FORM)


def _seconds(text: str) -> int:
    moment = datetime.datetime.strptime(text, _FORM)
    return int(moment.replace(tzinfo=datetime.timezone.utc).timestamp())
