"""Names sort and page by bytes on every database, as clients expect (SQLite does so by itself)."""

from django.db import migrations

COLUMNS = [
    ("catalog_namespace", "name", 63),
    ("catalog_repository", "key", 127),
    ("catalog_package", "name", 1024),
    ("catalog_artifact", "path", 1024),
    ("catalog_version", "name", 255),
    ("catalog_tag", "name", 128),
]


def set_collation(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    for table, column, length in COLUMNS:
        schema_editor.execute(f'ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE varchar({length}) COLLATE "C"')


class Migration(migrations.Migration):
    dependencies = [("catalog", "0001_initial")]
    operations = [migrations.RunPython(set_collation, migrations.RunPython.noop)]
