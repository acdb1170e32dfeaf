"""The nouns: namespaces, repositories and what they hold.

Rows that clients see are closed, not deleted: `added_revision` is the repository's revision that made them visible,
`removed_revision` (empty while live) the one that took them away. Uniqueness is partial on live rows. A purge drops
closed rows when the trash window has passed; only then may the collector take their bytes.
"""

from __future__ import annotations

from django.db import models

from repoman.blobs.models import Blob

LIVE = models.Q(removed_revision__isnull=True)


class Namespace(models.Model):
    """A tenant. `used_bytes`: the sizes of its Holdings; `reserved_bytes`: its unfinished uploads."""

    name = models.CharField(max_length=63, unique=True)
    description = models.TextField(blank=True, default="")
    quota_bytes = models.BigIntegerField(null=True)
    used_bytes = models.BigIntegerField(default=0)
    reserved_bytes = models.BigIntegerField(default=0)
    created_by = models.ForeignKey("access.Principal", on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(used_bytes__gte=0, reserved_bytes__gte=0), name="namespace_usage_not_negative"
            )
        ]


class Repository(models.Model):
    """One format, one type. `key` is `namespace/name` and never changes; `revision` counts visible changes."""

    class Type(models.TextChoices):
        LOCAL = "local"
        REMOTE = "remote"
        VIRTUAL = "virtual"

    class State(models.TextChoices):
        ACTIVE = "active"
        READ_ONLY = "read_only"
        DELETING = "deleting"

    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT, related_name="repositories")
    name = models.CharField(max_length=63)
    key = models.CharField(max_length=127, unique=True)
    format = models.CharField(max_length=32)
    type = models.CharField(max_length=8, choices=Type.choices, default=Type.LOCAL)
    state = models.CharField(max_length=12, choices=State.choices, default=State.ACTIVE)
    description = models.TextField(blank=True, default="")
    anonymous_read = models.BooleanField(default=False)
    options = models.JSONField(default=dict)
    remote = models.JSONField(null=True)
    deploy_target = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="+")
    revision = models.BigIntegerField(default=0)
    created_by = models.ForeignKey("access.Principal", on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField()


class RepositoryMember(models.Model):
    """A repository inside a virtual one, at a position in its order."""

    virtual = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="members")
    member = models.ForeignKey(Repository, on_delete=models.PROTECT, related_name="member_of")
    position = models.IntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["virtual", "member"], name="repositorymember_once")]


class Package(models.Model):
    """A name inside a repository, as the format's `normalize` gives it. Rows stay: they are only names.

    `revision`: the repository's that last changed what the package shows; documents about it are kept until it moves.
    `metadata` is the format's own, about the package itself.
    """

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="packages")
    name = models.CharField(max_length=1024)
    display_name = models.CharField(max_length=1024, blank=True, default="")
    revision = models.BigIntegerField(default=0)
    changed_at = models.DateTimeField(null=True)
    metadata = models.JSONField(default=dict)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "name"], name="package_once")]


class Content(models.Model):
    """What versions and artifacts share: when and by whom they came, and whether gates let them be read."""

    class Gate(models.TextChoices):
        OPEN = "open"
        BLOCKED = "blocked"

    gate_state = models.CharField(max_length=8, choices=Gate.choices, default=Gate.OPEN)
    metadata = models.JSONField(default=dict)
    uploaded_by = models.ForeignKey("access.Principal", on_delete=models.SET_NULL, null=True, related_name="+")
    origin = models.CharField(max_length=255, blank=True, default="")
    upstream_published_at = models.DateTimeField(null=True)
    first_seen_at = models.DateTimeField()
    last_downloaded_at = models.DateTimeField(null=True)
    added_revision = models.BigIntegerField(null=True)
    removed_revision = models.BigIntegerField(null=True)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class Artifact(Content):
    """A path in a package that points at a blob.

    `held_by_version`: kept only while a version (live or in the trash) names it, or a client was told of it within the
    grace (`touched_at`). `added_revision` empty: uploaded, readable by name, but in no version yet.
    """

    package = models.ForeignKey(Package, on_delete=models.CASCADE, related_name="artifacts")
    path = models.CharField(max_length=1024)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="artifacts")
    media_type = models.CharField(max_length=255, blank=True, default="")
    held_by_version = models.BooleanField(default=False)
    touched_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["package", "path"], condition=LIVE, name="artifact_live_once")]
        indexes = [
            models.Index(fields=["removed_at"], condition=~LIVE, name="artifact_trash"),
            models.Index(fields=["touched_at"], condition=LIVE & models.Q(held_by_version=True), name="artifact_held"),
        ]


