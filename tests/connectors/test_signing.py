"""Who signed a message is known from its raw bytes, or the message is nobody's."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from connectors.signing import NotSigned, SecretWrong, TooLarge, make_secret, sign, signers, verify

NOW = datetime(2026, 11, 23, 6, 0, 0, 700_000, tzinfo=UTC)
OLD, NEW, OTHER = make_secret(), make_secret(), make_secret()
BODY = '{"sku":"Ä"}'.encode()


def signed(*secrets: str, at: datetime = NOW) -> dict[str, str]:
    return sign(BODY, id="msg_1", by=signers(secrets), at=at)


def check(body: bytes, headers: dict[str, str], *secrets: str, now: datetime = NOW, **more: Any) -> str:
    return verify(body, headers, by=signers(secrets), now=now, **more)


def test_the_published_example_of_the_scheme_has_the_published_signature() -> None:
    by = signers(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    headers = sign(
        b'{"test": 2432232314}', id="msg_p5jXN8AQM9LWM0D4loKWxJek", by=by, at=datetime.fromtimestamp(1614265330, UTC)
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert verify(b'{"test": 2432232314}', headers, by=by, now=datetime.fromtimestamp(1614265330, UTC)).startswith(
        "msg_"
    )


def test_what_we_sign_the_published_library_verifies_and_the_other_way_round() -> None:
    at = datetime.now(UTC)
    assert Webhook(NEW).verify(BODY, signed(NEW, at=at)) == {"sku": "Ä"}
    theirs = {"Webhook-Id": "m", "Webhook-Timestamp": str(int(at.timestamp())),
              "Webhook-Signature": Webhook(NEW).sign("m", at, BODY.decode())}  # fmt: skip
    assert check(BODY, theirs, NEW, now=at) == "m"


def test_while_a_secret_is_replaced_either_of_the_two_is_enough() -> None:
    assert check(BODY, signed(OLD), OLD, NEW) == "msg_1"
    assert check(BODY, signed(NEW), OLD, NEW) == "msg_1"
    assert check(BODY, signed(OLD, NEW), NEW) == "msg_1"
    with pytest.raises(NotSigned, match="no signature is by a live secret"):
        check(BODY, signed(OLD), NEW)


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_message_of_the_last_or_next_five_minutes_is_taken(seconds: int) -> None:
    at = NOW.replace(microsecond=0) + timedelta(seconds=seconds)
    assert check(BODY, signed(NEW, at=at), NEW, now=NOW.replace(microsecond=0)) == "msg_1"


@pytest.mark.parametrize(("seconds", "says"), [(-302, "past"), (302, "future")])
def test_an_older_or_younger_message_is_nobodys(seconds: int, says: str) -> None:
    with pytest.raises(NotSigned, match=says):
        check(BODY, signed(NEW, at=NOW + timedelta(seconds=seconds)), NEW)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"}, {"webhook-id": ""}, {"webhook-timestamp": "1"}, {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "1e9"}, {"webhook-timestamp": "9" * 12}, {"webhook-signature": ""},
        {"webhook-signature": "v1,"}, {"webhook-signature": "v1,é"}, {"webhook-signature": "v1"},
    ],
)  # fmt: skip
def test_a_changed_header_makes_a_message_nobodys(change: dict[str, str]) -> None:
    with pytest.raises(NotSigned):
        check(BODY, signed(NEW) | change, NEW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = signed(NEW)
    del headers[name]
    with pytest.raises(NotSigned, match=name):
        check(BODY, headers, NEW)


def test_a_signature_of_another_version_says_nothing() -> None:
    headers = signed(NEW)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v2,")
    with pytest.raises(NotSigned):
        check(BODY, headers, NEW)


def test_a_body_beyond_the_limit_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        check(b"x" * 11, {}, NEW, body_bytes_max=10)


@given(st.binary(max_size=40), st.text(max_size=40))
def test_no_other_bytes_pass(body: bytes, signature: str) -> None:
    if body != BODY:
        with pytest.raises(NotSigned):
            check(body, signed(NEW), NEW)
    with pytest.raises(NotSigned):
        check(BODY, signed(NEW) | {"webhook-signature": signature}, NEW)


def test_a_secret_is_fresh_and_long_and_a_wrong_one_is_not_repeated() -> None:
    assert make_secret() != make_secret() and len(base64.b64decode(make_secret().removeprefix("whsec_"))) == 32
    for wrong in ("", "whsec_", "whsec_!!!", "whsec_é" * 9, "whsec_c2hvcnQ=", NEW.removeprefix("whsec_")):
        with pytest.raises(SecretWrong) as found:
            signers([wrong])
        assert not wrong.removeprefix("whsec_") or wrong.removeprefix("whsec_") not in str(found.value)
    with pytest.raises(SecretWrong, match="at least one"):
        signers([])
