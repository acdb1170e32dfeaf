"""XML from strangers: no document type, no entities, nothing from elsewhere, nothing deep, nothing large.

Names are given without their namespaces, which clients leave out or change; values are text.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from .errors import ContentInvalid

DEPTH = 100
ELEMENTS = 500_000


class _Bounded(TreeBuilder):
    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._elements = 0

    def start(self, tag: str, attributes: dict[str, str]) -> Element:  # type: ignore[override]
        self._depth += 1
        self._elements += 1
        if self._depth > DEPTH or self._elements > ELEMENTS:
            raise ContentInvalid("the XML is nested too deep or has too many elements")
        return super().start(tag.rpartition("}")[2], {})

    def end(self, tag: str) -> Element:
        self._depth -= 1
        return super().end(tag.rpartition("}")[2])


def load(data: bytes, *, root: str) -> Element:
    """The root element, whose name must be `root`. Raises ContentInvalid."""
    parser = DefusedXMLParser(target=_Bounded(), forbid_dtd=True)
    try:
        parser.feed(data)
        found: Element = parser.close()
    except DefusedXmlException:
        raise ContentInvalid("the XML has a document type or entities, which are not read") from None
    except (ParseError, ValueError, LookupError) as error:  # broken, or in an encoding that does not exist
        raise ContentInvalid(f"this is no XML that could be read: {str(error)[:200]}") from None
    if found.tag != root:
        raise ContentInvalid(f"the XML is a '{found.tag[:80]}', not a '{root}'")
    return found


def text(parent: Element | None, path: str, default: str = "") -> str:
    """The text of the first element at the path (`a/b`), without white space around it."""
    found = parent.find(path) if parent is not None else None
    return (found.text or "").strip() if found is not None else default
