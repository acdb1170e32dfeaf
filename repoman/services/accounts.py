"""Users, tokens, namespaces and grants. Every change writes its event and raises the access epoch in its transaction.

Each function checks the actor's right itself, so that no interface can forget to.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection
from django.db.models import Q, QuerySet
from django.utils import timezone  # noqa: F401  (kept out of models' way)

from repoman.access import epoch, passwords, permissions, throttle, tokens
from repoman.access.models import Grant, Identity, Principal, Token
from repoman.blobs.models import Upload
from repoman.catalog.models import Namespace, Repository
from repoman.core import clock
from repoman.core.actor import Action, Actor, Role
from repoman.core.errors import BadRequest, Conflict, Forbidden, NameInvalid, NotFound
from repoman.core.names import check_key_part
from repoman.events.record import record

from .transactions import write
