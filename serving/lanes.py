"""Pictures that wait in; the one whose turn it is out: single views first, extra views of test-time augmentation after.

Under load, whoever asks for one view is answered before the views that others average over, and adaptive requests
learn soon which pictures need more views. Within a lane it is first come, first served; a share of the turns belongs
to the extra views, so that they wait longer, but never for ever.
"""

from collections import deque

from serving.jobs import Job

FRESH_PER_EXTRA = 3
"""While both wait: pictures of a single, first view that go before one with extra views does."""


class Lanes:
    """Two queues of jobs. `add` may be called while another thread takes; only one thread may take at a time."""

    def __init__(self) -> None:
        self._fresh: deque[Job] = deque()
        self._extra: deque[Job] = deque()
        self._passed = 0  # fresh jobs taken since an extra one was

    def __len__(self) -> int:
        return len(self._fresh) + len(self._extra)

    def add(self, job: Job) -> None:
        """Queue a job."""
        (self._extra if job.extra else self._fresh).append(job)

    def first(self) -> Job:
        """The job whose turn it is. Raises IndexError if there is none."""
        return self._next()[0]

    def take(self) -> Job:
        """Take the job whose turn it is. Raises IndexError if there is none."""
        lane = self._next()
        self._passed = self._passed + 1 if lane is self._fresh and self._extra else 0
        return lane.popleft()

    def _next(self) -> deque[Job]:
        extra_turn = not self._fresh or self._passed >= FRESH_PER_EXTRA
        return self._extra if self._extra and extra_turn else self._fresh
