"""The tables of the report: which rows stand in which, and how their cells are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.rows import Plan


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table. `rate` and `cost` make the two texts of a cell from a sample's fields."""

    slug: str
    label: str
    rate: Callable[[float], str]
    cost: Callable[[float], str] | None = None


def _per_second(value: float) -> str:
    return f"{value:,.0f}/s"


def _micro(value: float) -> str:
    """Processor seconds per request are, per 1,000 requests, as many milliseconds as microseconds per one."""
    return f"{value * 1000:.3f} s" if value < 0.01 else f"{value * 1000:.2f} s"


def _gib(value: float) -> str:
    return f"{value:.2f} GiB/s"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _read_lines(suffix: str) -> list[Line]:
    labels = {
        "tag": "manifest by tag", "digest": "manifest by digest", "head": "HEAD by tag", "blob": "4 KiB blob",
        "tags": "tags/list, all tags",
    }  # fmt: skip
    return [Line(f"{slug}{suffix}", label, _per_second, _micro) for slug, label in labels.items()]


def _each(value: float) -> str:
    """One over the rate, as milliseconds."""
    return f"{1000 / value:,.1f} ms"


def _install(value: float) -> str:
    return f"{1 / value:.2f} s"


def _mib(value: float) -> str:
    return f"{value * 1024:,.0f} MiB/s"


def _package_tables(plan: Plan) -> list[tuple[str, str, list[Line]]]:
    small, middle, large = (f"{count:,} version{'s' if count > 1 else ''}" for count in plan.versions)
    counts = {"small": small, "middle": middle, "large": large}
    reads = "requests per second · processor seconds per 1,000 requests; 16 clients, anonymous"
    writes = "per second · processor seconds per 1,000"
    growth = (
        "requests per second · processor seconds per 1,000 requests; a package of one version, on a server that has "
        "nothing else and on one to which everything above was added"
    )

    def documents(area: str, forms: dict[str, str]) -> list[Line]:
        found = []
        for form, label in forms.items():
            for size, count in counts.items():
                for suffix, way in (("", "plain"), ("-gzip", "gzip")):
                    if size == "small" and suffix:
                        continue
                    slug = f"{area}-{form}-{size}{suffix}"
                    found.append(
                        Line(slug, f"{label}, {count}{'' if size == 'small' else f', {way}'}", _per_second, _micro)
                    )
        return found

    def unchanged(area: str, what: str) -> list[Line]:
        return [
            Line(f"{area}-unchanged-{size}", f"{what}, {counts[size]}, not changed (304)", _per_second, _micro)
            for size in ("small", "large")
        ]

    def publishes(area: str) -> list[Line]:
        return [
            Line(f"{area}-publish-1", "publish, 1 client", _per_second, _micro),
            Line(f"{area}-publish-8", "publish, 8 clients", _per_second, _micro),
        ]

    def single(area: str, client: str, what: str) -> list[Line]:
        return [
            *(
                Line(f"{area}-fresh-{size}", f"first {what} after a publish, {counts[size]}", _each)
                for size in ("small", "large")
            ),
            Line(f"{area}-install-cold", f"`{client}` of 50 packages, empty cache", _install, _seconds),
            Line(f"{area}-install-warm", f"`{client}` of 50 packages, full cache", _install, _seconds),
        ]

    forms = {"json": "page as JSON", "html": "page as HTML"}
    return [
        ("npm: reads", reads, [
            *documents("npm", {"full": "packument", "short": "abbreviated packument"}), *unchanged("npm", "packument"),
            Line("npm-tarball", "tarball of 16 KiB", _per_second, _micro),
        ]),
        ("npm: publishes", f"{writes}; versions of 16 KiB, of eight packages", publishes("npm")),
        ("npm: single requests and installs", "time; for installs also the server's processor time", single("npm", "npm install", "packument")),
        ("npm: growth", growth, [
            Line("npm-growth-full", "packument", _per_second, _micro),
            Line("npm-growth-short", "abbreviated packument", _per_second, _micro),
        ]),
        ("PyPI: reads", reads, [
            *documents("pypi", forms), *unchanged("pypi", "page as JSON"),
            Line("pypi-root-json", f"root index as JSON, {plan.projects:,} projects", _per_second, _micro),
            Line("pypi-root-html", f"root index as HTML, {plan.projects:,} projects", _per_second, _micro),
            Line("pypi-wheel", "wheel of 16 KiB", _per_second, _micro),
        ]),
        ("PyPI: publishes", f"{writes}; wheels of 16 KiB, of eight projects", publishes("pypi")),
        ("PyPI: single requests and installs", "time; for installs also the server's processor time", single("pypi", "uv pip install", "page (HTML)")),
        ("PyPI: growth", growth, [
            Line("pypi-growth-json", "page as JSON", _per_second, _micro),
            Line("pypi-growth-html", "page as HTML", _per_second, _micro),
        ]),
    ]  # fmt: skip


