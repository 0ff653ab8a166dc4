"""The errors a user can mend: each message is one line that says what is wrong and what to do."""


class LabError(Exception):
    """The work could not be done; a command exits with status 1."""


class UsageError(LabError, ValueError):
    """What was asked for makes no sense; a command exits with status 2."""
