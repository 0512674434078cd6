"""Signatures of webhooks by the Standard Webhooks scheme (https://www.standardwebhooks.com), over raw bytes.

    by = signers(["whsec_…"])
    headers = sign(body, id="msg_1", by=by, at=now)
    verify(body, headers, by=by, now=now)                        # the id; raises NotSigned

Two secrets may live at once, so that one can replace the other: all sign, and any one is enough to verify.
"""

import base64
import hmac
import re
import secrets as chance
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = 32
SECRET_BYTES_MIN = 16
TOLERANCE_SECONDS = 300
BODY_BYTES_MAX = 10_000_000
SIGNATURES_MAX = 10
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class NotSigned(Exception):
    """A message that nobody vouches for: the text says why, and never what would be right."""


class TooLarge(Exception):
    """A body beyond its limit, which is not even looked at."""


class SecretWrong(ValueError):
    """A text that is no secret of this scheme; it is not repeated."""


def make_secret() -> str:
    """A fresh secret, `whsec_` and base64."""
    return PREFIX + base64.b64encode(chance.token_bytes(SECRET_BYTES)).decode()


def signers(secrets: Sequence[str]) -> list[Webhook]:
    """What signs and verifies, one for each live secret. Raises SecretWrong."""
    made: list[Webhook] = []
    for secret in secrets:
        text = secret.removeprefix(PREFIX).rstrip("=")
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            key = b""
        if not secret.startswith(PREFIX) or len(key) < SECRET_BYTES_MIN:
            raise SecretWrong(f"not of the form {PREFIX}<base64 of at least {SECRET_BYTES_MIN} bytes>")
        made.append(Webhook(secret))
    if not made:
        raise SecretWrong(f"at least one {PREFIX}<base64> is expected")
    return made


def sign(body: bytes, *, id: str, by: Sequence[Webhook], at: datetime) -> dict[str, str]:
    """The three headers of a message that is sent at `at`: the same id for each attempt at the same message."""
    at = at.astimezone(UTC)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signer.sign(id, at, body.decode()) for signer in by),
    }


def verify(
    body: bytes,
    headers: Mapping[str, str],
    *,
    by: Sequence[Webhook],
    now: datetime,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> str:
    """The id of a message that one of the live secrets signed within the last or next five minutes.

    Raises TooLarge before anything is computed, and NotSigned.
    """
    if len(body) > body_bytes_max:
        raise TooLarge(f"more than {body_bytes_max:,} bytes")
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id, timestamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise NotSigned(f"the header {missing.args[0]} is missing") from None
    if not id or not _TIMESTAMP.fullmatch(timestamp):
        raise NotSigned("webhook-id is empty, or webhook-timestamp is not in whole seconds")
    age_seconds = now.timestamp() - int(timestamp)
    if abs(age_seconds) > TOLERANCE_SECONDS:
        early_late = "past" if age_seconds > 0 else "future"
        raise NotSigned(f"webhook-timestamp lies more than {TOLERANCE_SECONDS} seconds in the {early_late}")
    try:
        text, at = body.decode(), datetime.fromtimestamp(int(timestamp), UTC)
    except ValueError:
        raise NotSigned("the body is not UTF-8") from None
    right = [signer.sign(id, at, text).encode() for signer in by]
    is_right = False
    for signature in signatures.split(" ")[:SIGNATURES_MAX]:
        for one in right:  # all of them, so that the time says nothing
            is_right |= hmac.compare_digest(one, signature.encode())
    if not is_right:
        raise NotSigned("no signature is by a live secret over these bytes")
    return id
