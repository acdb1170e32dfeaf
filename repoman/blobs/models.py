"""Rows about bytes. A Blob row exists only for bytes that are durable; a key that left service becomes a Tombstone."""

from __future__ import annotations

from django.db import models


class Blob(models.Model):
    """Bytes stored once. `digest` is the sha256 in hex; `storage_key` is never used for anything else again.

    `stamp` is the driver's mark of the bytes as written (a file's modification time): where it differs on disk, the
    bytes are hashed again before any is served. `touched_at`: when a client was last told they are here.
    """

    class State(models.TextChoices):
        PRESENT = "present"
        SUSPECT = "suspect"  # failed a check; reads fail until a new upload or a repair heals it

    digest = models.CharField(max_length=64, unique=True)
    size = models.BigIntegerField()
    storage_key = models.CharField(max_length=160, unique=True)
    stamp = models.CharField(max_length=128)
    store = models.CharField(max_length=32, default="default")
    state = models.CharField(max_length=8, choices=State.choices, default=State.PRESENT)
    created_at = models.DateTimeField()
    touched_at = models.DateTimeField()
    verified_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(size__gte=0), name="blob_size_not_negative")]
        indexes = [models.Index(fields=["touched_at"], name="blob_touched")]


class BlobDigest(models.Model):
    """Another digest of a blob's bytes, remembered when a client named it."""

    blob = models.ForeignKey(Blob, on_delete=models.CASCADE, related_name="digests")
    algorithm = models.CharField(max_length=16)
    hex = models.CharField(max_length=128)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["blob", "algorithm"], name="blobdigest_once")]
        indexes = [models.Index(fields=["algorithm", "hex"], name="blobdigest_hex")]


class Tombstone(models.Model):
    """A storage key whose bytes may be removed: no row can name it any more."""

    storage_key = models.CharField(max_length=160, unique=True)
    store = models.CharField(max_length=32, default="default")
    size = models.BigIntegerField(default=0)
    created_at = models.DateTimeField()


class EndedUpload(models.Model):
    """The id of a transfer that ended, kept as long as somebody could still name it: it does not begin anew."""

    id = models.CharField(primary_key=True, max_length=32)
    ended_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["ended_at"], name="endedupload_at")]


class Upload(models.Model):
    """A resumable transfer, from the first bytes that it kept on: before, it is only an id (`services/upload.py`).

    `resume` is the driver's token, `hash_state` the saved sha256 at `offset`.

    `lease` is the request that is appending right now; nobody else may until it ends or `leased_until` passes.
    `target` is the storage key that a request which finishes the session is about to give its bytes: if it is killed
    before a row names them, the next one finds them there.
    `reserved` bytes are counted in the namespace while the session lasts.
    """

    id = models.CharField(primary_key=True, max_length=32)
    repository = models.ForeignKey("catalog.Repository", on_delete=models.CASCADE, related_name="uploads")
    package = models.CharField(max_length=255)
    principal = models.ForeignKey("access.Principal", on_delete=models.CASCADE, null=True)
    algorithm = models.CharField(max_length=16, default="sha256")
    offset = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    resume = models.TextField(blank=True, default="")
    hash_state = models.BinaryField(null=True)
    target = models.CharField(max_length=160, blank=True, default="")
    lease = models.CharField(max_length=32, blank=True, default="")
    leased_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    touched_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["touched_at"], name="upload_touched")]


class Store(models.Model):
    """A blob store this installation has begun to use. Once `is_initialised`, an empty one is a lost one."""

    name = models.CharField(max_length=32, unique=True)
    instance_id = models.CharField(max_length=32)
    is_initialised = models.BooleanField(default=False)
    created_at = models.DateTimeField()
