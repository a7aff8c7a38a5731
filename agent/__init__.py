"""Calls home from a desktop product; keeps what it could not send; believes only signed answers.

A product makes one ``Agent`` of a ``Config`` and calls ``call_home()`` at its start. The public names:

    Agent           records, delivers in the background, and tells what became of it
    Config          all settings, with the endpoints: GetKeyManager (licences), Reo (usage, with consent)
    PublicKey       a key that answers are signed with; Keyring: keys that a signed document can replace
    Outcome         how one record ended, for ``on_outcome``; DeliveryReport: what ``flush`` gives
    verify          checks a saved answer and gives its Receipt
    erase           removes all state of a configuration
    main            the command line, for a frozen product; else ``python -m`` with this package's name
    deliver_detached  what a ``detached_command`` calls
    dns_domain      the machine's DNS domain, for those who pass it to Reo
    AgentError      the root of ConfigError and EventError (mistakes of the caller) and of VerificationError, which is
                    SignatureInvalid, AnswerStale, EnvelopeMalformed, CodeUnknown or Unverifiable

Nothing is loaded until a name is used: importing this package costs one small module.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client import Agent as Agent
    from .config import Config as Config, GetKeyManager as GetKeyManager, Reo as Reo
    from .doors import (
        deliver_detached as deliver_detached,
        erase as erase,
        main as main,
    )
    from .errors import (
        AgentError as AgentError,
        AnswerStale as AnswerStale,
        CodeUnknown as CodeUnknown,
        ConfigError as ConfigError,
        EnvelopeMalformed as EnvelopeMalformed,
        EventError as EventError,
        SignatureInvalid as SignatureInvalid,
        Unverifiable as Unverifiable,
        VerificationError as VerificationError,
    )
    from .origin import dns_domain as dns_domain
    from .outcomes import DeliveryReport as DeliveryReport, Outcome as Outcome
    from .signatures import (
        Keyring as Keyring,
        PublicKey as PublicKey,
        Receipt as Receipt,
        verify as verify,
    )

# Where each public name lives, relative to this package.
_HOMES = {
    "Agent": "client",
    "Config": "config",
    "GetKeyManager": "config",
    "Reo": "config",
    "deliver_detached": "doors",
    "dns_domain": "origin",
    "erase": "doors",
    "main": "doors",
    "AgentError": "errors",
    "AnswerStale": "errors",
    "CodeUnknown": "errors",
    "ConfigError": "errors",
    "EnvelopeMalformed": "errors",
    "EventError": "errors",
    "SignatureInvalid": "errors",
    "Unverifiable": "errors",
    "VerificationError": "errors",
    "DeliveryReport": "outcomes",
    "Outcome": "outcomes",
    "Keyring": "signatures",
    "PublicKey": "signatures",
    "Receipt": "signatures",
    "verify": "signatures",
}

__all__ = [
    "Agent",
    "AgentError",
    "AnswerStale",
    "CodeUnknown",
    "Config",
    "ConfigError",
    "DeliveryReport",
    "EnvelopeMalformed",
    "EventError",
    "GetKeyManager",
    "Keyring",
    "Outcome",
    "PublicKey",
    "Receipt",
    "Reo",
    "SignatureInvalid",
    "Unverifiable",
    "VerificationError",
    "deliver_detached",
    "dns_domain",
    "erase",
    "main",
    "verify",
]


if not TYPE_CHECKING:  # to a type checker any name would be one of ours

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            # ``import package.module`` and ``from package import module`` do not come here.
            raise AttributeError("module %r has no attribute %r" % (__name__, name))
        module = __import__(home, globals(), None, (name,), 1)
        value = getattr(module, name)
        globals()[name] = value
        return value


def __dir__():  # type: ignore[no-untyped-def]
    return sorted([*globals(), *_HOMES])
