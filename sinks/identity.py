"""Point ids by keyed hash, so that nobody reading Qdrant can test whether a given person is in it."""

import hashlib
import hmac

_MINIMUM_SECRET_BYTES = 16
_FINGERPRINT_LABEL = b"afterglow:fingerprint"


class PointIds:
    """The ids of points: the first 16 bytes of ``HMAC-SHA256(secret, b"user:" + id)``, written as a UUID.

    Products use ``b"product:"``. Text is UTF-8. The 16 bytes are taken as they are: the UUID's version and
    variant bits are not set, so a reader in any language needs HMAC-SHA256 and nothing else. Two ids share
    a point with probability 2^-128; equal ids under two secrets have nothing in common.

    Args:
        secret: the operator's key, at least 16 bytes. Whoever holds it can tell whose a point is.

    Raises:
        ValueError: the secret is shorter than 16 bytes.

    >>> PointIds(b"sixteen bytes ok").user("ada")
    '54ae8533-17ce-0a2d-add0-b9084ae4ba58'
    """

    __slots__ = ("_products", "_users", "fingerprint")

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _MINIMUM_SECRET_BYTES:
            raise ValueError(
                f"the secret for point ids has {len(secret)} bytes, but needs {_MINIMUM_SECRET_BYTES} or more. "
                "`afterglow up` makes one of 32 random bytes on its first start."
            )
        self._users = hmac.new(secret, b"user:", hashlib.sha256)
        self._products = hmac.new(secret, b"product:", hashlib.sha256)
        self.fingerprint = hmac.new(secret, _FINGERPRINT_LABEL, hashlib.sha256).hexdigest()[:8]
        """Eight hexadecimal digits that tell two secrets apart and reveal neither: safe to store and log."""

    def user(self, user_id: str) -> str:
        """The id of a user's point in ``profiles``: a canonical UUID string (lower case, with hyphens)."""
        return _keyed_uuid(self._users, user_id)

    def pseudonym(self, user_id: str) -> int:
        """The first 64 bits of a user's point id: who somebody is among others, to nobody without the secret."""
        digest = self._users.copy()
        digest.update(user_id.encode())
        return int.from_bytes(digest.digest()[:8], "big")

    def product(self, product_id: str) -> str:
        """The id of a product's point in ``products``: a canonical UUID string."""
        return _keyed_uuid(self._products, product_id)

    def __repr__(self) -> str:
        return f"PointIds(fingerprint={self.fingerprint!r})"


def _keyed_uuid(keyed: hmac.HMAC, text: str) -> str:
    digest = keyed.copy()
    digest.update(text.encode())
    digits = digest.hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
