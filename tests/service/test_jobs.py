"""The queue, its leases, the runner and the schedule: a job happens once, whatever happens to who does it."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from repoman.core import clock
from repoman.core.errors import BadRequest, Conflict, Unavailable
from repoman.jobs import heartbeat, holder, kinds, poke, queue
from repoman.jobs.lease import LeaseBusy, NamedLease
from repoman.jobs.models import JobRun, ScheduleTick
from repoman.jobs.moment import database_now
from repoman.jobs.queue import LeaseLost
from workers import runner, schedule, table

from .content import make_repository, push, together

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = datetime.timedelta(hours=1)


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """No broker: what would have been sent to it."""
    messages: list[str] = []
    monkeypatch.setattr(queue, "poke", lambda: messages.append(poke.WAKE_TASK))
    yield messages


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Jobs of the kind `purge` do what a test puts here, in turn; then they succeed."""
    steps: list[Any] = []

    def job(progress: Any, **arguments: Any) -> Mapping[str, Any]:
        step = steps.pop(0) if steps else None
        if isinstance(step, BaseException):
            raise step
        return step(progress, **arguments) if step else {"done": 1}

    monkeypatch.setattr(runner, "job_for", lambda kind: job if kind == "purge" else table.job_for(kind))
    yield steps


def ask(kind: str = "purge", **options: Any) -> JobRun:
    with transaction.atomic(durable=True):
        return queue.request(kind, **options)


def due_now() -> None:
    JobRun.objects.update(run_after=database_now() - LONG_AGO)


def lease_ended() -> None:
    JobRun.objects.update(leased_until=database_now() - LONG_AGO)


def test_request_is_part_of_its_transaction_and_wakes_after_it(sent):
    with pytest.raises(RuntimeError), transaction.atomic(durable=True):
        queue.request("purge")
        raise RuntimeError
    assert not JobRun.objects.exists() and not sent
    with transaction.atomic(durable=True):
        queue.request("purge", {"window_seconds": 5}, requested_by="ann")
        assert not sent
    assert len(sent) == 1
    run = JobRun.objects.get()
    assert (run.state, run.arguments, run.requested_by) == ("queued", {"window_seconds": 5}, "ann")


def test_kinds_and_arguments_are_checked_when_they_are_asked_for():
    for kind, arguments in (
        ("destroy", {}),
        ("collect", {"grace": 1}),
        ("collect", {"grace_seconds": -1}),
        ("collect", {"grace_seconds": True}),
        ("collect", {"force": 1}),
        ("fsck", {"rehash": "yes"}),
    ):
        with pytest.raises(BadRequest):
            kinds.validate(kind, arguments)
    kinds.validate("delete_repository", {"repository_id": 1})
    with pytest.raises(BadRequest):
        kinds.validate("delete_repository", {"repository_id": 1}, public=True)


def test_each_kind_has_its_code_and_each_scheduled_kind_is_known():
    assert set(table.JOBS) == set(kinds.KINDS)
    for kind in table.JOBS:
        assert callable(table.job_for(kind))
    for entry in schedule.SCHEDULE:
        kinds.validate(entry.kind, entry.arguments)


def test_one_queued_request_per_dedupe_key_while_none_of_it_runs(doing):
    first = ask(dedupe_key="once")
    assert ask(dedupe_key="once").pk == first.pk
    held = queue.lease()
    assert held is not None
    second = ask(dedupe_key="once")
    assert second.pk != first.pk, "what runs already may have looked before this request's change"
    queue.later(held, 0)
    first.refresh_from_db()
    assert first.state == "failed" and "later request" in first.error


def test_dedupe_holds_between_transactions_that_run_at_once():
    assert together(*[lambda: ask(dedupe_key="once")] * 8) == [None] * 8
    assert JobRun.objects.count() == 1


def test_job_is_done_and_its_result_kept(doing):
    run = ask()
    assert runner.run_next() and not runner.run_next()
    run.refresh_from_db()
    assert (run.state, run.result, run.attempts, run.lease) == ("succeeded", {"done": 1}, 1, "")
    assert run.started_at <= run.finished_at


def test_job_waits_for_its_time(doing):
    ask(run_after=database_now() + LONG_AGO)
    assert not runner.run_next()
    due_now()
    assert runner.run_next()


