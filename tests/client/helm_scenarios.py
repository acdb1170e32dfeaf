"""What people do with helm and its push plugin, as functions of a repository's address and credentials.

They hold for any kind of repository: a local one, a virtual one that deploys, and, what only reads, a remote one. Every
client runs with a home of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from formats.helm import samples
from tests import tools
from tests.client.pypi_scenarios import run_tool
from tests.running import NO_TLS

HELMS = ("helm3", "helm4")


@dataclass(frozen=True)
class Place:
    """Where and as whom. `url` has no slash at its end."""

    url: str
    username: str = ""
    password: str = ""

    @property
    def sign_in(self) -> tuple[str, ...]:
        return ("--username", self.username, "--password", self.password) if self.username else ()

    def client(self) -> httpx.Client:
        return httpx.Client(auth=(self.username, self.password) if self.username else None, timeout=60, verify=NO_TLS)


@dataclass
class Desk:
    """A home folder where clients run."""

    home: Path

    def folder(self, name: str) -> Path:
        found = self.home / name
        found.mkdir(parents=True, exist_ok=True)
        return found

    def run(
        self,
        tool: str,
        *arguments: str | Path,
        at: Path | None = None,
        fails: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Both streams. The client must succeed, or fail where `fails` is set."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("HELM", "XDG", "REPOMAN", "GNUPG"))
        }
        settings = {
            **kept,
            "HOME": str(self.home),
            "HELM_PLUGINS": str(self.home / "plugins"),
            "NO_PROXY": "127.0.0.1,localhost",
            **(environment or {}),
        }
        return run_tool(tool, arguments, at=at or self.home, environment=settings, fails=fails)

    def forget(self) -> None:
        """As on another machine: nothing that was downloaded, and no repository."""
        for name in (".cache", ".local", ".config"):
            shutil.rmtree(self.home / name, ignore_errors=True)


# --- making and publishing -------------------------------------------------------------------------------------------


def write_chart(folder: Path, name: str, version: str, **fields: Any) -> Path:
    """A chart as people keep it: a folder. It needs no cluster."""
    chart = folder / name
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    (chart / "Chart.yaml").write_text(json.dumps(samples.metadata(name, version, **fields)))
    (chart / "values.yaml").write_text(f"text: of {name} {version}\n")
    (chart / "templates" / "configmap.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-{{ .Chart.Name }}\n"
        "data:\n  text: {{ .Values.text | quote }}\n"
    )
    return chart


def curl(desk: Desk, place: Place, path: str, *arguments: str) -> str:
    sign_in = ("-u", f"{place.username}:{place.password}") if place.username else ()
    return desk.run("curl", "-sS", "--fail-with-body", *sign_in, *arguments, f"{place.url}/{path}")


def publish(desk: Desk, place: Place, name: str, version: str, **fields: Any) -> Path:
    """`helm package` and curl."""
    chart = write_chart(desk.folder(f"source-{version}"), name, version, **fields)
    desk.run("helm3", "package", chart, "-d", desk.folder("packages"))
    archive = desk.folder("packages") / f"{name}-{version}.tgz"
    assert json.loads(curl(desk, place, "api/charts", "--data-binary", f"@{archive}")) == {"saved": True}
    return archive


def cm_push(desk: Desk, place: Place, chart: Path, *arguments: str, fails: bool = False, token: str = "") -> str:
    sign_in = place.sign_in if not token else ()
    environment = {"HELM_REPO_ACCESS_TOKEN": token} if token else {}
    return desk.run("helm-cm-push", chart, place.url, *sign_in, *arguments, fails=fails, environment=environment)


def install_plugin(desk: Desk) -> None:
    """The push plugin in its folder, with the description that helm wants of it."""
    folder = desk.folder("plugins/cm-push")
    (folder / "bin").mkdir()
    (folder / "bin" / "helm-cm-push").symlink_to(tools.path("helm-cm-push"))
    (folder / "plugin.yaml").write_text(
        'name: cm-push\nversion: "0.10.4"\nusage: Push a chart\ndescription: Push a chart\n'
        'command: "$HELM_PLUGIN_DIR/bin/helm-cm-push"\n'
        'downloaders:\n- command: "bin/helm-cm-push"\n  protocols: ["cm"]\n'
    )


def make_key(desk: Desk) -> tuple[Path, Path]:
    """A signing key in the old format that helm reads: secret and public keyrings."""
    secret, public = desk.home / "secring.gpg", desk.home / "pubring.gpg"
    with tempfile.TemporaryDirectory(prefix="gpg", ignore_cleanup_errors=True) as home:  # its sockets need a short path
        gpg = ("gpg", "--homedir", home, "--batch")
        desk.run(*gpg, "--passphrase", "", "--quick-generate-key", "Tester <t@example.org>", "rsa2048", "sign")
        desk.run(*gpg, "--output", secret, "--export-secret-keys")
        desk.run(*gpg, "--output", public, "--export")
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, timeout=60)
    return secret, public


def publish_signed(desk: Desk, place: Place, helm: str, name: str, version: str) -> tuple[Path, Path]:
    """`helm package --sign` and one form with both files. Returns the archive and the public keyring."""
    secret, public = make_key(desk)
    chart = write_chart(desk.folder("signed-source"), name, version)
    desk.run(helm, "package", "--sign", "--key", "Tester", "--keyring", secret, chart, "-d", desk.folder("signed"))
    archive = desk.folder("signed") / f"{name}-{version}.tgz"
    answer = curl(desk, place, "api/charts", "-F", f"chart=@{archive}", "-F", f"prov=@{archive}.prov")
    assert json.loads(answer) == {"saved": True}
    return archive, public


# --- reading ---------------------------------------------------------------------------------------------------------


def add(desk: Desk, place: Place, helm: str, name: str = "ours", slash: str = "") -> None:
    desk.run(helm, "repo", "add", name, place.url + slash, *place.sign_in)


def found(desk: Desk, helm: str, *arguments: str) -> list[tuple[str, str, str]]:
    """What `helm search repo` shows: (name, version, appVersion)."""
    rows = json.loads(desk.run(helm, "search", "repo", "-o", "json", *arguments))
    return [(row["name"], row["version"], row["app_version"]) for row in rows]


def read_everything(desk: Desk, place: Place, helm: str, archives: Mapping[str, Path]) -> None:
    """Add, update, search, pull, show and template. `archives`: version of the chart `demo` → its archive."""
    desk.forget()
    add(desk, place, helm, slash="/" if helm == "helm4" else "")
    desk.run(helm, "repo", "update")
    stable = [version for version in archives if "-" not in version]
    assert [row[1] for row in found(desk, helm, "ours/demo", "-l")] == stable
    assert [row[1] for row in found(desk, helm, "ours/demo")] == stable[:1]
    assert sorted(row[1] for row in found(desk, helm, "ours/demo", "-l", "--devel")) == sorted(archives)
    for version, archive in archives.items():
        folder = desk.folder(f"pulled-{helm}-{version}")
        desk.run(helm, "pull", "ours/demo", "--version", version, "-d", folder)
        assert (folder / f"demo-{version}.tgz").read_bytes() == archive.read_bytes()
        (folder / f"demo-{version}.tgz").unlink()
    newest = stable[0]
    assert f"of demo {newest}" in desk.run(helm, "show", "values", "ours/demo")
    rendered = desk.run(helm, "template", "release", "ours/demo")
    assert f"of demo {newest}" in rendered and "kind: ConfigMap" in rendered
    direct = desk.folder(f"direct-{helm}")
    desk.run(helm, "pull", "demo", "--repo", place.url, *place.sign_in, "--version", newest, "-d", direct)
    assert (direct / f"demo-{newest}.tgz").read_bytes() == archives[newest].read_bytes()
    (direct / f"demo-{newest}.tgz").unlink()


def depend(desk: Desk, place: Place, helm: str, version: str) -> None:
    """A chart that needs `demo`: its dependencies are found, locked, and built again from the lock."""
    desk.forget()
    add(desk, place, helm)
    needs = [{"name": "demo", "version": "1.x.x", "repository": place.url}, {"name": "demo", "version": version,
             "repository": "@ours", "alias": "second"}]  # fmt: skip
    chart = write_chart(desk.folder(f"parent-{helm}"), "parent", "1.0.0", dependencies=needs)
    desk.run(helm, "dependency", "update", chart)
    assert (chart / "charts" / f"demo-{version}.tgz").is_file() and version in (chart / "Chart.lock").read_text()
    shutil.rmtree(chart / "charts")
    desk.run(helm, "dependency", "build", chart)
    assert (chart / "charts" / f"demo-{version}.tgz").is_file()
    assert f"of demo {version}" in desk.run(helm, "template", "release", chart)


def verify(desk: Desk, place: Place, helm: str, archive: Path, public: Path) -> None:
    desk.forget()
    add(desk, place, helm)
    name, _, version = archive.name.removesuffix(".tgz").partition("-")
    folder = desk.folder(f"verified-{helm}-{place.url.rpartition('/')[2]}")
    said = desk.run(
        helm, "pull", f"ours/{name}", "--version", version, "--verify", "--keyring", public, "-d", folder
    )  # fmt: skip
    assert "Tester" in said
    assert (folder / archive.name).read_bytes() == archive.read_bytes()
    assert (folder / f"{archive.name}.prov").read_bytes() == Path(f"{archive}.prov").read_bytes()
