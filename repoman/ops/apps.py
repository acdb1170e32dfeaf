from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.ops"
    label = "ops"
