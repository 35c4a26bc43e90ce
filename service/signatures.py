"""Requests signed as Standard Webhooks specifies (https://www.standardwebhooks.com/)."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from standardwebhooks import Webhook as Signer

WHSEC = b"whsec_"
"""What a secret begins with."""
SECRET_BYTES = (24, 64)
"""The least and the most that Standard Webhooks allows."""


class WebhookMisconfigured(ValueError):
    """What the operator set cannot work. The message is for the operator, and holds no secret."""


def read_signers(where: str, path: Path) -> tuple[Signer, ...]:
    """One for each secret in a file, in its order. Secrets are separated by white space.

    where: the setting that names the file.

    Raises WebhookMisconfigured.
    """
    try:
        secrets = path.read_bytes().split()
    except OSError as error:
        raise WebhookMisconfigured(f"{where}: {path} cannot be read: {type(error).__name__}") from error
    if not secrets:
        raise WebhookMisconfigured(f"{where}: there is no secret in {path}")
    try:
        return tuple(Signer(_parse_secret(secret)) for secret in secrets)
    except ValueError:
        raise WebhookMisconfigured(
            f"{where}: a secret in {path} is not {WHSEC.decode()} followed by "
            f"{SECRET_BYTES[0]} to {SECRET_BYTES[1]} bytes in base64"
        ) from None


def make_headers(signers: Sequence[Signer], message_id: str, at: datetime, body: bytes) -> Mapping[str, str]:
    """The headers of a JSON request.

    signers: one for each secret. A receiver accepts the signature of any of them, so secrets can be rotated. Without
        signers there is no signature.
    message_id: the same in all attempts to send the message.
    at: the time of the attempt.
    """
    headers = {
        "User-Agent": "redraft",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
    }
    if signers:
        headers["webhook-signature"] = " ".join(signer.sign(message_id, at, body.decode()) for signer in signers)
    return headers


def _parse_secret(text: bytes) -> bytes:
    """The key. Checked here because the library skips what is not base64. Raises ValueError."""
    key = base64.b64decode(text.removeprefix(WHSEC), validate=True)
    least, most = SECRET_BYTES
    if not text.startswith(WHSEC) or not least <= len(key) <= most:
        raise ValueError("not a secret of Standard Webhooks")
    return key
