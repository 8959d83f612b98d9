"""Python clients of the server: `Client` for threads, `AsyncClient` for asyncio.

The names below are the public interface. May import `system` and `pb` only.
"""

from serving.client.async_client import AsyncClient
from serving.client.client import Client
from serving.client.credentials import Credentials
from serving.client.messages import Classified, ClientError, NamedImage, Prediction, StreamResult
from serving.client.retries import Retry

__all__ = [
    "AsyncClient",
    "Classified",
    "Client",
    "ClientError",
    "Credentials",
    "NamedImage",
    "Prediction",
    "Retry",
    "StreamResult",
]
