"""What clients of a remote see when its upstream fails, one test for each cell of "what went wrong" x "what is held".

The upstream and the server are real ones. All cells are played at the same time, once, and each test looks at its own: a
failure is remembered for two seconds, and a hundred cells would spend most of their time waiting for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpx
import pytest

from tests.running import Deployment, Server
from tests.tools.upstream import Answer, Upstream, bomb, endless, html_page, throttled

from .upstreams import ALLOW, PAGE, Project, Remote, is_stale, until


@dataclass(frozen=True)
class Fault:
    """`plant` makes the upstream's bad answer out of the good one. `cold` is what a client gets where nothing is held;
    `stale`: whether what is held may be served instead (else the same as cold). `only`: of files or pages only."""

    plant: Callable[[Answer], Answer]
    cold: int
    stale: bool = True
    only: str = ""
    retry_after: str = ""
    password: bool = False
    read_timeout: int = 10


def page(document: str) -> Callable[[Answer], Answer]:
    return lambda good: Answer(document.encode(), media_type=PAGE)


FAULTS = {
    "silent": Fault(lambda good: replace(good, stall="headers"), 504, read_timeout=2),
    "stalls_midway": Fault(lambda good: replace(good, stall="body", stall_after=100), 504, read_timeout=2),
    "cut": Fault(lambda good: replace(good, cut_after=100), 502),
    "cut_chunked": Fault(lambda good: replace(good, cut_after=100, chunked=True), 502),
    "ends_early": Fault(lambda good: replace(good, cut_after=100, close_cleanly=True), 502),
    "ends_early_chunked": Fault(lambda good: replace(good, cut_after=100, close_cleanly=True, chunked=True), 502),
    "wrong_bytes": Fault(lambda good: replace(good, corrupt=True), 502, only="fixed"),
    "too_short": Fault(lambda good: replace(good, body=_bytes(good)[:-1]), 502, only="fixed"),
    "too_long": Fault(lambda good: replace(good, body=_bytes(good) + b"x"), 502, only="fixed"),
    "too_long_chunked": Fault(lambda good: replace(good, body=_bytes(good) + b"x", chunked=True), 502, only="fixed"),
    "endless": Fault(lambda good: replace(good, body=lambda _: endless(), chunked=True), 502, only="fixed page"),
    "gzip_bomb": Fault(lambda good: bomb(200 * 2**20), 502, only="fixed page"),
    "throttled": Fault(lambda good: throttled(3), 503, retry_after="3"),
    "error_500": Fault(lambda good: Answer(status=500), 502),
    "error_502": Fault(lambda good: Answer(status=502), 502),
    "error_503": Fault(lambda good: Answer(status=503), 502),
    "teapot": Fault(lambda good: Answer(status=418), 502),
    "partial_unasked": Fault(lambda good: replace(good, always_partial=True), 502),
    "unchanged_unasked": Fault(lambda good: Answer(status=304), 502, only="fixed"),
    "redirect_loop": Fault(lambda good: Answer(redirect="?again"), 502),
    "redirect_private": Fault(lambda good: Answer(redirect="http://169.254.169.254/latest/meta-data/"), 502),
    "redirect_private_network": Fault(lambda good: Answer(redirect="http://10.1.2.3/"), 502),
    "redirect_file": Fault(lambda good: Answer(redirect="file:///etc/passwd"), 502),
    "no_http": Fault(lambda good: Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), 502),
    "login_page": Fault(lambda good: html_page(), 502),
    "empty_page": Fault(page(""), 502, only="page"),
    "broken_json": Fault(page('{"name": "x", "files": [{]'), 502, only="page"),
    "other_json": Fault(page('["something else"]'), 502, only="page"),
    "not_found": Fault(lambda good: Answer(status=404), 404, stale=False),
    "gone": Fault(lambda good: Answer(status=410), 404, stale=False),
    "forbidden": Fault(lambda good: Answer(status=403), 404, stale=False),
    "forbidden_with_password": Fault(lambda good: Answer(status=403), 502, password=True),
    "unauthorized": Fault(lambda good: Answer(status=401), 404, stale=False),
    "unauthorized_with_password": Fault(lambda good: Answer(status=401), 502, password=True),
}
SORTS = ("page", "fixed", "changing")  # a PyPI page, a PyPI file, a generic file


def _bytes(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


@dataclass
class Seen:
    """What a client saw: cold, again after the upstream was mended, and then with it broken once more."""

    good: bytes
    cold: httpx.Response
    kept: list[str]
    used: int
    is_mended: bool
    held: httpx.Response
    asked: int
    trouble: object


def _is_about(fault: Fault, sort: str) -> bool:
    return not fault.only or sort in fault.only.split()


CELLS = [(name, sort) for name, fault in FAULTS.items() for sort in SORTS if _is_about(fault, sort)]


def _play(server: Server, upstream: Upstream, namespace: str, name: str, sort: str) -> Seen:
    fault = FAULTS[name]
    more = {"username": "somebody", "password": "a secret"} if fault.password else {}
    settings = {"metadata_ttl": 0, "negative_ttl": 1, "read_timeout": fault.read_timeout, **more}
    own = f"{name}-{sort}".replace("_", "-")
    if sort == "changing":
        remote = Remote.of(server, upstream, "generic", namespace, **settings)
        path, good = f"/{own}/file.tgz", Answer(bytes(own, "ascii") * 300, etag=f'"{own}"')

        def get() -> httpx.Response:
            return remote.get(f"{own}/file.tgz")
    else:
        remote = Remote.of(server, upstream, "pypi", namespace, **settings)
        project = Project(upstream, own)
        project.serve()
        path, good = (project.path, project.page) if sort == "page" else (project.file_path, project.answer)

        def get() -> httpx.Response:
            return remote.page(project) if sort == "page" else remote.file(project)

    upstream.add(path, fault.plant(good))
    cold = get()
    trouble = remote.shown()["upstream_trouble"]
    kept, used = remote.kept(), 0 if sort == "page" else len(_bytes(good))
    upstream.add(path, good)
    is_mended = until(lambda: get().status_code == 200, 25)
    upstream.add(path, replace(fault.plant(good), etag='"another"'))
    before, held = upstream.count(path), []

    def is_asked() -> bool:
        held.append(get())
        return sort == "fixed" or upstream.count(path) > before

    # The fetch that brought the good bytes may not have ended yet, and whoever comes meanwhile is one of its readers.
    until(is_asked, 10)
    return Seen(_bytes(good), cold, kept, used, is_mended, held[-1], upstream.count(path) - before, trouble)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Deployment.embedded(tmp_path_factory.mktemp("upstreams"), **ALLOW) as found:
        yield found


@pytest.fixture(scope="module")
def cells(server: Server) -> Iterator[dict[tuple[str, str], Future[Seen]]]:
    with Upstream() as upstream, ThreadPoolExecutor(24) as threads:
        namespace = server.make_namespace()
        played = {cell: threads.submit(_play, server, upstream, namespace, *cell) for cell in CELLS}
        for one in played.values():
            with contextlib.suppress(Exception):  # its own test tells
                one.result(120)
        yield played


@pytest.mark.parametrize(("name", "sort"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_A3_G4_G5_G6_G7_G9_nothing_is_held(cells, name: str, sort: str) -> None:
    """The client sees the failure as what it is, nothing of it is kept, and when the upstream is well again so is the
    answer, without anybody's help."""
    fault, seen = FAULTS[name], cells[name, sort].result()
    assert seen.cold.status_code == fault.cold, seen.cold.text
    assert seen.cold.content != seen.good
    assert seen.kept == []
    if fault.cold == 503:
        assert seen.cold.headers["retry-after"] == fault.retry_after
    assert "a secret" not in seen.cold.text
    assert bool(seen.trouble) == (fault.cold != 404), seen.trouble
    assert seen.is_mended


