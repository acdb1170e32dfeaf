"""Digests computed across requests equal digests computed in one go."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repoman.core import hashing
from repoman.core.hashing import STATE_SIZE, MultiHasher, Sha256


@given(st.lists(st.binary(max_size=300), max_size=12))
def test_d9_saved_and_restored_after_every_piece_equals_hashlib(pieces: list[bytes]) -> None:
    hasher = Sha256()
    for piece in pieces:
        hasher.update(piece)
        state = hasher.state()
        assert state is not None
        assert len(state) == STATE_SIZE
        hasher = Sha256.restore(state)
    whole = b"".join(pieces)
    assert hasher.hexdigest() == hashlib.sha256(whole).hexdigest()
    assert hasher.size == len(whole)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 2047, 2048, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_every_kind_of_buffer_is_hashed_alike(size: int, kind: type) -> None:
    data = bytes(index % 251 for index in range(size))
    hasher = Sha256()
    hasher.update(kind(data))
    assert hasher.hexdigest() == hashlib.sha256(data).hexdigest()


def test_a_slice_of_a_view_is_hashed_from_its_own_start() -> None:
    data = bytes(range(256)) * 64
    hasher = Sha256()
    hasher.update(memoryview(data)[100:5000])
    assert hasher.hexdigest() == hashlib.sha256(data[100:5000]).hexdigest()


def test_a_view_of_wider_items_counts_bytes() -> None:
    data = bytes(range(256)) * 16
    hasher = Sha256()
    hasher.update(memoryview(data).cast("I"))
    assert (hasher.size, hasher.hexdigest()) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_view_with_gaps_is_refused_and_a_bytearray_can_be_resized_afterwards() -> None:
    data = bytearray(5000)
    with pytest.raises(BufferError):
        Sha256().update(memoryview(data)[::2])
    Sha256().update(data)
    data.append(1)


def test_asking_for_the_digest_does_not_end_the_hashing() -> None:
    hasher = Sha256()
    hasher.update(b"ab")
    assert hasher.hexdigest() == hashlib.sha256(b"ab").hexdigest()
    hasher.update(b"c")
    assert hasher.hexdigest() == hashlib.sha256(b"abc").hexdigest()


def test_lengths_past_four_gibibytes_of_bits_are_kept_in_the_state() -> None:
    hasher, reference, piece = Sha256(), hashlib.sha256(), bytes(32 << 20)
    for _ in range(17):  # 544 MiB are more than 2^32 bits
        hasher.update(piece)
        reference.update(piece)
    state = hasher.state()
    assert state is not None
    restored = Sha256.restore(state)
    assert (restored.size, restored.hexdigest()) == (17 * len(piece), reference.hexdigest())


def test_damaged_states_are_refused() -> None:
    hasher = Sha256()
    hasher.update(b"x" * 100)
    state = hasher.state()
    assert state is not None
    for damaged in (b"", state[:-1], state + b"\0", bytes(112), b"\xff" * 112, state[:-4] + b"\0\0\0 "):
        with pytest.raises(ValueError, match="state"):
            Sha256.restore(damaged)


def test_threads_hash_side_by_side() -> None:
    contents = [bytes([number]) * 700_000 for number in range(8)]
    results: dict[int, str] = {}

    def work(number: int) -> None:
        hasher = Sha256()
        for start in range(0, len(contents[number]), 1000 + 997 * number):
            hasher.update(memoryview(contents[number])[start : start + 1000 + 997 * number])
        results[number] = hasher.hexdigest()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: hashlib.sha256(content).hexdigest() for number, content in enumerate(contents)}


def test_without_libcrypto_everything_but_the_state_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_libcrypto", None)
    hasher = Sha256()
    hasher.update(b"abc")
    assert hasher.hexdigest() == hashlib.sha256(b"abc").hexdigest()
    assert hasher.state() is None
    with pytest.raises(ValueError, match="cannot restore"):
        Sha256.restore(bytes(STATE_SIZE))


def test_c3_extra_digests_name_the_same_bytes() -> None:
    hasher = MultiHasher(["sha512", "md5", "sha1", "md5"])
    for piece in (b"one", bytearray(b"two"), memoryview(b"three")):
        hasher.update(piece)
    assert hasher.hexdigests() == {
        name: hashlib.new(name, b"onetwothree").hexdigest() for name in ("sha512", "md5", "sha1")
    }
    assert hasher.size == 11


def test_c2_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match="crc32"):
        MultiHasher(["crc32"])
