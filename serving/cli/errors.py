"""Exit codes of the commands and the errors that end one. A module of its own, since `main` imports nothing heavier."""

DONE = 0
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


class CommandError(Exception):
    """The command failed. The message is printed on one line, without a traceback."""

    exit_code = FAILED


class UsageError(CommandError):
    """The options cannot be used together, or not as they are."""

    exit_code = WRONG_USE