def _remote_tables(plan: Plan) -> list[tuple[str, str, list[Line]]]:
    remotes = []
    for format, page, file in (
        ("npm", "packument of 100 versions", "tarball"),
        ("pypi", "page of 100 files", "wheel"),
        ("oci", "", "blob"),
    ):
        prefix = f"remote-{format}"
        size = f"{plan.cold_bytes // 2**20} MiB"
        lines = [
            Line(f"{prefix}-page", f"{page}, one client", _each),
            Line(f"{prefix}-first", f"{file} of {size}, one client: first byte", _each),
            Line(
                f"{prefix}-cold",
                f"{file} of {size}, one client: throughput · processor seconds per GiB",
                _mib,
                _seconds,
            ),
            Line(
                f"{prefix}-page-crowd",
                f"{page}, 200 clients at once: answers per second · processor seconds per 1,000",
                _per_second,
                _micro,
            ),
            Line(f"{prefix}-page-calls", f"{page}, 200 clients at once: upstream requests", "{:.0f}".format),
            Line(
                f"{prefix}-crowd",
                f"{file} of 256 KiB, 200 clients at once: answers per second · processor seconds per 1,000",
                _per_second,
                _micro,
            ),
            Line(f"{prefix}-calls", f"{file} of 256 KiB, 200 clients at once: upstream requests", "{:.0f}".format),
        ]
        remotes.append((
            f"Cold remote fetches: {format}",
            "a cache that has nothing yet, in front of one nginx on the same machine; what it takes",
            lines if page else [line for line in lines if "-page" not in line.slug],
        ))  # fmt: skip
    return remotes


def _repository_tables(plan: Plan) -> list[tuple[str, str, list[Line]]]:
    """Of the formats whose floor is a folder of files: Maven and Helm."""
    reads = "requests per second · processor seconds per 1,000 requests; 16 clients, anonymous"
    writes = "per second · processor seconds per 1,000"
    one, many = (f"{count:,} version{'s' if count > 1 else ''}" for count in plan.releases)
    tiny, small, large = (f"{count:,} chart versions" for count in plan.charts)
    indexes = {"small": small, "large": large}
    return [
        ("Maven: reads", reads, [
            Line("maven-jar", "jar of 16 KiB", _per_second, _micro),
            Line("maven-sum", "its .sha1", _per_second, _micro),
            Line("maven-metadata-small", f"maven-metadata.xml, {one}", _per_second, _micro),
            Line("maven-metadata-large", f"maven-metadata.xml, {many}, plain", _per_second, _micro),
            Line("maven-metadata-large-gzip", f"maven-metadata.xml, {many}, gzip", _per_second, _micro),
            Line("maven-unchanged-small", f"maven-metadata.xml, {one}, not changed (304)", _per_second, _micro),
            Line("maven-unchanged-large", f"maven-metadata.xml, {many}, not changed (304)", _per_second, _micro),
        ]),
        ("Maven: deploys", f"releases {writes}; each is ten requests: jar of 16 KiB, POM and metadata with their .sha1 and .md5, "
         "and a read of the metadata; of eight artifacts", [
            Line("maven-deploy-1", "deploy, 1 client", _per_second, _micro),
            Line("maven-deploy-8", "deploy, 8 clients", _per_second, _micro),
        ]),
        ("Maven: single requests and builds", "time; for builds also the server's processor time", [
            Line("maven-fresh-small", f"first maven-metadata.xml after a deploy of files alone, {one}", _each),
            Line("maven-fresh-large", f"first maven-metadata.xml after a deploy of files alone, {many}", _each),
            Line("maven-install-cold", "`mvn` resolves 60 artifacts, empty local repository", _install, _seconds),
            Line("maven-install-warm", "`mvn` resolves 60 artifacts, full local repository", _install, _seconds),
        ]),
        ("Maven: growth", "requests per second · processor seconds per 1,000 requests; an artifact of one version, on a server that "
         "has nothing else and on one to which everything above was added", [
            Line("maven-growth-metadata", "maven-metadata.xml", _per_second, _micro),
            Line("maven-growth-jar", "jar of 16 KiB", _per_second, _micro),
        ]),
        ("Helm: reads", reads, [
            *(Line(f"helm-index-{size}{suffix}", f"index.yaml, {count}, {way}", _per_second, _micro)
              for size, count in indexes.items() for suffix, way in (("", "plain"), ("-gzip", "gzip"))),
            *(Line(f"helm-unchanged-{size}", f"index.yaml, {count}, not changed (304)", _per_second, _micro)
              for size, count in indexes.items()),
            Line("helm-chart", "chart of 16 KiB", _per_second, _micro),
        ]),
        ("Helm: uploads", f"{writes}; charts of 16 KiB, versions of eight", [
            Line("helm-upload-1", "upload, 1 client", _per_second, _micro),
            Line("helm-upload-8", "upload, 8 clients", _per_second, _micro),
        ]),
        ("Helm: the index right after a push", "time of one client's first read after one push; nginx has taken no push and "
         "sends a file of that size", [
            *(Line(f"helm-fresh-{size}", f"index.yaml, {count}", _each)
              for size, count in {"tiny": tiny, **indexes}.items()),
            *(Line(f"helm-beyond-{size}", f"index.yaml, {count}, less the time that nginx takes", _each)
              for size, count in {"tiny": tiny, **indexes}.items()),
        ]),
        ("Helm: clients", "time · the server's processor time", [
            Line(f"helm-update{major}-{size}", f"`helm repo update`, Helm {major}, {count}", _install, _seconds)
            for major in "34" for size, count in indexes.items()
        ]),
        ("Helm: memory", "by how much the resident sets of all processes grow at most, from a start on, while they index the charts "
         "for the first time and 20 clients read the index", [
            Line("helm-memory", f"index.yaml, {large}", lambda value: f"{value:,.0f} MiB"),
        ]),
    ]  # fmt: skip