def test_P1_five_messages_at_once_have_one_effect(doing):
    done = []
    doing.append(lambda progress: done.append(1) or {})
    ask()
    assert together(*[runner.run_all] * 5) == [None] * 5
    assert done == [1]


def test_P5_poison_job_is_tried_a_bounded_number_of_times_and_stays_visible(doing):
    for number in range(1, 4):
        doing.extend((ValueError(f"attempt {number}"), None))  # the poison's turn, then the other's
    run = ask(max_attempts=3)
    for attempt in range(1, 4):
        other = ask()
        due_now()
        while runner.run_next():
            pass
        run.refresh_from_db()
        other.refresh_from_db()
        assert other.state == "succeeded", "the queue moves on"
        if attempt < 3:
            assert run.state == "queued" and run.run_after > database_now()
    assert run.state == "failed" and run.attempts == 3 and "attempt 3" in run.error


def test_pauses_between_attempts_double(doing):
    run = ask(max_attempts=9)
    pauses = []
    for _ in range(3):
        due_now()
        doing.append(Unavailable("the store is away"))
        runner.run_next()
        run.refresh_from_db()
        pauses.append(round((run.run_after - database_now()).total_seconds() / 5))
    assert pauses == [1, 2, 4]


def test_P5_job_that_kills_its_worker_is_failed_after_its_last_attempt():
    run = ask(max_attempts=2)
    for _ in range(2):
        assert queue.lease() is not None  # and the process is gone
        lease_ended()
    assert queue.lease() is None
    run.refresh_from_db()
    assert run.state == "failed" and "the worker ended during attempt 2 of 2" in run.error


def test_refusal_that_would_be_repeated_is_not_tried_again(doing):
    doing.append(Conflict("more than half would go"))
    run = ask()
    runner.run_next()
    run.refresh_from_db()
    assert run.state == "failed" and run.attempts == 1 and "more than half would go" in run.error


def test_P2_job_of_a_killed_worker_is_taken_over(doing):
    run = ask()
    assert queue.lease() is not None
    assert not runner.run_next(), "its lease still stands"
    lease_ended()
    assert runner.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded" and run.attempts == 2


def test_P4_holder_that_wakes_after_its_lease_ended_is_refused(doing):
    run = ask()
    sleeper = queue.lease()
    lease_ended()
    successor = queue.lease()
    for late in (
        lambda: queue.renew(sleeper),
        lambda: queue.succeed(sleeper, {"by": "sleeper"}),
        lambda: queue.fail(sleeper, "no"),
        lambda: queue.retry(sleeper, "no"),
        lambda: queue.later(sleeper, 0),
    ):
        with pytest.raises(LeaseLost):
            late()
    queue.renew(successor)
    queue.succeed(successor, {"by": "successor"})
    run.refresh_from_db()
    assert run.result == {"by": "successor"}
    with pytest.raises(LeaseLost):
        queue.succeed(successor, {})


def test_P4_running_job_learns_that_it_was_taken_over_and_writes_nothing(doing, monkeypatch):
    monkeypatch.setattr(runner, "RENEW_SECONDS", 0.01)
    run = ask()

    def slow(progress: Any) -> Mapping[str, Any]:
        JobRun.objects.filter(pk=run.pk).update(fence=99)  # somebody else leased it
        for _ in range(1000):
            progress("working", {})
            threading.Event().wait(0.01)
        raise AssertionError("it was never told")

    doing.append(slow)
    assert runner.run_next()
    run.refresh_from_db()
    assert run.state == "running" and run.result is None


def test_lease_of_a_running_job_is_renewed_with_its_progress(doing, monkeypatch):
    monkeypatch.setattr(runner, "RENEW_SECONDS", 0.01)
    run = ask()
    seen = []

    def slow(progress: Any) -> Mapping[str, Any]:
        progress("counting", {"files": 7})
        first = JobRun.objects.get(pk=run.pk).leased_until
        for _ in range(500):
            current = JobRun.objects.get(pk=run.pk)
            if current.leased_until > first and current.progress:
                seen.append(current.progress)
                return {}
            threading.Event().wait(0.01)
        raise AssertionError("the lease was never renewed")

    doing.append(slow)
    runner.run_next()
    run.refresh_from_db()
    assert seen == [{"step": "counting", "files": 7}] and run.state == "succeeded" and run.progress is None


