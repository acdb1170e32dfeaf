from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.events"
    label = "events"
