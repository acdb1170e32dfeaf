"""What people do with Maven, coursier and sbt, as functions of a repository's address and credentials.

They hold for any kind of repository: a local one, a virtual one that deploys, and, what only reads, a remote one. Every
client runs with a home of its own and knows no other repository than the one it is given: its settings make that the mirror
of all others. Plugins are in the local repository beforehand (`prepared`), so what is asked of the server is what the
scenario is about, and what would be missing shows as a failure.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from xml.sax.saxutils import escape

import httpx

from tests import tools
from tests.client.pypi_scenarios import Desk
from tests.tools.provision import DEPENDENCY_PLUGIN, WARM

MAVENS = ("mvn3.8", "mvn3.9", "mvn4")
GROUP = "com.example.fixture"
COPY = f"{DEPENDENCY_PLUGIN}:copy-dependencies"
DEPLOY_FILE = "org.apache.maven.plugins:maven-deploy-plugin:3.1.4:deploy-file"
# Short runs: a compiler that is quick to start, and no threads beside it.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
MAVEN_OPTIONS = ("-B", "-ntp", "-T1", "-Dstyle.color=never")


@dataclass(frozen=True)
class Place:
    """Where and as whom. `url` ends with a slash."""

    url: str
    username: str
    password: str

    def with_password(self, password: str) -> Place:
        return replace(self, password=password)

    @property
    def host(self) -> str:
        return self.url.partition("//")[2].partition("/")[0].partition(":")[0]


def make_desk(home: Path) -> Desk:
    home.mkdir(mode=0o700)
    return Desk(
        home,
        {
            "MAVEN_ARGS": "",
            "MAVEN_SKIP_RC": "1",
            "MAVEN_OPTS": "",
            "JDK_JAVA_OPTIONS": f'{JAVA} "-Duser.home={home}"',
        },
    )


# --- Maven -----------------------------------------------------------------------------------------------------------


def prepared(desk: Desk, name: str) -> Path:
    """A local repository that has the plugins, and nothing of ours."""
    local = desk.home / name
    shutil.rmtree(local, ignore_errors=True)
    tools.copy_maven_repository(local)
    return local


@dataclass(frozen=True)
class Server:
    """Credentials in Maven's settings, for the repositories with this id."""

    id: str
    username: str
    password: str


def write_settings(desk: Desk, place: Place, *others: Server, mirrored: str = "*") -> Path:
    """Settings with one mirror for everything, `ours`, and its credentials."""
    servers = "".join(
        f"<server><id>{server.id}</id><username>{escape(server.username)}</username>"
        f"<password>{escape(server.password)}</password></server>"
        for server in (Server("ours", place.username, place.password), *others)
    )
    # What a mirror is asked for is what the repositories that it stands for are made for: snapshots, too.
    policies = "<releases><enabled>true</enabled></releases><snapshots><enabled>true</enabled></snapshots>"
    central = f"<id>central</id><url>{place.url}</url>{policies}"
    path = desk.home / "settings.xml"
    path.write_text(
        f"<settings><pluginGroups><pluginGroup>{GROUP}</pluginGroup></pluginGroups><servers>{servers}</servers>"
        f"<mirrors><mirror><id>ours</id><mirrorOf>{mirrored}</mirrorOf><url>{place.url}</url></mirror></mirrors>"
        "<activeProfiles><activeProfile>ours</activeProfile></activeProfiles><profiles><profile><id>ours</id>"
        f"<repositories><repository>{central}</repository></repositories>"
        f"<pluginRepositories><pluginRepository>{central}</pluginRepository></pluginRepositories>"
        "</profile></profiles></settings>\n"
    )
    return path


