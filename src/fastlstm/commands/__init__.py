"""The commands of `fastlstm` on the command line, and their helpers."""


class CommandError(Exception):
    """An error that the user can correct, in one line; the command ends with exit status 2."""
