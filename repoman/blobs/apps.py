from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.blobs"
    label = "blobs"
