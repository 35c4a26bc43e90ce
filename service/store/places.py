"""How the settings name a database."""

POSTGRES = ("postgresql://", "postgres://")


def is_postgres(place: str) -> bool:
    """Whether it is the URL of a Postgres database. Everything else is a file."""
    return place.startswith(POSTGRES)
