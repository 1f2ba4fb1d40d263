"""Why a process does not serve."""


class CannotServe(Exception):  # noqa: N818 - a message for the command line, which exits with it
    """The process must not or cannot start. The message says why and what to do."""
