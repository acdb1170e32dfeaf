"""What people do with Python's tools, as functions of an index, an upload address and credentials.

They hold for any kind of repository: a local one, a virtual one that deploys, and, what only reads, a remote one. Every
tool runs with a home, caches and configuration of its own, and knows no other index than the one it is given.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from formats.pypi import samples
from formats.pypi.samples import Sample
from tests import tools

PYTHON = shutil.which("python3.11") or shutil.which("python3") or "python3"
SECONDS = 240
_OURS = re.compile(r"(PIP|UV|POETRY|PDM|TWINE|FLIT|HATCH|PYTHON|REPOMAN|VIRTUAL_ENV|NETRC|KEYRING|XDG)")


@dataclass(frozen=True)
class Place:
    """Where and as whom. `index` ends with `simple/`, `upload` is what publishers are given."""

    index: str
    upload: str
    username: str
    password: str

    @property
    def signed_index(self) -> str:
        """The index with the credentials in it, as pip and uv take them."""
        parts = urlsplit(self.index)
        signed = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@{parts.netloc}"
        return urlunsplit(parts._replace(netloc=signed))

    def with_password(self, password: str) -> Place:
        return replace(self, password=password)


@dataclass
class Desk:
    """A home folder where tools run."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        found = self.home / name
        found.mkdir(parents=True, exist_ok=True)
        return found

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not _OURS.match(key)}
        return {
            **kept,
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_DATA_HOME": str(self.home / ".local" / "share"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_PYTHON": PYTHON,
            "PDM_CHECK_UPDATE": "false",
            "NO_PROXY": "127.0.0.1,localhost",
            "NO_COLOR": "1",
            "COLUMNS": "400",
            **self.extra,
        }

    def run(
        self,
        tool: str,
        *arguments: str | Path,
        at: Path | None = None,
        fails: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Both streams. The tool must succeed, or fail where `fails` is set."""
        return run_tool(
            tool, arguments, at=at or self.home, environment={**self.environment, **(environment or {})}, fails=fails
        )


def run_tool(
    tool: str, arguments: Sequence[object], *, at: Path, environment: Mapping[str, str], fails: bool = False
) -> str:
    """Both streams of a tool, by its name or path. It must succeed, or fail where `fails` is set."""
    done = subprocess.run(
        [tool if tool.startswith("/") else str(tools.path(tool)), *map(str, arguments)],
        cwd=at,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
    )
    output = done.stdout.decode(errors="replace")
    shown = f"{tool} {' '.join(map(str, arguments))} ended with {done.returncode}:\n{output[-5000:]}"
    assert (done.returncode != 0) if fails else (done.returncode == 0), shown
    return output


# --- publishing ------------------------------------------------------------------------------------------------------


def write(folder: Path, files: Sequence[Sample]) -> list[Path]:
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for sample in files:
        path = folder / sample.filename
        path.write_bytes(sample.data)
        paths.append(path)
    return paths


def twine(
    desk: Desk, place: Place, files: Sequence[Sample], *more: str, tool: str = "twine", fails: bool = False
) -> str:
    return desk.run(
        tool, "upload", "--non-interactive", "--disable-progress-bar", "--repository-url", place.upload,
        "-u", place.username, "-p", place.password, *more, *write(desk.folder("twine") / "dist", files), fails=fails,
    )  # fmt: skip


def twine6(desk: Desk, place: Place, files: Sequence[Sample], *more: str, fails: bool = False) -> str:
    return twine(desk, place, files, *more, tool="twine6", fails=fails)


def uv_publish(desk: Desk, place: Place, files: Sequence[Sample], *more: str, fails: bool = False) -> str:
    return desk.run(
        "uv", "publish", "--trusted-publishing", "never", "--publish-url", place.upload, "--username", place.username,
        "--password", place.password, *more, *write(desk.folder("uv") / "dist", files), fails=fails,
    )  # fmt: skip


def hatch_publish(desk: Desk, place: Place, files: Sequence[Sample], *more: str, fails: bool = False) -> str:
    return desk.run(
        "hatch", "publish", "--no-prompt", "-r", place.upload, "-u", place.username, "-a", place.password, *more,
        *write(desk.folder("hatch") / "dist", files), fails=fails,
    )  # fmt: skip


def poetry_publish(desk: Desk, place: Place, files: Sequence[Sample], *more: str, fails: bool = False) -> str:
    """Poetry uploads what lies in `dist` of a project."""
    project = desk.folder("poetry-publish")
    shutil.rmtree(project / "dist", ignore_errors=True)
    write(project / "dist", files)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "{files[0].name}"\nversion = "{files[0].version}"\nrequires-python = ">=3.8"\n'
        '[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n'
    )
    return desk.run(
        "poetry", "publish", "--no-interaction", "--repository", "ours", *more, at=project, fails=fails,
        environment={
            "POETRY_REPOSITORIES_OURS_URL": place.upload,
            "POETRY_HTTP_BASIC_OURS_USERNAME": place.username,
            "POETRY_HTTP_BASIC_OURS_PASSWORD": place.password,
        },
    )  # fmt: skip


def pdm_publish(desk: Desk, place: Place, files: Sequence[Sample], *more: str, fails: bool = False) -> str:
    project = desk.folder("pdm-publish")
    shutil.rmtree(project / "dist", ignore_errors=True)
    write(project / "dist", files)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "{files[0].name}"\nversion = "{files[0].version}"\nrequires-python = ">=3.8"\n'
    )
    return desk.run(
        "pdm", "publish", "--no-build", "-r", place.upload, "-u", place.username, "-P", place.password, *more,
        at=project, fails=fails,
    )  # fmt: skip


def flit_publish(desk: Desk, place: Place, name: str, version: str, text: str, *, fails: bool = False) -> str:
    """Flit builds what it publishes, the same bytes for the same content."""
    project = desk.folder("flit")
    (project / f"{name}.py").write_text(f'"""A module."""\n__version__ = "{version}"\nTEXT = {text!r}\n')
    (project / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["flit_core >=3.2,<5"]\nbuild-backend = "flit_core.buildapi"\n'
        f'[project]\nname = "{name}"\nauthors = [{{name = "A"}}]\ndynamic = ["version", "description"]\n'
    )
    return desk.run(
        "flit", "publish", "--no-use-vcs", at=project, fails=fails,
        environment={
            "FLIT_INDEX_URL": place.upload,
            "FLIT_USERNAME": place.username,
            "FLIT_PASSWORD": place.password,
            "SOURCE_DATE_EPOCH": "1580601600",
        },
    )  # fmt: skip


PUBLISHERS = {
    "twine": twine,
    "twine6": twine6,
    "uv": uv_publish,
    "hatch": hatch_publish,
    "poetry": poetry_publish,
    "pdm": pdm_publish,
}


# --- installing ------------------------------------------------------------------------------------------------------


def pip_install(
    desk: Desk, place: Place, *what: str, to: str = "pip-target", fails: bool = False, signed: bool = True
) -> str:
    """Into a folder of its own: `installed` shows what came."""
    target = desk.home / to
    shutil.rmtree(target, ignore_errors=True)
    index = place.signed_index if signed else place.index
    return desk.run(
        "pip-new", "install", "--no-cache-dir", "--index-url", index, "--target", target, *what, fails=fails
    )  # fmt: skip


def uv_install(
    desk: Desk, place: Place, *what: str, to: str = "uv-target", fails: bool = False, signed: bool = True
) -> str:
    target = desk.home / to
    shutil.rmtree(target, ignore_errors=True)
    index = place.signed_index if signed else place.index
    return desk.run("uv", "pip", "install", "--index-url", index, "--target", target, *what, fails=fails)


INSTALLERS = {"pip": (pip_install, "pip-target"), "uv": (uv_install, "uv-target")}


def installed(desk: Desk, target: str, module: str) -> str:
    """The sample's text."""
    code = f"import {module}; print({module}.TEXT)"
    return desk.run(PYTHON, "-S", "-c", code, environment={"PYTHONPATH": str(desk.home / target)}).strip()


def versions_in(desk: Desk, target: str) -> dict[str, str]:
    found = {}
    for folder in (desk.home / target).glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        found[name] = version
    return found


def uv_project(desk: Desk, place: Place, *dependencies: str, name: str = "uv-project") -> Path:
    """A project that uv locks against this index alone; credentials come from the environment."""
    project = desk.folder(name)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "consumer"\nversion = "1"\nrequires-python = ">=3.11"\n'
        f"dependencies = {json.dumps(dependencies)}\n"
        f'[[tool.uv.index]]\nname = "ours"\nurl = "{place.index}"\ndefault = true\nauthenticate = "always"\n'
        "[tool.uv]\npackage = false\n"
    )
    return project


