"""The one error that reaches the user: it says what is wrong, where, and how to mend it."""


class ExportError(Exception):
    """A checkpoint, folder or option that cannot be used. Printed without a traceback."""
