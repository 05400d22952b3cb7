import hashlib
import hmac
import uuid

import pytest

from sinks.identity import PointIds

SECRET = bytes(range(32))


def test_an_id_is_the_start_of_a_keyed_hash_written_as_a_uuid() -> None:
    digest = hmac.new(SECRET, b"user:" + "ädä".encode(), hashlib.sha256).digest()
    assert PointIds(SECRET).user("ädä") == str(uuid.UUID(bytes=digest[:16]))


def test_ids_do_not_change_between_versions() -> None:
    ids = PointIds(SECRET)
    assert ids.user("17850") == "6662c6da-c859-0b23-ef08-797901afa88b"
    assert ids.product("85123A") == "93d45ddb-b2c7-45f0-b834-e94ea1b255d5"
    assert ids.fingerprint == "e39a8c80"


def test_a_user_and_a_product_of_one_name_are_two_points() -> None:
    ids = PointIds(SECRET)
    assert ids.user("1") != ids.product("1")


def test_another_secret_gives_other_ids_and_another_fingerprint() -> None:
    one, other = PointIds(SECRET), PointIds(bytes(32))
    assert one.user("1") != other.user("1")
    assert one.fingerprint != other.fingerprint


def test_the_secret_is_never_shown() -> None:
    assert repr(PointIds(SECRET)) == "PointIds(fingerprint='e39a8c80')"


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="has 15 bytes, but needs 16 or more"):
        PointIds(b"fifteen bytes..")


def test_a_pseudonym_is_the_first_64_bits_of_the_point_s_id():
    assert PointIds(b"sixteen bytes ok").pseudonym("ada") == 0x54AE8533_17CE_0A2D
