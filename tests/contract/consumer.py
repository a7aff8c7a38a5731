"""What a product's code may look like to a type checker: read by ``test_consumer_types.py``, never run.

Each ``type: ignore`` is itself a test: where types were lost on the way, it would be one too many.
"""

from typing import Optional

import agent


def licence() -> Optional[tuple[str, str]]:
    return ("key", "activation")


def heard(outcome: agent.Outcome) -> None:
    messages: dict[str, list[str]] = outcome.errors
    at: float = outcome.recorded_at
    print(outcome.verdict.upper(), messages, at)


def configured(pem: str) -> agent.Config:
    key = agent.PublicKey.from_pem(pem, name="now")
    ring = agent.Keyring((key,), version=1)
    server = agent.GetKeyManager(base_url="https://keys.acme.example", api_key="k", keys=(key,))
    agent.GetKeyManager(base_url="https://keys.acme.example", api_key="k", keys=ring)
    agent.GetKeyManager(base_url="https://keys.acme.example")  # type: ignore[call-arg]
    usage = agent.Reo(api_key="k", domain=agent.dns_domain, source="TELEMETRY")
    return agent.Config(
        vendor="Acme",
        product_name="Studio",
        product_id="42",
        product_version="5.2.5",
        endpoints=(server, usage),
        usage_consent=None,
        exit_timeout_s=0,
    )


def used(pem: str, answer: bytes) -> int:
    config = configured(pem)
    with agent.Agent(config, license_key=licence, on_outcome=heard) as telemetry:
        event: Optional[str] = telemetry.call_home()
        telemetry.record_text(3, data_group="g")  # type: ignore[arg-type]
        telemetry.track("EXPORT", meta={"format": "pdf"})
        report: agent.DeliveryReport = telemetry.flush(timeout=5.0)
        waiting: int = report.pending
        telemetry.no_such_call()  # type: ignore[attr-defined]
    try:
        receipt = agent.verify(answer, (agent.PublicKey.from_pem(pem),), now=0)
        code: int = receipt.code
    except agent.VerificationError as error:
        raise SystemExit(str(error)) from None
    left: list[str] = agent.erase(config)
    print(event, code, left, agent.NoSuchName)  # type: ignore[attr-defined]
    return waiting + agent.main(["doctor"], config=config)
