from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.api"
    label = "api"
