"""The server as the command starts it; for each line on standard input it prints, as JSON, what it holds."""

import asyncio
import json
import os
import sys
import threading

import serving.server
from serving.__main__ import main


class CountedServer(serving.server.Server):
    async def serve(self) -> None:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._count)
        await super().serve()

    def _count(self) -> None:
        if not os.read(sys.stdin.fileno(), 1000):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            return
        counts = {
            "tasks": len(asyncio.all_tasks()),
            "rows": sum(model.classifier.rows_in_flight for model in self.repository.models),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
        }
        print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    serving.server.Server = CountedServer  # type: ignore[misc]
    sys.exit(main(sys.argv[1:]))
