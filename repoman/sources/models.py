"""What a remote repository knows of its upstream besides the content it holds: documents, trouble, and fetches under way."""

from __future__ import annotations

from django.db import models

from repoman.catalog.models import Repository


class UpstreamDocument(models.Model):
    """An upstream's document as it was when the upstream last confirmed it: a listing, what a tag points to, or the
    validators of a file that may change.

    `key` says what of (`sources/remote.py`), `generation` under which settings of the remote it was asked for. `records`
    is the parsed listing (JSON, zlib), `mark` changes whenever they do. `etag` and `last_modified` are the upstream's own,
    of the representation that was read.
    """

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="upstream_documents")
    key = models.CharField(max_length=1200)
    generation = models.IntegerField(default=0)
    url = models.TextField()
    etag = models.CharField(max_length=512, blank=True, default="")
    last_modified = models.CharField(max_length=64, blank=True, default="")
    records = models.BinaryField(null=True)
    mark = models.CharField(max_length=64, blank=True, default="")
    fetched_at = models.DateTimeField()
    checked_at = models.DateTimeField()
    fresh_until = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "key"], name="upstreamdocument_once")]


class UpstreamState(models.Model):
    """A remote's last trouble with its upstream, for people: empty `last_error` means that all is well."""

    repository = models.OneToOneField(Repository, on_delete=models.CASCADE, related_name="upstream_state")
    last_error = models.TextField(blank=True, default="")
    last_status = models.IntegerField(default=0)
    changed_at = models.DateTimeField()


class Fill(models.Model):
    """A fetch that some process has under way, so that no other begins the same. `holder` is its mark (`jobs/holder.py`).

    A fetch that failed leaves its `error` for a moment, so that those who waited do not try one after the other.
    """

    key = models.CharField(max_length=700, unique=True)
    holder = models.CharField(max_length=64)
    until = models.DateTimeField()
    error = models.JSONField(null=True)
