from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.access"
    label = "access"
