from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.sources"
    label = "sources"
