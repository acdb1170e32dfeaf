import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0003_package_state"),
    ]

    operations = [
        migrations.CreateModel(
            name="Announced",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("package", models.CharField(max_length=1024)),
                ("path", models.CharField(max_length=1024)),
                ("algorithm", models.CharField(max_length=16)),
                ("hex", models.CharField(max_length=128)),
                ("told_at", models.DateTimeField()),
                (
                    "repository",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="announced", to="catalog.repository"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["repository", "told_at"], name="announced_age")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("repository", "package", "path", "algorithm"), name="announced_once"
                    )
                ],
            },
        ),
    ]
