"""What can be wrong with the database that the settings name."""


class StoreMisconfigured(Exception):
    """The database cannot be opened. The message is for the operator, and holds no password."""
