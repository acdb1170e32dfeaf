"""podman, buildah, skopeo, crane, oras, regctl, helm, cosign, notation: what each does, bytes compared."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.running import Server

from .conftest import Project, Sandbox, make_project


def file_in_tar(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            if member.name.lstrip("./") == name:
                return archive.extractfile(member).read()
    raise AssertionError(f"{name} is not in the archive")


def crane_login(sandbox: Sandbox, project: Project) -> None:
    sandbox.run("crane", "auth", "login", project.host, "-u", project.username, "-p", project.password)


def crane_image(sandbox: Sandbox, reference: str, seed: str = "") -> tuple[str, bytes]:
    """Push a one-layer image; its digest and the layer's payload."""
    layer, payload = sandbox.layer(seed=seed)
    sandbox.run("crane", "append", "--insecure", "-f", layer, "-t", reference)
    return sandbox.run("crane", "digest", "--insecure", reference).strip(), payload


def crane_payload(sandbox: Sandbox, reference: str) -> bytes:
    target = sandbox.home / "exported.tar"
    sandbox.run("crane", "export", "--insecure", reference, target)
    return file_in_tar(target.read_bytes(), "payload.bin")


def test_crane(sandbox: Sandbox, project: Project) -> None:
    crane_login(sandbox, project)
    reference = f"{project.host}/{project.private}/tools/app:1"
    digest, payload = crane_image(sandbox, reference)
    assert crane_payload(sandbox, reference) == payload
    public = f"{project.host}/{project.public}/app:1"
    sandbox.run("crane", "copy", "--insecure", reference, public)
    assert sandbox.run("crane", "digest", "--insecure", public).strip() == digest
    sandbox.run("crane", "tag", "--insecure", reference, "two")
    assert sandbox.run("crane", "ls", "--insecure", reference.rpartition(":")[0]).split() == ["1", "two"]
    catalog = sandbox.run("crane", "catalog", "--insecure", project.host).split()
    assert f"{project.private}/tools/app" in catalog
    sandbox.run("crane", "validate", "--insecure", "--remote", reference)
    sandbox.run("crane", "delete", "--insecure", f"{reference.rpartition(':')[0]}@{digest}")
    sandbox.run("crane", "digest", "--insecure", reference, fails=True)
    sandbox.run("crane", "auth", "logout", project.host)
    assert crane_payload(sandbox, public) == payload


def test_podman(sandbox: Sandbox, project: Project) -> None:
    podman = ["podman", *sandbox.containers()]
    layer, payload = sandbox.layer()
    reference = f"{project.host}/{project.public}/podman/app:1"
    sandbox.run(
        *podman, "login", "--tls-verify=false", project.host, "-u", project.username, "--password-stdin",
        stdin=project.password,
    )  # fmt: skip
    sandbox.run(*podman, "import", layer, reference)
    sandbox.run(*podman, "push", "--tls-verify=false", reference)
    sandbox.run(*podman, "rmi", "-f", reference)
    sandbox.run(*podman, "logout", project.host)
    sandbox.run(*podman, "pull", "--tls-verify=false", reference)
    saved = sandbox.home / "saved.tar"
    sandbox.run(*podman, "save", "-o", saved, reference)
    with tarfile.open(saved) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))
        layer_bytes = outer.extractfile(manifest[0]["Layers"][0]).read()
    assert file_in_tar(layer_bytes, "payload.bin") == payload


def test_buildah(sandbox: Sandbox, project: Project) -> None:
    buildah = ["buildah", *sandbox.containers()]
    content = sandbox.home / "payload.bin"
    content.write_bytes(b"built " * 1000)
    reference = f"{project.host}/{project.private}/built:1"
    container = sandbox.run(*buildah, "from", "scratch").strip().splitlines()[-1]
    sandbox.run(*buildah, "copy", container, content, "/payload.bin")
    sandbox.run(*buildah, "commit", container, "built")
    credentials = f"{project.username}:{project.password}"
    sandbox.run(*buildah, "push", "--tls-verify=false", "--creds", credentials, "built", f"docker://{reference}")
    crane_login(sandbox, project)
    assert crane_payload(sandbox, reference) == b"built " * 1000
    sandbox.run(*buildah, "pull", "--tls-verify=false", "--creds", credentials, reference)


