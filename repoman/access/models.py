"""Who may act, and with what. Secrets are kept only as hashes, or encrypted with a named key."""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class PrincipalManager(BaseUserManager["Principal"]):
    def get_by_natural_key(self, username: str | None) -> Principal:
        return self.get(username=username)


class Principal(AbstractBaseUser):
    """A user, a group, or a namespace's service account. The password, where there is one, is on the Identity."""

    class Kind(models.TextChoices):
        USER = "user"
        GROUP = "group"
        SERVICE = "service"

    password = None  # type: ignore[assignment]
    last_login = None  # type: ignore[assignment]
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.USER)
    username = models.CharField(max_length=128, unique=True)
    email = models.EmailField(blank=True, default="")
    namespace = models.ForeignKey("catalog.Namespace", on_delete=models.CASCADE, null=True, related_name="principals")
    is_admin = models.BooleanField(default=False)
    is_disabled = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    objects = PrincipalManager()
    USERNAME_FIELD = "username"

    @property
    def is_active(self) -> bool:  # type: ignore[override]
        return not self.is_disabled


class Membership(models.Model):
    group = models.ForeignKey(Principal, on_delete=models.CASCADE, related_name="memberships")
    member = models.ForeignKey(Principal, on_delete=models.CASCADE, related_name="groups")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "member"], name="membership_once")]


class Identity(models.Model):
    """How a principal signs in: (issuer, subject), with a password hash for the issuer "local"."""

    principal = models.ForeignKey(Principal, on_delete=models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=255, default="local")
    subject = models.CharField(max_length=255)
    password_hash = models.CharField(max_length=255, blank=True, default="")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="identity_once")]


class Token(models.Model):
    """An API token: 256 random bits, kept as their sha256. `actions` and `repositories` (ids) narrow the owner."""

    principal = models.ForeignKey(Principal, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=128)
    secret_hash = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=16)
    actions = models.JSONField(default=list)
    repositories = models.JSONField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)


class Grant(models.Model):
    """A role on a namespace, or on one repository: exactly one of the two."""

    principal = models.ForeignKey(Principal, on_delete=models.CASCADE, related_name="grants")
    namespace = models.ForeignKey("catalog.Namespace", on_delete=models.CASCADE, null=True, related_name="grants")
    repository = models.ForeignKey("catalog.Repository", on_delete=models.CASCADE, null=True, related_name="grants")
    role = models.CharField(max_length=16)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["principal", "namespace"], condition=models.Q(namespace__isnull=False), name="grant_namespace"
            ),
            models.UniqueConstraint(
                fields=["principal", "repository"],
                condition=models.Q(repository__isnull=False),
                name="grant_repository",
            ),
            models.CheckConstraint(
                condition=models.Q(namespace__isnull=True, repository__isnull=False)
                | models.Q(namespace__isnull=False, repository__isnull=True),
                name="grant_one_target",
            ),
        ]


class AccessEpoch(models.Model):
    """One row: a number that every change to access raises in its own transaction.

    Each process compares it before it uses a remembered "allowed", so a revoked token is refused everywhere at once.
    """

    value = models.BigIntegerField(default=1)


class SigningKey(models.Model):
    """An asymmetric key for registry tokens. `private` is encrypted with the secret key named `secret_key_id`."""

    kid = models.CharField(max_length=32, unique=True)
    private = models.TextField()
    secret_key_id = models.CharField(max_length=16)
    public = models.TextField()
    created_at = models.DateTimeField()
    signs_until = models.DateTimeField()
    verifies_until = models.DateTimeField()


class SignInThrottle(models.Model):
    """Wrong passwords lately, per account ("account:name") and per address ("address:…")."""

    key = models.CharField(max_length=200, unique=True)
    failures = models.IntegerField(default=0)
    first_at = models.DateTimeField()
    blocked_until = models.DateTimeField(null=True)


class PublishingKey(models.Model):
    """A key that signs what is published here; `private` as in SigningKey, `public` the SubjectPublicKeyInfo in base64.

    Once `expires_at` is set it signs nothing more, but what it signed before stays good.
    """

    keyid = models.CharField(max_length=64, unique=True)
    private = models.TextField()
    secret_key_id = models.CharField(max_length=16)
    public = models.TextField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
