"""Credentials: what signs in, what is refused, and that nothing in a token can talk the server into more."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
from collections.abc import Mapping

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.test import override_settings

from repoman.access import authenticate, passwords, registry_tokens, secrets, throttle, tokens
from repoman.access.models import Identity, Principal, SigningKey, SignInThrottle, Token
from repoman.core import clock
from repoman.core.actor import Action, Actor
from repoman.core.errors import BadRequest, CredentialsInvalid, TooManyRequests

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


def make_user(username: str = "ada", password: str = PASSWORD, **more: object) -> Principal:
    principal = Principal.objects.create(username=username, created_at=clock.now(), **more)
    Identity.objects.create(
        principal=principal,
        issuer="local",
        subject=username,
        password_hash=passwords.hash_password(password),
        created_at=clock.now(),
    )
    return principal


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def sign_in(authorization: str | None, address: str = "192.0.2.1") -> Actor:
    return authenticate.authenticate(authorization, address=address, request_id="r1")


def make_token(principal: Principal, **more: object) -> tuple[Token, str]:
    given: dict[str, object] = {"name": "ci", "actions": [Action.READ], "repositories": None} | more
    return tokens.create(principal, **given)  # type: ignore[arg-type]


def test_no_header_is_the_anonymous_actor() -> None:
    actor = sign_in(None)
    assert actor.is_anonymous and actor.address == "192.0.2.1" and actor.request_id == "r1"


def test_a_right_password_signs_in() -> None:
    principal = make_user(is_admin=True)
    actor = sign_in(basic("ada", PASSWORD))
    assert (actor.principal_id, actor.name, actor.is_admin, actor.token, actor.scopes) == (
        principal.pk,
        "ada",
        True,
        None,
        None,
    )
    assert sign_in("bAsIc   " + basic("ada", PASSWORD)[6:]).principal_id == principal.pk


def test_a_password_may_hold_colons_and_any_unicode_in_either_form() -> None:
    make_user("eve", "pä:ss:wörd")
    assert sign_in(basic("eve", "pä:ss:wörd")).name == "eve"
    assert sign_in(basic("eve", "pa\u0308:ss:wo\u0308rd")).name == "eve"


def test_maven_w2_credentials_in_iso_8859_1() -> None:
    make_user("eve", "p\u00e4:ss:w\u00f6rd")
    given = base64.b64encode("eve:p\u00e4:ss:w\u00f6rd".encode("latin-1")).decode()
    assert sign_in(f"Basic {given}").name == "eve"


def test_e7_unknown_wrong_and_disabled_accounts_are_refused_alike_and_all_cost_a_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_user("ada")
    make_user("gone", is_disabled=True)
    Principal.objects.create(username="without-password", created_at=clock.now())
    verified = []

    class Counting:
        def verify(self, stored: str, password: bytes) -> bool:
            verified.append(stored)
            return real.verify(stored, password)

    passwords._nobody()
    real = passwords._hasher
    monkeypatch.setattr(passwords, "_hasher", Counting())
    seen = set()
    attempts = [("ada", "wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("without-password", PASSWORD)]
    for username, password in attempts:
        with pytest.raises(CredentialsInvalid) as caught:
            sign_in(basic(username, password), address=f"192.0.2.{len(seen) + 10}")
        seen.add((type(caught.value), caught.value.message))
    assert len(seen) == 1
    assert len(verified) == len(attempts)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!!",
        "Basic " + base64.b64encode(b"no-colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "Basic " + base64.b64encode(b"\0:x").decode(),
        "Bearer",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer rpm_short",
        "Bearer rpm_" + "a" * 43,
        "Bearer rpr_" + "a" * 43,
        "Digest username=ada",
        "Basic " + "A" * 9000,
        "Bearer " + "é" * 50,
    ],
)
def test_malformed_credentials_are_refused_and_never_anonymous(header: str) -> None:
    with pytest.raises(CredentialsInvalid):
        sign_in(header)


def test_e9_passwords_are_bounded_and_not_truncated() -> None:
    long = "x" * 1023
    make_user("ada", long + "a")
    assert sign_in(basic("ada", long + "a")).name == "ada"
    with pytest.raises(CredentialsInvalid):
        sign_in(basic("ada", long + "b"))
    with pytest.raises(CredentialsInvalid):
        authenticate.sign_in("ada", "y" * 1_000_000, address="192.0.2.1", request_id="r")
    for bad in ("", "short", "x" * 1025, "ü" * 600, "rpm_abcdefgh", "with\0control", "lone\ud800surrogate"):
        with pytest.raises(BadRequest):
            passwords.check_new(bad)


def test_api_tokens_sign_in_as_bearer_and_as_password_with_any_name() -> None:
    principal = make_user()
    row, secret = make_token(principal, actions=[Action.READ, Action.PUBLISH], repositories=[7, 9])
    for header in (
        f"Bearer {secret}",
        f"bearer {secret}",
        basic("ada", secret),
        basic("anything", secret),
        basic("", secret),
    ):
        actor = sign_in(header)
        assert actor.principal_id == principal.pk and actor.token is not None
        assert actor.token.token_id == row.pk
        assert actor.token.actions == {Action.READ, Action.PUBLISH}
        assert actor.token.repositories == {7, 9}
    assert row.expires_at is not None
    assert authenticate.valid_until(actor) == row.expires_at.timestamp()
    assert secret not in json.dumps([str(value) for value in Token.objects.values().get().values()])
    assert row.secret_hash == hashlib.sha256(secret.encode()).hexdigest()


def test_e6_revoked_and_expired_tokens_and_disabled_owners_are_refused() -> None:
    principal = make_user()
    row, secret = make_token(principal)
    issued = registry_tokens.issue(sign_in(f"Bearer {secret}"), {"ns/repo/image": frozenset({Action.READ})}).token
    assert sign_in(f"Bearer {issued}").name == "ada"
    now = clock.now()
    for change in ({"revoked_at": now}, {"expires_at": now - datetime.timedelta(seconds=1)}):
        Token.objects.filter(pk=row.pk).update(revoked_at=None, expires_at=None)
        assert sign_in(f"Bearer {secret}").name == "ada"
        Token.objects.filter(pk=row.pk).update(**change)
        for credentials in (secret, issued):
            with pytest.raises(CredentialsInvalid):
                sign_in(f"Bearer {credentials}")
    Token.objects.filter(pk=row.pk).update(revoked_at=None, expires_at=None)
    Principal.objects.filter(pk=principal.pk).update(is_disabled=True)
    for header in (f"Bearer {secret}", f"Bearer {issued}", basic("ada", PASSWORD)):
        with pytest.raises(CredentialsInvalid):
            sign_in(header)


def test_the_last_use_of_tokens_is_written_in_batches() -> None:
    row, secret = make_token(make_user())
    tokens.flush_uses(force=True)
    sign_in(f"Bearer {secret}")
    tokens.note_use(row.pk)
    assert tokens.flush_uses(force=True) == 1
    row.refresh_from_db()
    assert row.last_used_at is not None
    assert tokens.flush_uses(force=True) == 0


# --- registry tokens -------------------------------------------------------------------------------------------------


def claims_for(**changes: object) -> dict[str, object]:
    now = int(clock.seconds())
    claims: dict[str, object] = {
        "iss": registry_tokens.ISSUER,
        "aud": registry_tokens.SERVICE,
        "sub": "anonymous",
        "iat": now,
        "exp": now + 300,
        "jti": clock.new_id(),
        "scopes": {},
    }
    return {key: value for key, value in (claims | changes).items() if value is not None}


def sign(claims: Mapping[str, object], headers: Mapping[str, object] | None = None) -> str:
    key = registry_tokens._signing_key()
    private = registry_tokens._private(key.secret_key_id, key.private)
    return jwt.encode(
        dict(claims), private, algorithm="ES256", headers=dict({"kid": key.kid} if headers is None else headers)
    )


def test_a_registry_token_carries_its_names_and_its_owner() -> None:
    principal = make_user()
    scopes = {"ns/repo/image": frozenset({Action.READ, Action.PUBLISH})}
    issued = registry_tokens.issue(sign_in(basic("ada", PASSWORD)), scopes)
    actor = sign_in(f"Bearer {issued.token}")
    assert actor.principal_id == principal.pk and actor.scopes == scopes and actor.token is None
    until = authenticate.valid_until(actor)
    assert until is not None and 0 < until - clock.seconds() <= issued.expires_in_seconds == 900
    assert all(character.isascii() and (character.isalnum() or character in "._~-") for character in issued.token)
    anonymous = sign_in(f"Bearer {registry_tokens.issue(Actor(), {}).token}")
    assert anonymous.is_anonymous and anonymous.scopes == {}


def test_a_registry_token_ends_with_the_password_it_was_issued_for() -> None:
    principal = make_user()
    issued = registry_tokens.issue(sign_in(basic("ada", PASSWORD)), {}).token
    assert sign_in(f"Bearer {issued}").name == "ada"
    Identity.objects.filter(principal=principal).update(password_hash=passwords.hash_password("another password"))
    with pytest.raises(CredentialsInvalid):
        sign_in(f"Bearer {issued}")
    with pytest.raises(CredentialsInvalid):
        sign_in(basic("ada", PASSWORD))


def test_a_registry_token_lives_no_longer_than_the_api_token_behind_it() -> None:
    _, secret = make_token(make_user(), expires_in_seconds=100)
    assert registry_tokens.issue(sign_in(f"Bearer {secret}"), {}).expires_in_seconds <= 100


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1_000},
        {"exp": None},
        {"iat": None},
        {"jti": None},
        {"sub": None},
        {"aud": None},
        {"iss": None},
        {"aud": "elsewhere"},
        {"aud": ["repoman", "elsewhere"]},
        {"iss": "Repoman"},
        {"iss": "repoman.example"},
        {"nbf": 99_999_999_999},
        {"iat": 99_999_999_999},
        {"exp": "soon"},
        {"scopes": None},
        {"scopes": ["a"]},
        {"principal": "1"},
        {"principal": True},
        {"principal": 10**6},
    ],
)
def test_e2_claims_that_are_missing_or_wrong_are_refused(changes: Mapping[str, object]) -> None:
    assert sign_in(f"Bearer {sign(claims_for())}").is_anonymous
    with pytest.raises(CredentialsInvalid):
        sign_in(f"Bearer {sign(claims_for(**changes))}")


def test_e2_leeway_is_at_most_thirty_seconds() -> None:
    now = int(clock.seconds())
    assert sign_in(f"Bearer {sign(claims_for(exp=now - 2))}").is_anonymous
    with pytest.raises(CredentialsInvalid):
        sign_in(f"Bearer {sign(claims_for(exp=now - 30))}")


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_e1_no_other_algorithm_key_or_header_is_believed() -> None:
    key = registry_tokens._signing_key()
    body = segment(claims_for())
    hostile = ec.generate_private_key(ec.SECP256R1())
    hostile_jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(hostile.public_key()))
    unsigned = segment({"alg": "none", "typ": "JWT", "kid": key.kid}) + "." + body
    confused = segment({"alg": "HS256", "typ": "JWT", "kid": key.kid}) + "." + body
    mac = hmac.new(key.public.encode(), confused.encode(), hashlib.sha256).digest()
    good = sign(claims_for())
    forged = [
        unsigned + ".",
        unsigned.replace("none", "None") + ".",
        confused + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode(),
        jwt.encode(claims_for(), hostile, algorithm="ES256", headers={"kid": key.kid}),
        jwt.encode(claims_for(), hostile, algorithm="ES256", headers={"kid": key.kid, "jwk": hostile_jwk}),
        sign(claims_for(), {"kid": key.kid, "jku": "http://127.0.0.1:1/keys"}),
        sign(claims_for(), {"kid": key.kid, "x5u": "http://127.0.0.1:1/keys"}),
        sign(claims_for(), {"kid": key.kid, "crit": ["exp"]}),
        sign(claims_for(), {}),
        jwt.encode(
            claims_for(),
            rsa.generate_private_key(public_exponent=65537, key_size=2048),
            algorithm="RS256",
            headers={"kid": key.kid},
        ),
        good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB"),
        good.rsplit(".", 1)[0] + ".",
        good + "." + body,
    ]
    for kid in ("", "../../../dev/null", "' OR 1=1 --", "0" * 32, key.kid.upper() + "x", key.kid + "\n", "a" * 5000):
        forged.append(sign(claims_for(), {"kid": kid}))
    header, _, signature = good.split(".")
    forged.append(f"{header}.{segment(claims_for(sub='admin', principal=1))}.{signature}")
    assert sign_in(f"Bearer {good}").is_anonymous
    for token in forged:
        with pytest.raises(CredentialsInvalid):
            sign_in(f"Bearer {token}")


def test_k3_keys_rotate_without_breaking_clients_and_are_stored_encrypted() -> None:
    first = registry_tokens.issue(Actor(), {}).token
    old = SigningKey.objects.get()
    new = registry_tokens.replace_key()
    second = registry_tokens.issue(Actor(), {}).token
    assert jwt.get_unverified_header(second)["kid"] == new.kid != old.kid
    for token in (first, second):
        assert sign_in(f"Bearer {token}").is_anonymous
    assert "PRIVATE" not in old.private and old.secret_key_id == secrets.current_key_id()
    SigningKey.objects.filter(pk=new.pk).update(signs_until=clock.now())
    third = registry_tokens.issue(Actor(), {}).token
    assert jwt.get_unverified_header(third)["kid"] not in (old.kid, new.kid)
    SigningKey.objects.filter(pk=old.pk).update(verifies_until=clock.now() - datetime.timedelta(seconds=1))
    with pytest.raises(CredentialsInvalid):
        sign_in(f"Bearer {first}")
    registry_tokens.replace_key(forget_old=True)
    assert SigningKey.objects.count() == 1
    with pytest.raises(CredentialsInvalid):
        sign_in(f"Bearer {second}")


def test_k3_secrets_survive_a_change_of_the_secret_key() -> None:
    sealed = secrets.encrypt("upstream password")
    assert "upstream" not in str(sealed)
    assert secrets.decrypt(secrets.Sealed.parse(str(sealed))) == "upstream password"
    token = registry_tokens.issue(Actor(), {}).token
    from django.conf import settings

    old = settings.SECRET_KEY
    with override_settings(SECRET_KEY="another key that is long enough 0123456789"):
        with pytest.raises(secrets.SecretUnreadable):
            secrets.decrypt(sealed)
        assert sign_in(f"Bearer {token}").is_anonymous  # verifying needs no secret
        assert sign_in(f"Bearer {registry_tokens.issue(Actor(), {}).token}").is_anonymous
        with override_settings(SECRET_KEY_FALLBACKS=[old]):
            assert secrets.decrypt(sealed) == "upstream password"


# --- guessing --------------------------------------------------------------------------------------------------------


def guess(username: str, address: str) -> None:
    with pytest.raises(CredentialsInvalid):
        sign_in(basic(username, "a wrong password"), address=address)


def test_e8_guessing_is_slowed_per_account_but_not_for_addresses_without_failures() -> None:
    make_user("ada")
    make_user("bob")
    for _ in range(10):
        guess("ada", "192.0.2.66")
    with pytest.raises(TooManyRequests) as caught:
        sign_in(basic("ada", PASSWORD), address="192.0.2.66")
    assert caught.value.retry_after_seconds >= 1
    assert sign_in(basic("ada", PASSWORD), address="198.51.100.7").name == "ada"
    assert sign_in(basic("bob", PASSWORD), address="192.0.2.66").name == "bob"
    guess("ada", "203.0.113.5")  # an address that fails once is among the attackers
    with pytest.raises(TooManyRequests):
        sign_in(basic("ada", PASSWORD), address="203.0.113.5")
    rows = SignInThrottle.objects.filter(key__startswith="account:")
    assert all("ada" not in row.key for row in rows)
    rows.update(blocked_until=clock.now() - datetime.timedelta(seconds=1))
    assert sign_in(basic("ada", PASSWORD), address="192.0.2.66").name == "ada"


def test_e8_the_pause_grows_to_five_minutes_and_fades() -> None:
    now = clock.now()
    for _ in range(10):
        throttle.failed("ada", "192.0.2.1")
    for _ in range(12):
        throttle.failed("ada", "192.0.2.1")
    row = SignInThrottle.objects.get(key__startswith="account:")
    assert row.failures == 22 and row.blocked_until is not None
    assert 250 < (row.blocked_until - now).total_seconds() < 400
    past = now - datetime.timedelta(seconds=throttle.WINDOW_SECONDS + 1)
    SignInThrottle.objects.update(first_at=past, blocked_until=past)
    throttle.check("ada", "192.0.2.1")
    throttle.failed("ada", "192.0.2.1")
    assert SignInThrottle.objects.get(key__startswith="account:").failures == 1


def test_e8_one_address_may_not_try_many_accounts() -> None:
    for number in range(100):
        throttle.failed(f"user-{number}", "2001:db8::1")
    with pytest.raises(TooManyRequests):
        throttle.check("fresh", "2001:db8::ffff")  # the same /64
    throttle.check("fresh", "2001:db8:0:1::1")
    assert SignInThrottle.objects.filter(key="address:2001:db8::/64").exists()
