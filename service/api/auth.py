"""Bearer keys. Redraft knows only the SHA-256 of each."""

import hashlib
import hmac
from dataclasses import dataclass, field

from service.errors import Unauthorized

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that open the service: the name of each and the SHA-256 of its secret. Without any, it is open."""

    digests: tuple[tuple[str, bytes], ...] = field(repr=False)

    def caller(self, authorization: str | None, api_key: str | None = None) -> str:
        """The name of the key in an ``Authorization`` header's value, or else of ``api_key``, which Anthropic's clients
        send in a header of its own. Raises Unauthorized."""
        if not self.digests:
            return ANONYMOUS
        if authorization is None and api_key is not None:
            authorization = f"bearer {api_key}"
        scheme, _, secret = (authorization or "").partition(" ")
        # A header's text is its bytes in Latin-1 (ASGI), so white space is stripped from the bytes: that of Latin-1 may
        # be the end of a character. What a key cannot hold becomes "?" and matches nothing.
        presented = hashlib.sha256(secret.encode("latin-1", "replace").strip(b" \t")).digest()
        caller = None
        for name, digest in self.digests:  # to the end, so that the time taken tells nothing
            if hmac.compare_digest(digest, presented):
                caller = name
        if scheme.lower() != "bearer" or caller is None:
            raise Unauthorized("send a known key as Authorization: Bearer <key>")
        return caller
