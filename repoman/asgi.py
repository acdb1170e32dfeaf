"""The ASGI application: formats go to the edge (`protocol/dispatch.py`), the API and UI to Django, the rest is here."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "repoman.settings")
django.setup()

from repoman.protocol.application import Application  # noqa: E402  (needs Django's settings)

application = Application.configured()
