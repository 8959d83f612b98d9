"""What an operator decides about a server."""

from dataclasses import dataclass, field
from pathlib import Path

from serving.models.repository import ServingOptions
from serving.observability.observers import Observation
from serving.rpc.connections import Connections
from serving.security.settings import Security


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server serves, where, and within which limits."""

    models: Path
    """Folder of NAME/VERSION/model.json."""
    wanted: tuple[str, ...] = ()
    """"NAME" or "NAME/VERSION"; empty for the newest version of every name."""
    keep_versions: int = 1
    """How many versions of a name are served, where none is named."""
    poll_s: float = 5.0
    """Seconds between two looks for new versions; 0 for only when asked."""
    listen: str = "127.0.0.1:50051"
    """HOST:PORT; port 0 takes a free one."""
    state: Path = Path("state")
    """Folder of the statistics and the key that signs tokens; made if there is none."""
    statistics: str = field(default="", repr=False)
    """URL or path of the statistics' database, which may hold a password; empty for statistics.sqlite in `state`."""
    retention_days: float | None = None
    """For how many days after their prediction labels are kept one by one; None for good. Totals are, always."""
    token_key: Path | None = None
    """File of the keys that sign tokens; None for token.key in the state folder."""
    options: ServingOptions
    max_views: int = 16
    """Most views that a request may ask for."""
    connections: Connections = field(default_factory=Connections)
    """Limits of each connection."""
    security: Security = field(default_factory=Security)
    """Certificates and callers."""
    max_bytes_in_flight: int = 512 * 2**20
    """Encoded pictures held at once, in bytes: a bound on views in flight says nothing about their size."""
    reflection: bool = True
    """Whether clients may ask which services and messages there are."""
    grace_s: float = 20.0
    """How long a stop waits for requests to be answered."""
    observation: Observation = field(default_factory=Observation)
    """What the server tells of itself, and where."""
