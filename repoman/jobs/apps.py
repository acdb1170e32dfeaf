from django.apps import AppConfig


class Config(AppConfig):
    name = "repoman.jobs"
    label = "jobs"
