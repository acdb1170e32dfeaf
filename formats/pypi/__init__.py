"""Python packages: the simple repository API and the upload API. See README.md."""

from .handler import Pypi

handler = Pypi()