def uv_environment(place: Place) -> dict[str, str]:
    return {"UV_INDEX_OURS_USERNAME": place.username, "UV_INDEX_OURS_PASSWORD": place.password, "UV_NO_CONFIG": "0"}


def poetry_project(desk: Desk, place: Place, *dependencies: str) -> Path:
    project = desk.folder("poetry-project")
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "consumer"\nversion = "1"\nrequires-python = ">=3.11,<4"\n'
        f"dependencies = {json.dumps(dependencies)}\n"
        f'[[tool.poetry.source]]\nname = "ours"\nurl = "{place.index}"\npriority = "primary"\n'
        "[tool.poetry]\npackage-mode = false\n"
    )
    return project


def poetry_environment(place: Place) -> dict[str, str]:
    return {
        "POETRY_HTTP_BASIC_OURS_USERNAME": place.username,
        "POETRY_HTTP_BASIC_OURS_PASSWORD": place.password,
        "POETRY_VIRTUALENVS_IN_PROJECT": "true",
    }


def pdm_project(desk: Desk, place: Place, *dependencies: str) -> Path:
    project = desk.folder("pdm-project")
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "consumer"\nversion = "1"\nrequires-python = ">=3.11"\n'
        f"dependencies = {json.dumps(dependencies)}\n"
        f'[[tool.pdm.source]]\nname = "pypi"\nurl = "{place.signed_index}"\nverify_ssl = false\n'
        "[tool.pdm]\ndistribution = false\n"
    )
    return project


