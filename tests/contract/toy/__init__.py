"""A sixth format in one folder: what a new one needs, and nothing in the core that knows it.

Packages hold versions, a version holds files. `PUT <package>/<version>/<file>` publishes, `GET` of the same downloads,
`GET <package>/` lists. A file's first line says which package and version it belongs to.
"""

from __future__ import annotations

import json
import re
from typing import Any, BinaryIO, ClassVar

from repoman.core.actor import Action
from repoman.core.errors import ContentInvalid, FileNotFound, NameInvalid, NotFound, PackageNotFound, RepomanError
from repoman.core.fetch import Ref, UpstreamRequest
from repoman.core.format import FormatHandler, Repo
from repoman.core.records import Document, Entry, Facts, ListedFile, Listing, NewFile, NewVersion, Publication, Staged
from repoman.core.refs import FileRef, ListingRef
from repoman.core.wire import BodyPlan, Head, Request, Response, Route, StagedBody

_NAME = re.compile(r"[a-z][a-z0-9-]{0,99}\Z")
_FIRST_LINE = re.compile(rb"toy ([a-z0-9-]+) ([0-9.]+)\n")
_FILE = r"(?P<package>[^/]+)/(?P<version>[^/]+)/(?P<file>[^/]+)"


def sample(package: str, version: str, text: str = "hello") -> bytes:
    return f"toy {package} {version}\n{text}\n".encode()


def check(package: str) -> str:
    if _NAME.match(package.lower()) is None:
        raise NameInvalid(f"'{package[:80]}' is not a name")
    return package.lower()


def file_ref(package: str, version: str, file: str) -> FileRef:
    return FileRef(check(package), f"{version}/{file}")


def listing_ref(package: str) -> ListingRef:
    return ListingRef("versions", check(package))


def get(repo: Repo, request: Request, package: str, version: str, file: str) -> Response:
    try:
        return Response(200, [], repo.open(file_ref(package, version, file)).blob)
    except PackageNotFound:
        raise FileNotFound("there is no such file") from None


def page(repo: Repo, request: Request, package: str) -> Response:
    return Response(200, [], repo.document(listing_ref(package), "json", f"{request.base_url}{request.mount}"))


def admit(repo: Repo, head: Head, **captured: str) -> BodyPlan:
    return StagedBody(limit=1_000_000)


def put(repo: Repo, request: Request, package: str, version: str, file: str) -> Response:
    assert isinstance(request.body, Staged)
    facts = repo.inspect(file, request.body)
    if (facts.name, facts.version) != (check(package), version):
        repo.discard(request.body)
        raise ContentInvalid("the file belongs to another package or version")
    ref = file_ref(package, version, file)
    repo.publish(
        Publication(
            ref.package, (NewFile(ref.path, request.body),), NewVersion(version, files=(ref.path,)), ("latest",)
        )
    )
    return Response(201)


class Toy(FormatHandler):
    name: ClassVar[str] = "toy"
    prefix: ClassVar[str] = "toy"
    versions_own_files: ClassVar[bool] = True
    is_listed: ClassVar[bool] = True
    routes: ClassVar[tuple[Route, ...]] = (
        Route(("GET", "HEAD"), _FILE, Action.READ, get, name="file", ref=file_ref),
        Route(("PUT",), _FILE, Action.PUBLISH, put, admit=admit, name="publish"),
        Route(("GET", "HEAD"), r"(?P<package>[^/]+)/", Action.READ, page, name="page", ref=listing_ref),
    )

    def error(self, error: RepomanError, *, mount: str, head: bool) -> Response:
        return Response(error.status, [("Content-Type", "text/plain")], f"{error.code}: {error.message}\n".encode())

    def normalize(self, name: str) -> str:
        return check(name)

    def inspect(self, path: str, file: BinaryIO, size: int) -> Facts:
        found = _FIRST_LINE.match(file.read(200))
        if found is None:
            raise ContentInvalid("the first line does not say what this is")
        return Facts(found[1].decode(), found[2].decode())

    def render_listing(self, ref: ListingRef, listing: Listing, form: str, address: str) -> Document:
        files = [
            {"version": entry.name, "path": file.path, "url": f"{address}/{ref.package}/{file.path}",
             "size": file.size, "sha256": file.digests["sha256"]}
            for entry in sorted(listing.entries, key=lambda entry: entry.name)
            for file in sorted(entry.files, key=lambda file: file.path)
        ]  # fmt: skip
        return Document(json.dumps({"toy": ref.package, "files": files}).encode(), "application/json")

    def parse_listing(self, ref: ListingRef, body: bytes, *, url: str, media_type: str) -> Listing:
        try:
            found: dict[str, Any] = json.loads(body)
            if found["toy"] != ref.package:
                raise ContentInvalid("the page of another package")
            versions: dict[str, list[ListedFile]] = {}
            for item in found["files"]:
                file = ListedFile(item["path"], size=item["size"], digests={"sha256": item["sha256"]}, url=item["url"])
                versions.setdefault(item["version"], []).append(file)
        except (ValueError, TypeError, KeyError):
            raise ContentInvalid("not a page of packages") from None
        return Listing(tuple(Entry(name, "version", files=tuple(files)) for name, files in versions.items()))

    def upstream(self, ref: Ref, options: Any) -> UpstreamRequest:
        if isinstance(ref, ListingRef) and ref.kind == "versions":
            return UpstreamRequest(path=f"{ref.package}/", accept="application/json", is_document=True)
        raise NotFound("upstreams do not have that")


handler = Toy()
