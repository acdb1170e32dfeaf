"""Database backends: Django's own, made safe for commits that must not be lost."""
