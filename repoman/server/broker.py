"""kombu's filesystem transport, made safe for readers that look while a message is being written."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.encoding import str_to_bytes
from kombu.utils.json import dumps

SCHEME = "folder"


class Channel(filesystem.Channel):  # type: ignore[misc]
    """Messages appear whole: kombu's own are written in place, and a reader may take half of one."""

    def _put(self, queue: str, payload: Any, **_options: Any) -> None:
        name = f"{time.time_ns() // 1_000_000}_{uuid.uuid4()}"
        unfinished = os.path.join(self.data_folder_out, f".{name}")
        with open(unfinished, "xb") as file:
            file.write(str_to_bytes(dumps(payload)))
        os.replace(unfinished, os.path.join(self.data_folder_out, f"{name}.{queue}.msg"))


class Transport(filesystem.Transport):  # type: ignore[misc]
    """Known to Celery as folder://."""

    Channel = Channel


def register() -> None:
    """Make folder:// known. Idempotent."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
