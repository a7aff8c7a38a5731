"""A client for the collector's own tests: the standard library's HTTP, raw sockets, and `cryptography` as the judge."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from support.agent import ROOT, until

LICENCE = "/api/v1/send-telemetry-data"
USAGE = "/api/product/usage"
AGGREGATE = "/api/product/aggregateusage"
PATH_OF = {"getkeymanager": LICENCE, "reo-usage": USAGE, "reo-aggregate": AGGREGATE}
FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
REO_HEADERS = {"Content-Type": "application/json", "X-API-KEY": "demo-api-key"}


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def changed(whole: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``whole`` with some values replaced; None takes a field out."""
    merged = {**whole, **changes}
    return {field: value for field, value in merged.items() if value is not None}


def _golden(name: str) -> str:
    """The body of a request as the product makes it: a right one."""
    path = ROOT / "tests" / "golden" / ("request-%s.txt" % name)
    return path.read_text("utf-8").partition("\n\n")[2].strip()


FORM = dict(parse_qsl(_golden("licence-call-home")))
FORM.update(api_key="demo-api-key", license_key="demo-license-key")
PAYLOADS = [json.loads(_golden(name))["payload"] for name in ("usage-call-home", "aggregate")]


def licence_form(**changes: Optional[str]) -> dict[str, str]:
    return changed(FORM, changes)


def usage_payload(**changes: Any) -> dict[str, Any]:
    return changed(PAYLOADS[0], changes)


def aggregate_payload(**changes: Any) -> dict[str, Any]:
    return changed(PAYLOADS[1], changes)


def ask(
    collector: Any,
    method: str,
    path: str,
    body: bytes | str | None = None,
    headers: Optional[Mapping[str, str]] = None,
) -> Reply:
    with contextlib.closing(
        http.client.HTTPConnection(urlsplit(collector.url).netloc, timeout=20)
    ) as to:
        to.request(method, path, body, dict(headers or {}))
        answer = to.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def post_licence(collector: Any, **changes: Optional[str]) -> Reply:
    return ask(collector, "POST", LICENCE, urlencode(licence_form(**changes)), FORM_TYPE)


def post_usage(collector: Any, **changes: Any) -> Reply:
    body = json.dumps({"payload": usage_payload(**changes)})
    return ask(collector, "POST", USAGE, body, REO_HEADERS)


def post_aggregate(collector: Any, **changes: Any) -> Reply:
    body = json.dumps({"payload": aggregate_payload(**changes)})
    return ask(collector, "POST", AGGREGATE, body, REO_HEADERS)


def post(collector: Any, endpoint: str) -> Reply:
    """A request to ``endpoint`` in which everything is right."""
    if endpoint == "getkeymanager":
        return post_licence(collector)
    return post_usage(collector) if endpoint == "reo-usage" else post_aggregate(collector)


def set_fault(collector: Any, **asked: Any) -> Reply:
    return control(collector, json.dumps(asked))


def control(collector: Any, body: str) -> Reply:
    return ask(collector, "POST", "/_collector/fault", body, {"Content-Type": "application/json"})


@contextlib.contextmanager
def raw_request(collector: Any, path: str = LICENCE) -> Iterator[socket.socket]:
    """A socket on which a complete, right request was sent and nothing read."""
    if path == LICENCE:
        body, headers = urlencode(licence_form()).encode(), FORM_TYPE
    else:
        whole = usage_payload() if path == USAGE else aggregate_payload()
        body, headers = json.dumps({"payload": whole}).encode(), REO_HEADERS
    lines = ["POST %s HTTP/1.1" % path, "Host: 127.0.0.1", "Content-Length: %d" % len(body)]
    lines += ["%s: %s" % header for header in headers.items()]
    where = urlsplit(collector.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as sock:
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def wait_until(happened: Callable[[], object]) -> None:
    """Until the other thread has come so far; a deadline only keeps a broken test from hanging."""
    assert until(happened, 20), "never happened"


def verified(envelope: Mapping[str, Any], key: Mapping[str, str]) -> dict[str, Any]:
    """The signed JSON of an envelope; raises ``InvalidSignature`` unless ``key`` signed it."""
    message = envelope["response_base64"].encode("ascii")
    signature = base64.b64decode(envelope["signature"], validate=True)
    public = load_pem_public_key(key["public_key"].encode("ascii"))
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, message, padding.PKCS1v15(), SHA256())
    else:
        public.verify(signature, message)  # type: ignore[union-attr, call-arg]
    signed: dict[str, Any] = json.loads(base64.b64decode(message, validate=True))
    return signed