def mvn(
    desk: Desk, tool: str, project: Path, *arguments: str, local: Path, fails: bool = False,
    environment: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Maven in a project, with the settings that were written last and no others."""
    settings = desk.home / "settings.xml"
    return desk.run(
        tool, *MAVEN_OPTIONS, "-s", settings, "-gs", settings, f"-Dmaven.repo.local={local}", *arguments,
        at=project, fails=fails, environment=environment,
    )  # fmt: skip


_PLUGINS = (
    (WARM / "maven" / "pom.xml").read_text().partition("<pluginManagement>")[2].partition("</pluginManagement>")[0]
)
_PROPERTIES = {
    "maven.compiler.release": "11",
    "maven.test.skip": "true",
    "project.build.sourceEncoding": "UTF-8",
    "project.build.outputTimestamp": "2024-01-01T00:00:00Z",
}


def building(**more: str) -> str:
    """The plugins that are there, and properties; underscores in their names stand for dots."""
    properties = _PROPERTIES | {key.replace("_", "."): value for key, value in more.items()}
    lines = "".join(f"<{key}>{value}</{key}>" for key, value in properties.items())
    return f"<properties>{lines}</properties><build><pluginManagement>{_PLUGINS}</pluginManagement></build>"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_pom(
    folder: Path, artifact: str, version: str = "", content: str = "", *, packaging: str = "jar", parent: str = "",
    group: str = GROUP,
) -> Path:  # fmt: skip
    """A project; without a version it has the one of its `parent`, given as its version, with an optional relative path."""
    above = ""
    if parent:
        number, _, relative = parent.partition(" ")
        above = (
            f"<parent><groupId>{group}</groupId><artifactId>parent</artifactId><version>{number}</version>"
            f"<relativePath>{relative}</relativePath></parent>"
        )
    own = f"<groupId>{group}</groupId>" * (not parent) + f"<artifactId>{artifact}</artifactId>"
    own += f"<version>{version}</version>" * bool(version)
    return write(
        folder / "pom.xml",
        '<?xml version="1.0" encoding="UTF-8"?>\n<project xmlns="http://maven.apache.org/POM/4.0.0">'
        f"<modelVersion>4.0.0</modelVersion>{above}{own}<packaging>{packaging}</packaging>{content}</project>\n",
    )


def dependency(artifact: str, version: str = "", *, classifier: str = "", type: str = "", scope: str = "") -> str:
    given = {"version": version, "classifier": classifier, "type": type, "scope": scope}
    more = "".join(f"<{key}>{value}</{key}>" for key, value in given.items() if value)
    return f"<dependency><groupId>{GROUP}</groupId><artifactId>{artifact}</artifactId>{more}</dependency>"


def execution(plugin: str, goal: str, phase: str = "", configuration: str = "") -> str:
    bound = f"<phase>{phase}</phase>" * bool(phase)
    return (
        f"<plugin><artifactId>{plugin}</artifactId><executions><execution><id>{goal}-{len(configuration)}</id>{bound}"
        f"<goals><goal>{goal}</goal></goals><configuration>{configuration}</configuration></execution></executions></plugin>"
    )


def management(*dependencies: str) -> str:
    return f"<dependencyManagement><dependencies>{''.join(dependencies)}</dependencies></dependencyManagement>"


MOJO = """\
package fixture;

import org.apache.maven.plugin.AbstractMojo;
import org.apache.maven.plugins.annotations.Mojo;

/** Says which version of the plugin runs. */
@Mojo(name = "say", requiresProject = false)
public final class SayMojo extends AbstractMojo {
    @Override
    public void execute() {
        getLog().info("the plugin of version " + getClass().getPackage().getImplementationVersion() + " runs");
    }
}
"""


def write_products(desk: Desk, version: str = "1.0", moving: str = "2.0-SNAPSHOT", name: str = "products") -> Path:
    """What one deploy brings: a parent, a BOM, two libraries that depend on each other, a plugin, and a snapshot.

    `core` comes with sources, documentation, a file with a classifier, and signatures of all that. `app` depends on it by
    a range. `moving` has a version of its own.
    """
    project = desk.home / name
    shutil.rmtree(project, ignore_errors=True)
    modules = "".join(f"<module>{module}</module>" for module in ("bom", "core", "app", "fixture-tool", "moving"))
    write_pom(project, "parent", version, f"<modules>{modules}</modules>{building()}", packaging="pom")
    inside = f"{version} ../pom.xml"
    everything = [dependency(artifact, version) for artifact in ("core", "app")]
    write_pom(project / "bom", "bom", "", management(*everything), packaging="pom", parent=inside)

    write(
        project / "core/src/main/java/fixture/Core.java", "package fixture;\n\n/** A class. */\npublic class Core {}\n"
    )
    write(project / "core/src/main/resources/marker.txt", f"core {version}")
    plugins = (
        execution("maven-source-plugin", "jar-no-fork"),
        execution("maven-javadoc-plugin", "jar"),
        execution("maven-jar-plugin", "jar", "package", "<classifier>linux</classifier>"),
        execution("maven-gpg-plugin", "sign"),
    )
    write_pom(project / "core", "core", "", f"<build><plugins>{''.join(plugins)}</plugins></build>", parent=inside)

    write(project / "app/src/main/resources/marker.txt", f"app {version}")
    by_range = dependency("core", "[1.0,1.5)")
    write_pom(project / "app", "app", "", f"<dependencies>{by_range}</dependencies>", parent=inside)

    write(project / "fixture-tool/src/main/java/fixture/SayMojo.java", MOJO)
    api = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{number}</version>"
        "<scope>provided</scope></dependency>"
        for group, artifact, number in (
            ("org.apache.maven", "maven-plugin-api", "3.9.9"),
            ("org.apache.maven.plugin-tools", "maven-plugin-annotations", "3.15.1"),
        )
    )
    prefix = (
        "<plugin><artifactId>maven-plugin-plugin</artifactId><configuration><goalPrefix>fixture</goalPrefix>"
        "</configuration></plugin><plugin><artifactId>maven-jar-plugin</artifactId><configuration><archive><manifest>"
        "<addDefaultImplementationEntries>true</addDefaultImplementationEntries></manifest></archive></configuration></plugin>"
    )
    content = f"<dependencies>{api}</dependencies><build><plugins>{prefix}</plugins></build>"
    write_pom(project / "fixture-tool", "fixture-tool", "", content, packaging="maven-plugin", parent=inside)

    write_pom(project / "moving", "moving", moving, building())
    mark(project, "moving", f"moving {moving}, first")
    return project


def mark(project: Path, module: str, text: str) -> None:
    """Change what the module's jar holds."""
    write(project / module / "src/main/resources/marker.txt", text)


def marker_of(jar: Path) -> str:
    with zipfile.ZipFile(jar) as archive:
        return archive.read("marker.txt").decode()


@contextmanager
def signing_key() -> Iterator[dict[str, str]]:
    """The environment in which gpg signs with a new key. (Its folder has a short name, because sockets must.)"""
    with tempfile.TemporaryDirectory(prefix="rr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {"GNUPGHOME": folder}
        gpg = [str(tools.path("gpg")), "--homedir", folder, "--batch"]
        make = [*gpg, "--passphrase", "", "--quick-generate-key", "fixture@example.com", "ed25519", "sign", "never"]
        subprocess.run(make, check=True, capture_output=True)
        try:
            yield environment
        finally:
            subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], check=True, capture_output=True)


