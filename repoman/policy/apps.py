from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.policy"
    label = "policy"
