"""Put many project names into a devpi index, in one transaction: by uploads it would take minutes.

    <python of devpi-server> devpi_names.py SERVERDIR USER/INDEX NAMES.json

Runs with devpi's Python, while its server does not.
"""

import json
import sys
from pathlib import Path

from devpi_server.config import get_pluginmanager, parseoptions
from devpi_server.main import xom_from_config


def main() -> None:
    folder, index, names = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    config = parseoptions(get_pluginmanager(), ["devpi-server", "--serverdir", folder])
    config.init_nodeinfo()
    xom = xom_from_config(config)
    with xom.keyfs.write_transaction():
        stage = xom.model.getstage(index)
        for name in names:
            stage.set_versiondata({"name": name, "version": "1.0"})


if __name__ == "__main__":
    main()