def deploy_to(place: Place, id: str = "ours") -> str:
    return f"-DaltDeploymentRepository={id}::{place.url}"


def deploy_products(desk: Desk, place: Place, tool: str, project: Path, key: Mapping[str, str], *more: str) -> str:
    """One `mvn deploy`, signatures included."""
    write_settings(desk, place)
    local = prepared(desk, "author")
    return mvn(desk, tool, project, "deploy", deploy_to(place), *more, local=local, environment=key)


def write_consumer(desk: Desk, version: str = "1.0", moving: str = "2.0-SNAPSHOT", name: str = "consumer") -> Path:
    """A project that has its parent from the repository, versions from the BOM, and depends on everything else."""
    bom = dependency("bom", version, type="pom", scope="import")
    wanted = (
        dependency("app"),
        dependency("core", version, classifier="linux"),
        dependency("core", version, classifier="sources"),
        dependency("core", version, classifier="javadoc"),
        dependency("core", version, type="jar.asc"),
        dependency("moving", moving),
    )
    content = f"{management(bom)}<dependencies>{''.join(wanted)}</dependencies>"
    project = desk.home / name
    shutil.rmtree(project, ignore_errors=True)
    write_pom(project, "consumer", "1", content, packaging="pom", parent=version)
    return project


def consume(
    desk: Desk,
    place: Place,
    tool: str,
    *more: str,
    local: Path | None = None,
    version: str = "1.0",
    fails: bool = False,
) -> dict[str, Path]:
    """Resolve everything, and run the plugin by its prefix. Returns the files by name.

    `local`: a local repository that is used again; else there is a new one.
    """
    write_settings(desk, place)
    project = write_consumer(desk, version)
    copied = project / "copied"
    local = local or prepared(desk, "reader")
    said = mvn(
        desk, tool, project, COPY, f"-DoutputDirectory={copied}", "-Dmdep.useBaseVersion=true", "fixture:say", *more,
        local=local, fails=fails,
    )  # fmt: skip
    if not fails:
        assert f"the plugin of version {version} runs" in said, said
    return {path.name: path for path in sorted(copied.iterdir())} if copied.exists() else {}