def test_skopeo_copy_all_sync_inspect_and_delete(sandbox: Sandbox, project: Project) -> None:
    crane_login(sandbox, project)
    base = f"{project.host}/{project.private}/multi"
    digests = [crane_image(sandbox, f"{base}:{name}", seed=name)[0] for name in ("a", "b")]
    sandbox.run("crane", "index", "append", "--insecure", "-m", f"{base}:a", "-m", f"{base}:b", "-t", f"{base}:all")
    credentials = f"{project.username}:{project.password}"
    target = f"{project.host}/{project.public}/copied"
    sandbox.run(
        "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", credentials,
        "--dest-creds", credentials, f"docker://{base}:all", f"docker://{target}:all",
    )  # fmt: skip
    raw = json.loads(sandbox.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{target}:all"))
    assert [child["digest"] for child in raw["manifests"]] == digests
    mirror = sandbox.home / "mirror"
    sandbox.run(
        "skopeo", "sync", "--all", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", f"{target}", mirror
    )
    sandbox.run(
        "skopeo", "sync", "--all", "--dest-tls-verify=false", "--dest-creds", credentials, "--src", "dir", "--dest",
        "docker", mirror, f"{project.host}/{project.private}/synced",
    )  # fmt: skip
    tags = json.loads(sandbox.run("skopeo", "list-tags", "--tls-verify=false", f"docker://{target}"))
    assert tags["Tags"] == ["all"]
    sandbox.run("skopeo", "delete", "--tls-verify=false", "--creds", credentials, f"docker://{target}:all")
    sandbox.run("skopeo", "inspect", "--tls-verify=false", f"docker://{target}:all", fails=True)


def test_oras_attach_discover_copy(sandbox: Sandbox, project: Project) -> None:
    sandbox.run(
        "oras", "login", "--plain-http", project.host, "-u", project.username, "--password-stdin",
        stdin=project.password,
    )  # fmt: skip
    reference = f"{project.host}/{project.public}/artifacts/thing:1"
    (sandbox.home / "thing.txt").write_bytes(b"a thing" * 10_000)
    (sandbox.home / "sbom.json").write_bytes(b'{"sbom": true}')
    sandbox.run("oras", "push", "--plain-http", reference, "--artifact-type", "application/x-thing", "thing.txt")
    sandbox.run(
        "oras", "attach", "--plain-http", reference, "--artifact-type", "application/x-sbom", "sbom.json",
        "--annotation", "from=test",
    )  # fmt: skip
    found = json.loads(sandbox.run("oras", "discover", "--plain-http", "--format", "json", reference))
    listed = found.get("referrers") or found.get("manifests")
    assert [item["artifactType"] for item in listed] == ["application/x-sbom"]
    assert listed[0]["annotations"]["from"] == "test"
    target = f"{project.host}/{project.private}/copied:1"
    sandbox.run("oras", "copy", "-r", "--from-plain-http", "--to-plain-http", reference, target)
    copied = json.loads(sandbox.run("oras", "discover", "--plain-http", "--format", "json", target))
    assert len(copied.get("referrers") or copied.get("manifests")) == 1
    sandbox.run("oras", "logout", project.host)
    pulled = sandbox.home / "pulled"
    sandbox.run("oras", "pull", "--plain-http", reference, "-o", pulled)
    assert (pulled / "thing.txt").read_bytes() == b"a thing" * 10_000
    assert "fallback" not in sandbox.run("crane", "ls", "--insecure", reference.rpartition(":")[0])


def test_regctl_with_referrers(sandbox: Sandbox, project: Project) -> None:
    sandbox.run("regctl", "registry", "set", "--tls", "disabled", project.host)
    sandbox.run(
        "regctl", "registry", "login", project.host, "-u", project.username, "--pass-stdin", stdin=project.password
    )
    crane_login(sandbox, project)
    reference = f"{project.host}/{project.private}/regctl:1"
    digest, payload = crane_image(sandbox, reference)
    sandbox.run(
        "regctl", "artifact", "put", "--artifact-type", "application/x-note", "--subject", reference, stdin="hi"
    )
    target = f"{project.host}/{project.public}/regctl:1"
    sandbox.run("regctl", "image", "copy", "--referrers", "--digest-tags", reference, target)
    assert sandbox.run("regctl", "image", "digest", target).split()[-1] == digest
    listed = json.loads(
        sandbox.run("regctl", "artifact", "list", target, "--format", "{{json .Manifest}}").splitlines()[-1]
    )
    assert [item["artifactType"] for item in listed["manifests"]] == ["application/x-note"]
    assert crane_payload(sandbox, target) == payload
    sandbox.run("regctl", "tag", "delete", target)
    sandbox.run("regctl", "image", "digest", target, fails=True)
    sandbox.run("regctl", "image", "digest", f"{target.rpartition(':')[0]}@{digest}")


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_helm_charts_as_oci(sandbox: Sandbox, project: Project, helm: str) -> None:
    sandbox.run(helm, "create", "demo")
    sandbox.run(helm, "package", "demo", "--version", "1.2.3+build.4")
    package = next(sandbox.home.glob("demo-1.2.3*.tgz"))
    sandbox.run(
        helm, "registry", "login", "--plain-http" if helm == "helm4" else "--insecure", project.host, "-u",
        project.username, "--password-stdin", stdin=project.password,
    )  # fmt: skip
    where = f"oci://{project.host}/{project.public}/charts"
    sandbox.run(helm, "push", "--plain-http", package, where)
    sandbox.run(helm, "registry", "logout", project.host)
    pulled = sandbox.home / "pulled"
    pulled.mkdir()
    sandbox.run(helm, "pull", "--plain-http", f"{where}/demo", "--version", "1.2.3+build.4", "-d", pulled)
    fetched = next(pulled.glob("*.tgz"))
    assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(package.read_bytes()).digest()
    assert "1.2.3+build.4" in sandbox.run(helm, "show", "chart", "--plain-http", f"{where}/demo")


@pytest.mark.parametrize("cosign", ["cosign2", "cosign3"])
def test_cosign_signs_verifies_and_attests_with_a_key(sandbox: Sandbox, project: Project, cosign: str) -> None:
    crane_login(sandbox, project)
    name = f"{project.host}/{project.private}/signed"
    digest, _ = crane_image(sandbox, f"{name}:1", seed=cosign)
    reference = f"{name}@{digest}"
    sandbox.run(cosign, "generate-key-pair")
    local = ["--allow-insecure-registry", "--allow-http-registry"]
    (sandbox.home / "predicate.json").write_text('{"built": "here"}')
    if cosign == "cosign3":
        # Without any service: no transparency log, no time stamps.
        (sandbox.home / "signing.json").write_text(
            json.dumps({"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"})
        )
        offline = ["--signing-config", "signing.json"]
    else:
        offline = ["--tlog-upload=false"]
    sandbox.run(cosign, "sign", "--yes", "--key", "cosign.key", *offline, *local, reference)
    ignore = ["--insecure-ignore-tlog=true"]
    sandbox.run(cosign, "verify", "--key", "cosign.pub", *ignore, *local, reference)
    sandbox.run(
        cosign, "attest", "--yes", "--key", "cosign.key", *offline, *local, "--type", "custom", "--predicate",
        "predicate.json", reference,
    )  # fmt: skip
    sandbox.run(cosign, "verify-attestation", "--key", "cosign.pub", *ignore, *local, "--type", "custom", reference)
    other, _ = crane_image(sandbox, f"{name}:2", seed="unsigned")
    sandbox.run(cosign, "verify", "--key", "cosign.pub", *ignore, *local, f"{name}@{other}", fails=True)


def test_notation_signs_and_verifies(sandbox: Sandbox, project: Project) -> None:
    crane_login(sandbox, project)
    name = f"{project.host}/{project.private}/notarised"
    digest, _ = crane_image(sandbox, f"{name}:1")
    account = {"NOTATION_USERNAME": project.username, "NOTATION_PASSWORD": project.password}
    sandbox.run("notation", "cert", "generate-test", "--default", "wabbit.test")
    sandbox.run("notation", "sign", "--insecure-registry", f"{name}@{digest}", environment=account)
    policy = sandbox.home / ".config" / "notation" / "trustpolicy.json"
    policy.write_text(
        json.dumps(
            {
                "version": "1.0",
                "trustPolicies": [
                    {
                        "name": "all",
                        "registryScopes": ["*"],
                        "signatureVerification": {"level": "strict"},
                        "trustStores": ["ca:wabbit.test"],
                        "trustedIdentities": ["*"],
                    }
                ],
            }
        )
    )
    verified = sandbox.run("notation", "verify", "--insecure-registry", f"{name}@{digest}", environment=account)
    assert "Successfully verified" in verified
    assert digest in sandbox.run("notation", "ls", "--insecure-registry", f"{name}@{digest}", environment=account)


def test_crane_on_postgresql_and_s3(sandbox: Sandbox, full: Server) -> None:
    project = make_project(full, "token")
    crane_login(sandbox, project)
    reference = f"{project.host}/{project.private}/app:1"
    _, payload = crane_image(sandbox, reference)
    assert crane_payload(sandbox, reference) == payload


def test_curl_moves_raw_files(sandbox: Sandbox, embedded: Server) -> None:
    key = embedded.make_repository(format="generic", anonymous_read=True)
    username, password = embedded.make_user(key, "publisher")
    content = hashlib.shake_256(b"curl").digest(3_000_000)
    (sandbox.home / "file.bin").write_bytes(content)
    url = f"{embedded.url}/generic/{key}/tools/1.0/file%20name.bin"
    sandbox.run("curl", "-sSf", "-u", f"{username}:{password}", "-T", "file.bin", url)
    sandbox.run("curl", "-sSf", url, "-o", "back.bin")
    assert (sandbox.home / "back.bin").read_bytes() == content
    (sandbox.home / "back.bin").write_bytes(content[:1_000_000])
    sandbox.run("curl", "-sSf", "-C", "-", url, "-o", "back.bin")
    assert (sandbox.home / "back.bin").read_bytes() == content
    chunked = f"{embedded.url}/generic/{key}/chunked.bin"
    piped = Path(sandbox.home / "file.bin").read_bytes()
    sandbox.run("curl", "-sSf", "-u", f"{username}:{password}", "-T", "-", chunked, stdin=piped)
    assert embedded.client().get(f"/generic/{key}/chunked.bin").content == content
