"""Requests for background work. The row, written in the transaction that causes it, is the truth."""

from __future__ import annotations

from django.db import models


class JobRun(models.Model):
    """`fence` grows with every lease, so that a runner whose lease ended cannot write a result any more."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    kind = models.CharField(max_length=40)
    arguments = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    dedupe_key = models.CharField(max_length=160, blank=True, default="")
    requested_by = models.CharField(max_length=160, blank=True, default="")
    run_after = models.DateTimeField()
    lease = models.CharField(max_length=32, blank=True, default="")
    leased_until = models.DateTimeField(null=True)
    fence = models.BigIntegerField(default=0)
    attempts = models.IntegerField(default=0)
    max_attempts = models.IntegerField(default=5)
    result = models.JSONField(null=True)
    error = models.TextField(blank=True, default="")
    progress = models.JSONField(null=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["state", "run_after"], name="jobrun_due")]
        constraints = [
            models.UniqueConstraint(
                fields=["dedupe_key"],
                condition=models.Q(state="queued") & ~models.Q(dedupe_key=""),
                name="jobrun_queued_once",
            )
        ]


class ScheduleTick(models.Model):
    """When each scheduled job was last requested, so that two schedulers ask once."""

    name = models.CharField(max_length=40, unique=True)
    last_at = models.DateTimeField()