def site_packages(project: Path) -> Path:
    found = list((project / ".venv").glob("lib/python*/site-packages"))
    assert found, f"{project} has no .venv"
    return found[0]


def fingerprint(folder: Path, *modules: str) -> dict[str, str]:
    """What was installed, byte by byte, without what installers write themselves."""
    found = {}
    for module in modules:
        for path in sorted((folder / module).rglob("*.py")):
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# --- building --------------------------------------------------------------------------------------------------------

BACKEND = '''\
"""A build back end of a few lines, so that building needs no other package."""
import base64, hashlib, io, pathlib, tarfile, zipfile

NAME, VERSION = "{name}", "{version}"
FOLDER = f"{{NAME}}-{{VERSION}}.dist-info"
META = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n\\n".encode()
WHEEL = b"Wheel-Version: 1.0\\nGenerator: here\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def build_wheel(directory, config_settings=None, metadata_directory=None):
    module = pathlib.Path(f"{{NAME}}.py").read_bytes()
    files = {{f"{{NAME}}.py": module, f"{{FOLDER}}/METADATA": META, f"{{FOLDER}}/WHEEL": WHEEL}}
    digest = lambda data: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    rows = [f"{{path}},sha256={{digest(data)}},{{len(data)}}" for path, data in files.items()]
    files[f"{{FOLDER}}/RECORD"] = "\\n".join([*rows, f"{{FOLDER}}/RECORD,,", ""]).encode()
    name = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return name


def build_sdist(directory, config_settings=None):
    name = f"{{NAME}}-{{VERSION}}.tar.gz"
    with tarfile.open(pathlib.Path(directory) / name, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path in (f"{{NAME}}.py", "backend.py", "pyproject.toml"):
            archive.add(path, f"{{NAME}}-{{VERSION}}/{{path}}")
        member = tarfile.TarInfo(f"{{NAME}}-{{VERSION}}/PKG-INFO")
        member.size = len(META)
        archive.addfile(member, io.BytesIO(META))
    return name
'''