def check_consumed(
    found: Mapping[str, Path], key: Mapping[str, str], version: str = "1.0", moving: str = "first"
) -> None:
    """What came is what was deployed, and its signature is right."""
    assert tuple(found) == (
        f"app-{version}.jar",
        f"core-{version}-javadoc.jar",
        f"core-{version}-linux.jar",
        f"core-{version}-sources.jar",
        f"core-{version}.jar",
        f"core-{version}.jar.asc",
        "moving-2.0-SNAPSHOT.jar",
    )
    core = found[f"core-{version}.jar"]
    assert marker_of(core) == marker_of(found[f"core-{version}-linux.jar"]) == f"core {version}"
    assert marker_of(found[f"app-{version}.jar"]) == f"app {version}"
    assert marker_of(found["moving-2.0-SNAPSHOT.jar"]) == f"moving 2.0-SNAPSHOT, {moving}"
    with zipfile.ZipFile(found[f"core-{version}-sources.jar"]) as archive:
        assert "fixture/Core.java" in archive.namelist()
    with zipfile.ZipFile(found[f"core-{version}-javadoc.jar"]) as archive:
        assert "index.html" in archive.namelist()
    verify(core, found[f"core-{version}.jar.asc"], key)


def verify(file: Path, signature: Path, key: Mapping[str, str]) -> None:
    gpg = [str(tools.path("gpg")), "--homedir", key["GNUPGHOME"], "--batch", "--verify", str(signature), str(file)]
    done = subprocess.run(gpg, capture_output=True, text=True)
    assert done.returncode == 0 and "Good signature" in done.stderr, done.stderr


def deploy_again(desk: Desk, place: Place, tool: str, project: Path) -> str:
    """Some modules once more: unchanged ones, a release with other bytes, which is refused, and the next snapshot."""
    mark(project, "core", "other bytes")
    mark(project, "moving", "moving 2.0-SNAPSHOT, second")
    write_settings(desk, place)
    modules = ("-pl", ".,bom,core,moving", "--fail-at-end", "-Dgpg.skip=true", "-Dmaven.javadoc.skip=true")
    return mvn(
        desk, tool, project, "deploy", deploy_to(place), *modules, local=desk.home / "author", fails=True,
    )  # fmt: skip


