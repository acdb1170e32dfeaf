from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.catalog"
    label = "catalog"
