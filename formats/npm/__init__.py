"""npm registries: packages for npm, pnpm, Yarn and Bun. See README.md."""

from .handler import Npm

handler = Npm()
