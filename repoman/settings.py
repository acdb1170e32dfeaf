"""Django's settings, all derived from the one table in `configuration.py`."""

from __future__ import annotations

from repoman.configuration import load, secret_key

CONFIGURATION = load()

FORMATS = ["formats.oci", "formats.generic", "formats.npm", "formats.pypi", "formats.maven", "formats.helm"]
RULES: list[str] = ["repoman.policy.rules.immutability"]

SECRET_KEY = secret_key(CONFIGURATION)
DEBUG = False
ALLOWED_HOSTS = ["*"]  # the edge has judged the Host before Django sees a request
ROOT_URLCONF = "repoman.urls"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
LANGUAGE_CODE = "en"
APPEND_SLASH = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "repoman.access",
    "repoman.blobs",
    "repoman.catalog",
    "repoman.events",
    "repoman.jobs",
    "repoman.policy",
    "repoman.sources",
    "repoman.ops",
    "repoman.api",
    *FORMATS,
]
MIDDLEWARE: list[str] = []
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {},
    }
]
STATIC_URL = "/static/"

DATABASES = {"default": CONFIGURATION.database()}
ATOMIC_REQUESTS = False
AUTH_USER_MODEL = "access.Principal"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]

STORAGES = {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "blobs": (
        {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"location": CONFIGURATION.blobs}}
        if CONFIGURATION.blobs.startswith("s3://")
        else {"BACKEND": "repoman.blobs.drivers.filesystem", "OPTIONS": {"location": CONFIGURATION.blobs}}
    ),
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["repoman.api.authentication.ActorAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "repoman.api.errors.handle",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Repoman",
    "DESCRIPTION": "The management API of Repoman: namespaces, repositories, access, content, jobs and audit.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
}
LOGGING_CONFIG = None  # repoman.ops.logs sets logging up
