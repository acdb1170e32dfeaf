"""Helm charts in the classic repository format: an index and archives, with ChartMuseum's API. See README.md."""

from .handler import Helm

handler = Helm()