def outcomes(said: str) -> dict[str, str]:
    """Module → how it ended, from the summary of a build of several modules."""
    summary = said.partition("Reactor Summary")[2].splitlines()
    found = {}
    for line in summary:
        words = line.removeprefix("[INFO] ").split()
        for outcome in ("SUCCESS", "FAILURE", "SKIPPED"):
            if outcome in words[1:]:
                found[words[0]] = outcome
    return found


REFUSED = ("reads-wrong", "reads-nobody", "writes-wrong", "writes-snapshot", "writes-too-much")


def write_refused(desk: Desk, place: Place, strict: Place, full: Place) -> Path:
    """A build of modules of which each is refused for a reason of its own."""
    project = desk.home / "refused"
    repository = "<id>{}</id><url>{}</url>"
    wrong, nobody = (repository.format(id, place.url) for id in ("wrong", "nobody"))
    core = dependency("core", "1.0")
    need = f"<dependencies>{core}</dependencies><repositories><repository>{{}}</repository></repositories>"
    give = "<distributionManagement><{0}>{1}</{0}></distributionManagement>"
    contents = {
        "reads-wrong": need.format(wrong),
        "reads-nobody": need.format(nobody),
        "writes-wrong": give.format("repository", wrong),
        "writes-snapshot": give.format("snapshotRepository", repository.format("strict", strict.url)),
        "writes-too-much": give.format("repository", repository.format("full", full.url)),
    }
    for module in REFUSED:
        version = "1-SNAPSHOT" if module == "writes-snapshot" else "1"
        write_pom(project / module, module, version, contents[module] + building())
    modules = "".join(f"<module>{module}</module>" for module in REFUSED)
    content = f"<modules>{modules}</modules>{building(maven_deploy_skip='true')}"
    write_pom(project, "refused", "1", content, packaging="pom")
    return project


def be_refused(desk: Desk, place: Place, strict: Place, full: Place, tool: str, *more: str) -> str:
    """Everything that is refused, in one build. `strict` takes releases only and holds none, `full` takes nothing."""
    project = write_refused(desk, place, strict, full)
    servers = [
        Server("wrong", place.username, "wrong"),
        Server("strict", strict.username, strict.password),
        Server("full", full.username, full.password),
    ]
    write_settings(desk, strict, *servers, mirrored="*,!wrong,!nobody")
    local = prepared(desk, "refused-local")
    return mvn(desk, tool, project, "deploy", "--fail-at-end", *more, local=local, fails=True)


# --- coursier --------------------------------------------------------------------------------------------------------


def coursier(
    desk: Desk, place: Place, command: str, *arguments: str, cache: str = "coursier", signed: bool = True,
    fails: bool = False,
) -> list[str]:  # fmt: skip
    """What coursier prints, line by line, with this repository alone."""
    credentials = ["--credentials", f"{place.host} {place.username}:{place.password}"] if signed else []
    said = desk.run(
        "coursier", command, "--quiet", "--no-default", "-r", place.url, "--cache", desk.home / cache, *credentials,
        *arguments, fails=fails,
    )  # fmt: skip
    return [line for line in said.splitlines() if not line.startswith("NOTE: Picked up")]


def coursier_fetch(desk: Desk, place: Place, cache: str = "coursier", moving: str = "first") -> None:
    """A release with what it depends on by a range, and a snapshot."""
    said = coursier(
        desk, place, "fetch", f"{GROUP}:app:1.0", f"{GROUP}:moving:2.0-SNAPSHOT", "--ttl", "0s", cache=cache
    )
    found = {path.name: path for path in map(Path, said)}
    markers = {name: marker_of(path) for name, path in found.items()}
    assert markers.pop("app-1.0.jar") == "app 1.0" and markers.pop("core-1.0.jar") == "core 1.0"
    assert list(markers.values()) == [f"moving 2.0-SNAPSHOT, {moving}"], found