class Version(Content):
    """One immutable release; for OCI one manifest, named by its digest, whose bytes are `blob`."""

    package = models.ForeignKey(Package, on_delete=models.CASCADE, related_name="versions")
    name = models.CharField(max_length=255)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, null=True, related_name="versions")
    media_type = models.CharField(max_length=255, blank=True, default="")
    artifact_type = models.CharField(max_length=255, blank=True, default="")
    subject = models.CharField(max_length=160, blank=True, default="")
    is_yanked = models.BooleanField(default=False)
    yanked_reason = models.TextField(blank=True, default="")
    deprecated = models.TextField(blank=True, default="")
    artifacts = models.ManyToManyField(Artifact, through="VersionArtifact", related_name="versions")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["package", "name"], condition=LIVE, name="version_live_once")]
        indexes = [
            models.Index(fields=["package", "subject"], condition=LIVE & ~models.Q(subject=""), name="version_subject"),
            models.Index(fields=["removed_at"], condition=~LIVE, name="version_trash"),
        ]


class VersionArtifact(models.Model):
    version = models.ForeignKey(Version, on_delete=models.CASCADE)
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "artifact"], name="versionartifact_once")]


class Tag(models.Model):
    """A mutable name for a version. A move closes this row and adds another, so history stays."""

    package = models.ForeignKey(Package, on_delete=models.CASCADE, related_name="tags")
    name = models.CharField(max_length=128)
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="tags")
    moved_by = models.ForeignKey("access.Principal", on_delete=models.SET_NULL, null=True, related_name="+")
    moved_at = models.DateTimeField()
    added_revision = models.BigIntegerField()
    removed_revision = models.BigIntegerField(null=True)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["package", "name"], condition=LIVE, name="tag_live_once")]
        indexes = [
            models.Index(fields=["removed_at"], condition=~LIVE, name="tag_trash"),
            models.Index(fields=["version"], condition=LIVE, name="tag_version_live"),
        ]


class Burned(models.Model):
    """A version's or file's name that was removed and that other content never takes, also when the trash is empty.

    `digest`: the sha256 that stood there, where there was one. Bringing content back (undelete) lifts it.
    """

    package = models.ForeignKey(Package, on_delete=models.CASCADE, related_name="burned")
    name = models.CharField(max_length=1024)
    digest = models.CharField(max_length=64, blank=True, default="")
    burned_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["package", "name"], name="burned_once")]


class Announced(models.Model):
    """A digest that was told of a file before the file came (`services/announced.py`). The package may never be."""

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="announced")
    package = models.CharField(max_length=1024)
    path = models.CharField(max_length=1024)
    algorithm = models.CharField(max_length=16)
    hex = models.CharField(max_length=128)
    told_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["repository", "package", "path", "algorithm"], name="announced_once")
        ]
        indexes = [models.Index(fields=["repository", "told_at"], name="announced_age")]


class Holding(models.Model):
    """That a namespace holds a blob: the only reference the collector looks at, and what quota counts.

    Made with the first row of the namespace that names the blob; dropped by purge and collection when the last is gone.
    """

    namespace = models.ForeignKey(Namespace, on_delete=models.CASCADE, related_name="holdings")
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="holdings")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["namespace", "blob"], name="holding_once")]