def test_job_goes_back_to_the_queue_when_the_worker_stops(doing):
    stopping = threading.Event()

    def long(progress: Any) -> Mapping[str, Any]:
        stopping.set()
        progress("first batch", {})
        raise AssertionError("it was not stopped")

    doing.append(long)
    run = ask()
    assert runner.run_next(stopping)
    run.refresh_from_db()
    assert (run.state, run.attempts) == ("queued", 0)


def test_Q7_collection_waits_for_the_one_that_runs(blob_store, actor, namespace):
    push(make_repository(namespace), actor, b"layer")
    run = ask("collect", arguments={"grace_seconds": 0})
    with NamedLease("collect"):
        runner.run_next()
    run.refresh_from_db()
    assert (run.state, run.attempts) == ("queued", 0)
    due_now()
    runner.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded" and run.result["blobs"] == 1 and run.result["bytes"] == 5


def test_P6_job_about_something_deleted_ends_well(blob_store):
    run = ask("delete_repository", arguments={"repository_id": 4711})
    runner.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded" and run.result == {"repositories": 0}


def test_unknown_kind_of_an_older_or_newer_release_fails_visibly():
    now = database_now()
    run = JobRun.objects.create(kind="teleport", run_after=now, created_at=now, max_attempts=1)
    runner.run_next()
    run.refresh_from_db()
    assert run.state == "failed" and "teleport" in run.error


def test_P5_two_schedulers_request_each_tick_once():
    entries = (schedule.Entry("one", "purge", 60), schedule.Entry("two", "fsck", 60))
    assert schedule.tick(entries) == [], "the first period starts now"
    assert schedule.tick(entries) == []
    ScheduleTick.objects.update(last_at=database_now() - LONG_AGO)
    ticks: list[str] = []
    assert together(*[lambda: ticks.extend(schedule.tick(entries))] * 4) == [None] * 4
    assert sorted(ticks) == ["one", "two"]
    assert sorted(JobRun.objects.values_list("kind", flat=True)) == ["fsck", "purge"]


def test_schedule_does_not_pile_up_while_nobody_works():
    entries = (schedule.Entry("one", "purge", 60),)
    schedule.tick(entries)
    for _ in range(3):
        ScheduleTick.objects.update(last_at=database_now() - LONG_AGO)
        assert schedule.tick(entries) == ["one"]
    assert JobRun.objects.count() == 1


def test_schedule_goes_on_after_the_clock_was_set_back():
    entries = (schedule.Entry("one", "purge", 60),)
    schedule.tick(entries)
    ScheduleTick.objects.update(last_at=database_now() + datetime.timedelta(days=30))
    assert schedule.tick(entries) == ["one"] and schedule.tick(entries) == []


def test_worker_is_seen_while_it_beats():
    assert not heartbeat.worker_seen(20)
    heartbeat.beat()
    heartbeat.beat()
    assert heartbeat.worker_seen(20)
    ScheduleTick.objects.update(last_at=database_now() - LONG_AGO)
    assert not heartbeat.worker_seen(20)


def test_P3_worker_finds_work_that_nobody_told_it_of(doing, monkeypatch):
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)
    done = threading.Event()
    doing.append(lambda progress: done.set() or {})
    worker = runner.Runner()
    worker.start()
    try:
        ask()
        assert done.wait(30)
    finally:
        assert worker.stop()
    assert heartbeat.worker_seen(60)


def test_P3_broker_that_is_down_neither_fails_nor_delays_a_request(monkeypatch):
    class App:
        def send_task(self, *_arguments: object, **_options: object) -> None:
            raise ConnectionRefusedError("no broker")

    import repoman.celery

    monkeypatch.setattr(repoman.celery, "app", App())
    monkeypatch.setattr(queue, "poke", poke.poke)
    run = ask()
    poke._send()
    assert JobRun.objects.get() == run


def test_finished_rows_are_forgotten_and_failed_ones_kept_longer():
    now = database_now()
    for state, days in (("succeeded", 8), ("succeeded", 1), ("failed", 8), ("failed", 80), ("queued", 80)):
        at = now - datetime.timedelta(days=days)
        JobRun.objects.create(kind="purge", state=state, run_after=at, created_at=at, finished_at=at)
    assert queue.forget_finished(datetime.timedelta(days=7), batch=1) == 2
    assert sorted(JobRun.objects.values_list("state", flat=True)) == ["failed", "queued", "succeeded"]


# --- commands