def coursier_resolve(desk: Desk, place: Place, cache: str = "coursier") -> None:
    """The newest release, a range, and a file with a classifier."""
    said = coursier(desk, place, "resolve", f"{GROUP}:core:latest.release", f"{GROUP}:app:[1.0,1.5)", cache=cache)
    assert sorted(said) == [f"{GROUP}:app:1.0:default", f"{GROUP}:core:1.0:default"]
    (file,) = coursier(desk, place, "fetch", f"{GROUP}:core:1.0", "-C", "linux", "-A", "*", cache=cache)
    assert Path(file).name == "core-1.0-linux.jar"


# --- sbt -------------------------------------------------------------------------------------------------------------


def write_sbt(desk: Desk, place: Place) -> Path:
    """A build that depends on what was deployed, and publishes itself, with credentials for both."""
    project = desk.home / "from-sbt"
    shutil.rmtree(project, ignore_errors=True)
    write(project / "project/build.properties", (WARM / "sbt/project/build.properties").read_text())
    write(
        project / "src/main/java/fromsbt/Used.java", "package fromsbt;\n\npublic class Used extends fixture.Core {}\n"
    )
    write(project / "more/marker.txt", "other bytes")
    write(
        project / "build.sbt",
        f"""\
organization := "{GROUP}"
name := "from-sbt"
version := "1.0"
crossPaths := false
autoScalaLibrary := false
managedScalaInstance := false
Compile / packageDoc / publishArtifact := false
libraryDependencies ++= Seq("{GROUP}" % "app" % "1.0", "{GROUP}" % "moving" % "2.0-SNAPSHOT")
publishTo := Some(("ours" at "{place.url}").withAllowInsecureProtocol(true))
credentials += Credentials("Repoman", "{place.host}", "{place.username}", "{place.password}")
""",
    )
    prepared = f"prepared: {tools.path('maven-repository').as_uri()}"
    write(desk.home / "repositories", f"[repositories]\n{prepared}\nours: {place.url}, allowInsecureProtocol\n")
    return project


def sbt(desk: Desk, project: Path, *commands: str, fails: bool = False) -> str:
    """Commands in one run of sbt, which finds itself in what was prepared."""
    options = {
        "user.home": desk.home,
        "sbt.boot.directory": tools.path("sbt-boot"),
        "sbt.coursier.home": desk.home / "sbt-coursier",
        "sbt.global.base": desk.home / "sbt-global",
        "sbt.ivy.home": desk.home / "sbt-ivy",
        "sbt.repository.config": desk.home / "repositories",
        "sbt.override.build.repos": "true",
        "sbt.server.autostart": "false",
        "sbt.supershell": "false",
        "sbt.color": "false",
    }
    java = " ".join([JAVA, *(f'"-D{name}={value}"' for name, value in options.items())])
    return desk.run("sbt", *commands, at=project, fails=fails, environment={"JDK_JAVA_OPTIONS": java})


CLASS_PATH = "export Runtime / dependencyClasspath"


def check_class_path(said: str) -> None:
    """What sbt shows of its class path: the jars that were deployed."""
    (line,) = (line for line in said.splitlines() if "app-1.0.jar" in line and ":" in line)
    jars = {path.name: marker_of(path) for path in map(Path, line.split(":")) if path.suffix == ".jar"}
    assert jars.pop("app-1.0.jar") == "app 1.0" and jars.pop("core-1.0.jar") == "core 1.0"
    assert list(jars.values()) == ["moving 2.0-SNAPSHOT, first"]


def sbt_build(desk: Desk, place: Place) -> None:
    """Compile against what was deployed, with nothing of it here yet."""
    shutil.rmtree(desk.home / "sbt-coursier", ignore_errors=True)
    check_class_path(sbt(desk, write_sbt(desk, place), "compile", CLASS_PATH))


