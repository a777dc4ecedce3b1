"""kafka-python's errors as Concord's, translated here and nowhere else, by class.

The library's words may hold addresses, topics and offsets, never messages; they are passed on where nothing better is
known. Codes: https://kafka.apache.org/protocol#protocol_error_codes.
"""

from __future__ import annotations

from typing import Any, Final

import kafka.errors

from engine.errors import (
    ConcordError,
    Fenced,
    PositionLost,
    RowRefused,
    SourceUnready,
    SystemUnreachable,
    TargetBusy,
    TargetUnready,
)
from engine.ports import Role
from plugins.kafka.config import KafkaConfig
from plugins.kafka.records import Gap
from plugins.kafka.rights import (
    FEEDING,
    GROUP,
    READING,
    TOPIC,
    TRANSACTIONAL_ID,
    Need,
    refused,
    transactional_id,
)

_errors: Any = kafka.errors
_FENCED: Final = ("ProducerFencedError", "InvalidProducerEpochError")


def translate(
    error: BaseException, config: KafkaConfig, *, system: str, doing: str, role: Role = Role.SOURCE
) -> ConcordError:
    """The error of ours that says the same; raise it `from error`. `doing`: what was being done, for the message."""
    if isinstance(error, ConcordError):
        return error
    where = f"system {system}, while trying to {doing}"
    unready = TargetUnready if role is Role.TARGET else SourceUnready
    if isinstance(error, _errors.OffsetOutOfRangeError):
        return lost(f"system {system}: the broker no longer holds what follows our position", system)
    if isinstance(error, Gap):
        return lost(f"system {system}, {error.args[0]}; the topic is compacted, or its log was damaged", system)
    if isinstance(error, _errors.LogTruncationError):
        return lost(f"system {system}: the broker has lost messages that we have read (an unclean election)", system)
    if _is_fenced(error):
        return Fenced(
            f"system {system}: another daemon writes to this feed now", hint="Stop one of the two.", system=system
        )
    missing = _missing_rights(error, config, role)
    if missing:
        return refused(config, missing, system=system, role=role)
    if isinstance(error, (_errors.AuthorizationError, _errors.SaslAuthenticationFailedError)):
        return unready(
            f"{where}: the broker refuses it ({type(error).__name__})",
            hint="Check user and password, and the access list that `concord check` names.",
            system=system,
        )
    if isinstance(error, (_errors.UnsupportedSaslMechanismError, _errors.IllegalSaslStateError)):
        return unready(
            f"{where}: the broker does not know this way to log in", hint="Check sasl and tls.", system=system
        )
    if isinstance(error, _errors.UnsupportedCodecError):
        return unready(
            f"{where}: messages are compressed in a way that this installation cannot undo",
            hint="Install what is missing: `pip install lz4`, `python-snappy` or `zstandard`; or write with gzip.",
            system=system,
        )
    if isinstance(error, (_errors.UnsupportedVersionError, _errors.KafkaConfigurationError)):
        return unready(f"{where}: {type(error).__name__}", hint="Kafka 2.1 or later is wanted.", system=system)
    if isinstance(error, _errors.MessageSizeTooLargeError):
        return RowRefused(
            f"{where}: a row is larger than the topic takes",
            hint="Raise max.message.bytes of the topic, then `concord parked retry`.",
            reason="value",
            system=system,
        )
    if isinstance(error, (OSError, _errors.KafkaError)):
        kind = TargetBusy if role is Role.TARGET and not _is_connection(error) else SystemUnreachable
        return kind(
            f"{where}: {type(error).__name__}", hint="Check that the brokers run and can be reached.", system=system
        )
    raise error


def lost(message: str, system: str) -> PositionLost:
    return PositionLost(
        message,
        hint=f"Changes may be missing. Give the topics a longer retention.ms, then run `concord backfill {system}`.",
        system=system,
    )


def _missing_rights(error: BaseException, config: KafkaConfig, role: Role) -> list[Need]:
    """What was taken from us, or never given, as far as the driver says of what."""
    told: Any = error.args[0] if error.args else ()
    if isinstance(error, _errors.TopicAuthorizationFailedError):
        names = [told] if isinstance(told, str) else told
        return [Need(TOPIC, str(name), FEEDING if role is Role.TARGET else READING) for name in sorted(names)]
    if isinstance(error, _errors.GroupAuthorizationFailedError) and config.group is not None:
        return [Need(GROUP, config.group, ("READ",))]
    if isinstance(error, _errors.TransactionalIdAuthorizationFailedError) and config.feed is not None:
        return [Need(TRANSACTIONAL_ID, transactional_id(config), ("WRITE",))]
    return []


def _is_fenced(error: BaseException) -> bool:
    """After its first error a producer says of each call that there was one, and names it in its text alone."""
    if isinstance(error, (_errors.ProducerFencedError, _errors.InvalidProducerEpochError)):
        return True
    return isinstance(error, _errors.KafkaError) and any(name in str(error) for name in _FENCED)


def _is_connection(error: BaseException) -> bool:
    wanted = (_errors.KafkaConnectionError, _errors.KafkaTimeoutError, _errors.NodeNotReadyError, OSError)
    return isinstance(error, wanted)
