"""OCI registries: images, indexes, artifacts, Helm charts as OCI. See README.md."""

from .handler import Oci

handler = Oci()