def sbt_build_and_publish(desk: Desk, place: Place) -> str:
    """Compile; publish a release and a snapshot, and at last the release with other bytes, which is refused."""
    snapshot = 'set version := "1.1-SNAPSHOT"'
    changed = 'set Compile / unmanagedResourceDirectories += file("more").getAbsoluteFile'
    # Without this sbt looks itself, and does not even ask.
    insisting = "set publishConfiguration := publishConfiguration.value.withOverwrite(true)"
    publishing = ("publish", snapshot, "publish", 'set version := "1.0"', changed, insisting, "publish")
    said = sbt(desk, write_sbt(desk, place), "compile", CLASS_PATH, *publishing, fails=True)
    check_class_path(said)
    return said


# --- single files ----------------------------------------------------------------------------------------------------


def deploy_file(desk: Desk, place: Place, tool: str, artifact: str, version: str) -> None:
    """`deploy:deploy-file` of a jar, in a folder and with a local repository of its own. The settings are there."""
    folder = desk.folder(f"{artifact}-{version}")
    jar = folder / "any.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("marker.txt", f"{artifact} {version}")
    given = {
        "file": jar, "groupId": GROUP, "artifactId": artifact, "version": version, "packaging": "jar",
        "url": place.url, "repositoryId": "ours",
    }  # fmt: skip
    properties = [f"-D{key}={value}" for key, value in given.items()]
    mvn(desk, tool, folder, DEPLOY_FILE, *properties, local=prepared(desk, f"{artifact}-{version}-local"))


def put_release(client: httpx.Client, place: Place, artifact: str, version: str, jar: bytes) -> None:
    """What Maven sends for a jar with its POM, in its order: files with checksums, then the metadata, merged."""
    folder = f"{place.url}{GROUP.replace('.', '/')}/{artifact}/"
    coordinates = f"<groupId>{GROUP}</groupId><artifactId>{artifact}</artifactId>"
    pom = f"<project><modelVersion>4.0.0</modelVersion>{coordinates}<version>{version}</version></project>".encode()

    def put(path: str, content: bytes) -> None:
        for suffix, body in (
            ("", content),
            (".sha1", hashlib.sha1(content, usedforsecurity=False).hexdigest().encode()),
            (".md5", hashlib.md5(content, usedforsecurity=False).hexdigest().encode()),
        ):
            answer = client.put(f"{folder}{path}{suffix}", content=body)
            assert answer.status_code == 201, f"{path}{suffix}: {answer.status_code} {answer.text}"

    put(f"{version}/{artifact}-{version}.jar", jar)
    put(f"{version}/{artifact}-{version}.pom", pom)
    known = client.get(f"{folder}maven-metadata.xml")
    assert known.status_code in (200, 404), known.text
    versions = re.findall("<version>(.*?)</version>", known.text) if known.status_code == 200 else []
    listed = "".join(f"<version>{each}</version>" for each in dict.fromkeys([*versions, version]))
    versioning = f"<versioning><release>{version}</release><versions>{listed}</versions></versioning>"
    put("maven-metadata.xml", f"<metadata>{coordinates}{versioning}</metadata>".encode())


# --- what others published -------------------------------------------------------------------------------------------


def copy_tree(desk: Desk, place: Place, tool: str, starters: Sequence[str]) -> dict[str, str]:
    """Everything that some starters of Spring Boot need, name → digest; also Maven's plugin comes from the repository."""
    write_settings(desk, place)
    wanted = "".join(
        "<dependency><groupId>org.springframework.boot</groupId>"
        f"<artifactId>{starter}</artifactId><version>3.3.5</version></dependency>"
        for starter in starters
    )
    project = desk.home / "tree"
    shutil.rmtree(project, ignore_errors=True)
    write_pom(project, "tree", "1", f"<dependencies>{wanted}</dependencies>", packaging="pom")
    empty = desk.home / "empty"
    shutil.rmtree(empty, ignore_errors=True)
    # A checksum that is wrong is a failure.
    mvn(desk, tool, project, "-C", COPY, f"-DoutputDirectory={project / 'copied'}", local=empty)
    found = sorted((project / "copied").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