def command(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_run_job_does_it_here_and_says_how_it_went(blob_store, actor, namespace):
    push(make_repository(namespace), actor, b"layer")
    outcome = json.loads(command("run_job", "collect", "grace_seconds=0", "--json"))
    assert outcome["state"] == "succeeded" and outcome["result"]["bytes"] == 5
    assert "succeeded" in command("run_job", "purge")
    with pytest.raises(CommandError, match="not an argument of purge"):
        command("run_job", "purge", "grace=1")
    with pytest.raises(CommandError, match="NAME=VALUE"):
        command("run_job", "purge", "grace")


def test_jobs_lists_them_and_gives_a_failed_one_another_chance(doing):
    doing.append(Conflict("not today"))
    run = ask()
    runner.run_next()
    listed = [json.loads(line) for line in command("jobs", "--state", "failed", "--json").splitlines()]
    assert [one["id"] for one in listed] == [run.pk] and "not today" in listed[0]["error"]
    assert "not today" in command("jobs")
    command("jobs", "--retry", str(run.pk))
    assert runner.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded"
    with pytest.raises(CommandError, match="no failed job"):
        command("jobs", "--retry", str(run.pk))


def test_command_says_in_one_line_that_another_collection_runs(blob_store):
    with NamedLease("collect"), pytest.raises(CommandError, match="running elsewhere"):
        command("collect")


def test_commands_print_counts_for_people_and_programs(blob_store, actor, namespace):
    push(make_repository(namespace), actor, b"x" * 2048)
    assert json.loads(command("collect", "--dry-run", "--grace-seconds", "0", "--json"))["files"] == 1
    assert "bytes: 2.0 KiB (2048 bytes)" in command("collect", "--grace-seconds", "0")
    assert set(json.loads(command("purge", "--json"))) >= {"versions", "files", "bytes"}


def test_hostile_message_is_not_decoded():
    """P7: the worker's settings accept nothing but JSON, and the tasks take no arguments."""
    code = (
        "import django; django.setup(); import repoman.celery as c, workers.tasks as t; "
        "assert c.app.conf.accept_content == ['json']; print(sorted(n for n in c.app.tasks if n.startswith('repoman')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "['repoman.jobs.tick', 'repoman.jobs.wake']", done.stderr


def test_clock_of_the_database_is_near_ours():
    assert abs((database_now() - clock.now()).total_seconds()) < 60


def killed_process() -> str:
    """The mark of a process of this machine that is gone."""
    code = "from repoman.jobs.holder import mark; print(mark())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_holder_is_dead_only_when_it_is_known_to_be():
    gone = killed_process()
    assert holder.is_dead(gone) and holder.is_dead(gone + ".abcdef")
    assert not holder.is_dead(holder.mark())
    machine, pid, started = gone.split(".")
    assert not holder.is_dead(f"0{machine[1:]}.{pid}.{started}" if machine[0] != "0" else f"1{machine[1:]}.{pid}.0")
    machine, pid, started = holder.mark().split(".")
    assert holder.is_dead(f"{machine}.{pid}.1"), "another process has its number now"
    for odd in ("", "x", "a.b.c", machine, f"{machine}.zz.1"):
        assert not holder.is_dead(odd)
    assert len(holder.mark()) <= holder.MARK_CHARACTERS


def test_P2_job_of_a_runner_killed_on_this_machine_is_not_waited_for(doing):
    run = ask()
    assert queue.lease() is not None
    assert queue.free_orphans() == 0 and not runner.run_next(), "its runner lives"
    JobRun.objects.update(lease=killed_process())
    assert queue.free_orphans() == 1
    assert runner.run_next()
    run.refresh_from_db()
    assert run.state == "succeeded"


def test_lease_of_a_process_killed_on_this_machine_is_not_waited_for():
    def hold(mark: str) -> None:
        ScheduleTick.objects.all().delete()
        later = database_now() + datetime.timedelta(seconds=90)
        ScheduleTick.objects.create(name="lease:work", last_at=later)
        ScheduleTick.objects.create(name=f"by:work:{mark}", last_at=later)

    hold(killed_process())
    with NamedLease("work"), pytest.raises(LeaseBusy), NamedLease("work"):
        pass
    assert ScheduleTick.objects.count() == 1
    hold("00000000.1.1")  # on another machine nobody can tell
    with pytest.raises(LeaseBusy), NamedLease("work"):
        pass
