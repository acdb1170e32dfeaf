"""What the operations page promises: a backup that restores, a proxy that works, metrics that are there."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.docs.snippets import ROOT, Reader, sections
from tests.running import Deployment, Server
from tests.tools import services

PAGE = ROOT / "docs" / "operations.md"


def put(server: Server, key: str, path: str, content: bytes) -> None:
    answer = server.admin.put(f"/generic/{key}/{path}", content=content)
    assert answer.status_code == 201, answer.text


def test_a_backup_made_as_printed_beside_a_running_server_can_be_restored(tmp_path: Path) -> None:
    wanted = {section.heading: section for section in sections(PAGE)}
    with Deployment.embedded(tmp_path / "data") as server:
        key = server.make_repository(format="generic")
        content = {f"file{number}": secrets.token_bytes(100_000) for number in range(5)}
        for path, data in content.items():
            put(server, key, path, data)
        reader = Reader(tmp_path / "reader", server.host, server.data)
        assert reader.run(wanted["Backup: SQLite and a folder"], "0", {}) == ""
        put(server, key, "after-the-backup", b"late")
        assert reader.run(wanted["Backup: SQLite and a folder"], "1", {}) == "", "a second time, over the first"
        put(server, key, "after-both", b"too late")
        assert reader.run(wanted["Restore: SQLite and a folder"], "2", {}) == ""
    with Deployment.embedded(reader.work / "restored") as restored:
        for path, data in content.items():
            assert restored.admin.get(f"/generic/{key}/{path}").content == data
        assert restored.admin.get(f"/generic/{key}/after-the-backup").content == b"late"
        assert restored.admin.get(f"/generic/{key}/after-both").status_code == 404
        checked = restored.manage("fsck", "--rehash")
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_nginx_configuration_as_printed_takes_streams_and_sends_files_itself(tmp_path: Path) -> None:
    """Only what a test cannot have is replaced: the port, the certificate, and where the two are."""
    printed = re.search(r"^```nginx\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert printed
    size, pieces = 300_000, 40
    with Deployment.embedded(
        tmp_path / "data", REPOMAN_TRUSTED_PROXIES="127.0.0.1/32", REPOMAN_ACCEL="/_blobs/"
    ) as server:
        configuration = printed.group(1)
        for text, replacement in (
            ("listen 443 ssl;", "listen @listen@;"),
            ("127.0.0.1:8080", server.host),
            ("/srv/repoman/var/", f"{server.data}/"),
        ):
            assert configuration.count(text) == 1
            configuration = configuration.replace(text, replacement)
        configuration = re.sub(r"^ *ssl_certificate.*\n", "", configuration, flags=re.MULTILINE)
        for folder in (tmp_path, *tmp_path.parents):  # on the way to the blobs: pytest's own are closed to nginx
            if folder.stat().st_mode & 0o011 != 0o011 and str(folder).startswith(tempfile.gettempdir() + "/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        proxy = next(section for section in sections(PAGE) if section.heading == "Behind a reverse proxy")
        assert Reader(tmp_path / "reader", server.host, server.data).run(proxy, "0", {}) == ""
        key = server.make_repository(format="generic", anonymous_read=True)

        def body() -> Iterator[bytes]:
            for number in range(pieces):
                yield bytes([number]) * size

        with services.nginx(configuration) as url:
            signed_in = httpx.Client(base_url=str(url), auth=server.admin.auth, timeout=60)
            answer = signed_in.put(f"/generic/{key}/a%20folder/large.bin", content=body())
            assert answer.status_code == 201, answer.text
            assert answer.json()["downloadUri"].startswith(f"{url}/generic/")
            fetched = httpx.get(f"{url}/generic/{key}/a%20folder/large.bin", timeout=60)
            assert fetched.status_code == 200
            assert fetched.content == b"".join(body())
            direct = httpx.head(f"{server.url}/generic/{key}/a%20folder/large.bin")
            own = {"server", "date", "connection", "x-request-id", "accept-ranges"}
            assert {name: value for name, value in fetched.headers.items() if name not in own} == {
                name: value for name, value in direct.headers.items() if name not in own
            }
            assert fetched.headers["x-request-id"]
            part = httpx.get(fetched.url, headers={"Range": "bytes=300000-300009"})
            assert (part.status_code, part.content) == (206, b"\x01" * 10)
            assert httpx.get(f"{url}/_blobs/sha256/").status_code == 404
            challenge = httpx.get(f"{url}/v2/", headers={"Host": "registry.example.com:8443"})
            assert 'realm="http://registry.example.com:8443/token"' in challenge.headers["www-authenticate"]


def test_every_metric_is_described(embedded: Server) -> None:
    embedded.admin.get("/api/v1/namespaces")
    told = set(re.findall(r"^# HELP (\w+)", httpx.get(f"{embedded.url}/metrics").text, re.MULTILINE))
    described = set(re.findall(r"`(repoman_\w+)`", PAGE.read_text()))
    assert told - described == set()


def test_every_command_is_described() -> None:
    commands = {path.stem for path in (ROOT / "repoman/ops/management/commands").glob("[a-z]*.py")}
    table = re.search(r"^\| command .*?\n\n", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert table
    rows = [line.split("|")[1] for line in table.group().splitlines()[2:] if line]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == commands
