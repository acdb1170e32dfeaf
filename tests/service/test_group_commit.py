"""Writers of one process that come together commit together, and none of them can tell (`db/group.py`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction

from repoman.catalog.models import Namespace, Package
from repoman.core import clock
from repoman.core.errors import Conflict
from repoman.db.group import CommitGroup, commit

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 12


def make(name: str) -> Callable[[], Namespace]:
    return lambda: Namespace.objects.create(name=name, created_at=clock.now())


def all_at_once(blocks: list[Callable[[], Any]], group: CommitGroup) -> list[Any]:
    """What each block gave or raised. They queue up behind one that holds the writer's place."""
    outcomes: list[Any] = [None] * len(blocks)
    may_go, is_in = threading.Event(), threading.Event()

    def hold() -> None:
        is_in.set()
        may_go.wait(20)

    def work(number: int) -> None:
        try:
            outcomes[number] = group.run(blocks[number])
        except Exception as error:
            outcomes[number] = error
        finally:
            connection.close()

    def first() -> None:
        try:
            group.run(hold)
        finally:
            connection.close()

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert is_in.wait(20)
    threads += [threading.Thread(target=work, args=(number,)) for number in range(len(blocks))]
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting) < len(blocks):
        pass
    may_go.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return outcomes


def test_those_who_wait_share_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    wrapper = type(connections["default"])
    real = wrapper._commit
    monkeypatch.setattr(wrapper, "_commit", lambda self: (commits.append(1), real(self))[1])
    outcomes = all_at_once([make(f"n{number}") for number in range(THREADS)], CommitGroup())
    assert all(isinstance(outcome, Namespace) for outcome in outcomes), outcomes
    assert Namespace.objects.count() == THREADS
    assert len(commits) == 2  # the one that held the place, and all the others together


def test_a_block_that_raises_undoes_only_itself() -> None:
    def refused() -> None:
        make("never")()
        raise Conflict("no")

    def twice() -> None:
        make("n1")()

    outcomes = all_at_once([make("n1"), refused, twice, make("n2")], CommitGroup())
    assert isinstance(outcomes[1], Conflict)
    assert sum(isinstance(outcome, IntegrityError) for outcome in outcomes) == 1
    assert set(Namespace.objects.values_list("name", flat=True)) == {"n1", "n2"}


def test_a_commit_that_fails_is_repeated_one_by_one() -> None:
    """A foreign key that points nowhere shows only at the commit, which is everybody's."""

    def dangling() -> None:
        Package.objects.bulk_create([Package(repository_id=987_654, name="x", created_at=clock.now())])

    outcomes = all_at_once([make("n1"), dangling, make("n2")], CommitGroup())
    assert isinstance(outcomes[1], IntegrityError)
    assert isinstance(outcomes[0], Namespace) and isinstance(outcomes[2], Namespace)
    assert set(Namespace.objects.values_list("name", flat=True)) == {"n1", "n2"}


def test_what_is_to_happen_after_the_commit_happens_once_for_each() -> None:
    happened: list[str] = []

    def block(name: str, fails: bool) -> Callable[[], None]:
        def run() -> None:
            make(name)()
            transaction.on_commit(lambda: happened.append(name))
            if fails:
                raise Conflict("no")

        return run

    all_at_once([block(f"n{number}", number % 3 == 0) for number in range(9)], CommitGroup())
    assert sorted(happened) == ["n1", "n2", "n4", "n5", "n7", "n8"]


def test_one_alone_runs_in_its_own_transaction() -> None:
    def block() -> bool:
        assert connection.in_atomic_block and not connection.savepoint_ids
        return True

    assert commit(block)
    with pytest.raises(Conflict):

        def refused() -> None:
            make("never")()
            raise Conflict("no")

        commit(refused)
    assert not Namespace.objects.exists()
