"""The server's settings with one more format."""

from repoman.settings import *  # noqa: F403
from repoman.settings import FORMATS, INSTALLED_APPS

FORMATS = [*FORMATS, "tests.contract.toy"]
INSTALLED_APPS = [*INSTALLED_APPS, "tests.contract.toy"]
