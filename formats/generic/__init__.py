"""Plain files under plain paths. See README.md."""

from .handler import Generic

handler = Generic()