@pytest.mark.parametrize(("name", "sort"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_A3_G5_G6_G7_something_is_held(cells, name: str, sort: str) -> None:
    """Fixed content is served and not asked for; what may change is served as stale, and says so, unless the upstream
    says that it is gone."""
    fault, seen = FAULTS[name], cells[name, sort].result()
    if sort == "fixed":
        assert seen.held.status_code == 200 and seen.held.content == seen.good
        assert seen.held.headers["cache-status"] == "repoman; hit"
        assert seen.asked == 0
        return
    assert seen.asked >= 1
    if not fault.stale:
        assert seen.held.status_code == fault.cold
        return
    assert seen.held.status_code == 200
    assert is_stale(seen.held), seen.held.headers
    assert "no-cache" in seen.held.headers["cache-control"]
    if sort == "changing":
        assert seen.held.content == seen.good


def test_A3_R8_afterwards_the_store_is_sound(cells, server: Server) -> None:
    """No half of anything was kept, and usage is what is stored."""
    for played in cells.values():
        played.exception()
    report = server.manage("fsck", "--rehash", "--json")
    assert report.returncode == 0, report.stdout + report.stderr
    assert "request_failed" not in server.tail(10**8), "an error nobody declared"
    assert "Traceback" not in server.tail(10**8)
    assert "a secret" not in server.tail(10**8)