def tables(plan: Plan) -> list[tuple[str, str, list[Line]]]:
    """Title, what its cells are, and its lines."""
    per_thousand = "requests per second · processor seconds per 1,000 requests"
    writes = "per second · processor seconds per 1,000"
    plain = "{:.1f}".format
    images = [
        (f"Small reads, {plan.tags:,} tags, 16 clients, anonymous", per_thousand, _read_lines("")),
        (
            "The same with a password (Basic)",
            f"{per_thousand}; peers with htpasswd (bcrypt, cost 5)",
            _read_lines("-basic"),
        ),
        ("The same with a registry token (Bearer)", per_thousand, _read_lines("-token")),
        (
            "Large blobs, one client",
            "GiB per second · processor seconds per GiB",
            [Line("down-256m", "256 MiB down", _gib, _seconds), Line("up-256m", "256 MiB up", _gib, _seconds)],
        ),
        (
            "Writes",
            writes,
            [
                Line("up-4k-1", "4 KiB blob, 1 client", _per_second, _micro),
                Line("up-4k-16", "4 KiB blob, 16 clients", _per_second, _micro),
                Line("up-1m-1", "1 MiB blob, 1 client", _per_second, _micro),
                Line("up-1m-16", "1 MiB blob, 16 clients", _per_second, _micro),
                Line("image", "image (64 KiB layer, config, manifest), 16 clients", _per_second, _micro),
                Line("mount", "mount from another repository, 16 clients", _per_second, _micro),
            ],
        ),
        (
            "Syncs per 4 KiB blob",
            "fsync, fdatasync and syncfs calls of the whole tree, counted by strace, in a server that is warm",
            [Line("fsync-1", "1 client", plain), Line("fsync-16", "16 clients", plain)],
        ),
        (
            "Slow clients",
            "median latency of 4 other clients that read manifests, without and with 200 connections that send one byte a "
            "second",
            [
                Line("trickle-without", "without", lambda value: f"{1e6 / value:,.0f} µs"),
                Line("trickle-with", "with", lambda value: f"{1e6 / value:,.0f} µs"),
            ],
        ),
        (
            "Start and rest",
            "ours on the data folder that the rows above have filled; memory is the proportional set size of all processes",
            [
                Line("start", "start to first answer", _seconds),
                Line("ready", "start to ready (worker too)", _seconds),
                Line("memory", "memory at rest", lambda value: f"{value:.0f} MiB"),
                Line("memory-loaded", "memory after the rows above", lambda value: f"{value:.0f} MiB"),
                Line("idle-processor", "processor at rest", lambda value: f"{value:.1f} % of a core"),
            ],
        ),
        (
            f"Growth: ours with {plan.tags:,} and {plan.grown:,} tags, manifests and layers in one image",
            writes + "; as many different names are asked of both",
            [
                Line("growth-tag", "manifest by tag", _per_second, _micro),
                Line("growth-digest", "manifest by digest", _per_second, _micro),
                Line("growth-blob", "64-byte blob", _per_second, _micro),
                Line("growth-page", "a page of 100 tags, from anywhere", _per_second, _micro),
                Line("growth-spread", "manifest by tag, up to 20,000 different ones (not judged)", _per_second, _micro),
                Line("growth-push", "4 KiB blob up, 16 clients", _per_second, _micro),
                Line("growth-manifest", "image push, 16 clients", _per_second, _micro),
            ],
        ),
    ]
    return [*images, *_package_tables(plan), *_repository_tables(plan), *_remote_tables(plan)]