def source_project(folder: Path, name: str, version: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "backend.py").write_text(BACKEND.format(name=name, version=version))
    (folder / f"{name}.py").write_text(f"TEXT = {text!r}\n")
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return folder


# --- scenarios -------------------------------------------------------------------------------------------------------


def pair(name: str, version: str = "1.0", text: str = "hello", requires: Sequence[str] = ()) -> list[Sample]:
    return [
        samples.wheel(name, version, text=text, requires=requires),
        samples.sdist(name, version, text=text, requires=requires),
    ]


def publish_and_repeat(desk: Desk, place: Place, tool: str) -> None:
    """A wheel and an sdist; the same bytes again; other bytes; a wrong password: and what the tool says."""
    publish = PUBLISHERS[tool]
    name = f"by-{tool}"
    files = pair(name)
    publish(desk, place, files)
    publish(desk, place, files)
    changed = pair(name, text="changed")
    if tool == "hatch":  # which looks at the index first, and goes by names
        assert "already exists" in publish(desk, place, changed)
    else:
        said = publish(desk, place, changed, fails=True)
        assert "File already exists" in said, said
    wrong = publish(desk, place.with_password("wrong"), pair(name, "2.0"), fails=True)
    if tool != "poetry":  # which shows the reason phrase only
        assert "401" in wrong or "403" in wrong, wrong


def publish_with_flit(desk: Desk, place: Place) -> None:
    flit_publish(desk, place, "by_flit", "1.0", "hello")
    flit_publish(desk, place, "by_flit", "1.0", "hello")
    said = flit_publish(desk, place, "by_flit", "1.0", "changed", fails=True)
    assert "File already exists" in said, said
    flit_publish(desk, place.with_password("wrong"), "by_flit", "2.0", "hello", fails=True)


def skip_what_is_there(desk: Desk, place: Place) -> None:
    """The options of tools that look for our text, or compare hashes with the index."""
    files, changed = pair("skipped"), pair("skipped", text="changed")
    twine6(desk, place, files)
    twine6(desk, place, changed, "--skip-existing")
    poetry_publish(desk, place, changed, "--skip-existing")
    pdm_publish(desk, place, changed, "--skip-existing")
    uv_publish(desk, place, files, "--check-url", place.signed_index)
    said = uv_publish(desk, place, changed, "--check-url", place.signed_index, fails=True)
    assert "do not match" in said, said


def install_with_dependencies(desk: Desk, place: Place, tool: str) -> None:
    """From the names on the index; a pinned file by its hash; a wrong hash is refused."""
    install, target = INSTALLERS[tool]
    install(desk, place, "top-level")
    assert versions_in(desk, target) == {"top_level": "1.0", "leaf": "1.1"}
    assert installed(desk, target, "top_level") == "top"
    requirements = desk.home / "requirements.txt"
    top, leaf = (
        samples.wheel("top-level", "1.0", text="top", requires=["leaf>=1"]),
        samples.wheel("leaf", "1.0", text="leaf"),
    )
    requirements.write_text(f"top-level==1.0 --hash=sha256:{top.sha256}\nleaf==1.0 --hash=sha256:{leaf.sha256}\n")
    install(desk, place, "--require-hashes", "-r", str(requirements))
    assert versions_in(desk, target) == {"top_level": "1.0", "leaf": "1.0"}
    requirements.write_text(f"leaf==1.0 --hash=sha256:{'0' * 64}\n")
    install(desk, place, "--require-hashes", "-r", str(requirements), fails=True)
    install(desk, place, "not-there", fails=True)


def seed_for_installers(desk: Desk, place: Place) -> None:
    """What `install_with_dependencies` and the projects below install."""
    twine(
        desk,
        place,
        [
            samples.wheel("top-level", "1.0", text="top", requires=["leaf>=1"]),
            samples.wheel("leaf", "1.0", text="leaf"),
            samples.wheel("leaf", "1.1", text="newer leaf"),
        ],
    )


