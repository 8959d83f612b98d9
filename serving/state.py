"""The state of a server, which outlives its process: the keys that sign tokens, and the statistics."""

from contextlib import ExitStack

from serving.settings import Settings
from serving.startup import StartupError
from serving.statistics.retention import Retention
from serving.statistics.store import StatisticsStore
from serving.tokens.keyring import Keyring


class PersistentState:
    """The open keys and statistics, until `cleanup` closes them.

    Raises:
        StartupError: if the state folder or the keys cannot be used.
        StatisticsUnavailable: if the database cannot be used.
    """

    def __init__(self, settings: Settings, cleanup: ExitStack) -> None:
        folder = settings.state
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"the state folder {folder} cannot be used ({error.strerror}); choose another one with --state"
            ) from error
        key = settings.token_key or folder / "token.key"
        try:
            self.keyring = Keyring(key)
        except OSError as error:
            option = "--state" if settings.token_key is None else "--token-key"
            raise StartupError(
                f"the keys in {key} cannot be used ({error.strerror}); choose another place with {option}"
            ) from error
        self.store = cleanup.enter_context(StatisticsStore(settings.statistics or folder / "statistics.sqlite"))
        if settings.retention_days is not None:
            cleanup.enter_context(Retention(self.store, settings.retention_days))
