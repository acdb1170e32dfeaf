"""Facts: the audit log, and later the source of webhooks and replication. They refer by name, so they outlive rows."""

from __future__ import annotations

from django.db import models


class Event(models.Model):
    """Who did what, when, from where, allowed or refused. `revision` orders a repository's changes without gaps."""

    at = models.DateTimeField()
    kind = models.CharField(max_length=40)
    actor = models.CharField(max_length=160)
    actor_id = models.BigIntegerField(null=True)
    address = models.CharField(max_length=64, blank=True, default="")
    request_id = models.CharField(max_length=64, blank=True, default="")
    namespace = models.CharField(max_length=63, blank=True, default="")
    repository = models.CharField(max_length=127, blank=True, default="")
    revision = models.BigIntegerField(null=True)
    subject = models.CharField(max_length=1200, blank=True, default="")
    allowed = models.BooleanField(default=True)
    detail = models.JSONField(default=dict)
    seal = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        indexes = [
            models.Index(fields=["namespace", "-id"], name="event_namespace"),
            models.Index(fields=["actor", "-id"], name="event_actor"),
            models.Index(fields=["kind", "-id"], name="event_kind"),
            models.Index(fields=["repository", "revision"], name="event_revision"),
        ]