def lock_and_install_again(desk: Desk, place: Place) -> None:
    """uv's lock file holds addresses and hashes: installed from it once more, without a cache, the bytes are the same."""
    project = uv_project(desk, place, "top-level")
    environment = uv_environment(place)
    desk.run("uv", "lock", at=project, environment=environment)
    lock = (project / "uv.lock").read_text()
    assert f'"{place.index.removesuffix("simple/")}files/' in lock or "files/leaf/" in lock, lock
    assert samples.wheel("leaf", "1.1", text="newer leaf").sha256 in lock and "upload-time" in lock
    assert place.password not in lock
    desk.run("uv", "sync", "--frozen", at=project, environment=environment)
    first = fingerprint(site_packages(project), "top_level", "leaf")
    shutil.rmtree(project / ".venv")
    desk.run("uv", "sync", "--frozen", "--no-cache", at=project, environment=environment)
    assert fingerprint(site_packages(project), "top_level", "leaf") == first != {}
    desk.run("uv", "lock", "--check", at=project, environment=environment)


def poetry_lock_and_install(desk: Desk, place: Place) -> None:
    project = poetry_project(desk, place, "top-level")
    environment = poetry_environment(place)
    desk.run("poetry", "lock", "--no-interaction", at=project, environment=environment)
    lock = (project / "poetry.lock").read_text()
    assert samples.wheel("leaf", "1.1", text="newer leaf").sha256 in lock
    desk.run("poetry", "install", "--no-interaction", "--no-root", at=project, environment=environment)
    assert fingerprint(site_packages(project), "top_level", "leaf")


def pdm_lock_and_install(desk: Desk, place: Place) -> None:
    project = pdm_project(desk, place, "top-level")
    desk.run("pdm", "lock", at=project)
    assert samples.wheel("leaf", "1.1", text="newer leaf").sha256 in (project / "pdm.lock").read_text()
    desk.run("pdm", "sync", at=project)
    assert fingerprint(site_packages(project), "top_level", "leaf")


def only_what_is_old_enough(desk: Desk, place: Place, tool: str, moment: str) -> None:
    """`leaf` 1.0 was uploaded before the moment, 1.1 after it."""
    install, target = INSTALLERS[tool]
    option = "--uploaded-prior-to" if tool == "pip" else "--exclude-newer"
    install(desk, place, option, moment, "leaf")
    assert versions_in(desk, target) == {"leaf": "1.0"}
    install(desk, place, option, "2001-01-01T00:00:00Z", "leaf", fails=True)


def yanked_releases(desk: Desk, place: Place, tool: str) -> None:
    """`leaf` 1.1 is yanked: it is passed over, except where it is asked for exactly."""
    install, target = INSTALLERS[tool]
    install(desk, place, "leaf")
    assert versions_in(desk, target) == {"leaf": "1.0"}
    said = install(desk, place, "leaf==1.1")
    assert versions_in(desk, target) == {"leaf": "1.1"}
    assert "a reason to yank" in said, said


def build_and_install_from_source(desk: Desk, place: Place) -> None:
    project = source_project(desk.folder("source"), "from_source", "1.0", "built here")
    desk.run("pyproject-build", at=project)
    files = sorted((project / "dist").iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    desk.run(
        "twine", "upload", "--non-interactive", "--disable-progress-bar", "--repository-url", place.upload,
        "-u", place.username, "-p", place.password, *files,
    )  # fmt: skip
    pip_install(desk, place, "--no-binary", ":all:", "from-source")
    assert installed(desk, "pip-target", "from_source") == "built here"


def sign_in_by_netrc(desk: Desk, place: Place, tool: str) -> None:
    """The index without credentials; the tool looks for the host's in ~/.netrc when it is challenged."""
    install, target = INSTALLERS[tool]
    netrc = desk.home / ".netrc"
    install(desk, place, "leaf", signed=False, fails=True)
    host = urlsplit(place.index).hostname
    netrc.write_text(f"machine {host} login {place.username} password {place.password}\n")
    netrc.chmod(0o600)
    try:
        install(desk, place, "leaf", signed=False)
        assert "leaf" in versions_in(desk, target)
    finally:
        netrc.unlink()


def basic(place: Place) -> str:
    return "Basic " + base64.b64encode(f"{place.username}:{place.password}".encode()).decode()
