"""What `fastlstm` does on the command line: one module a command."""


class CommandError(Exception):
    """What the user can put right, in one line; ends the command with exit status 2."""
