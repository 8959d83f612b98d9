"""What is to be known of a GPU host, in a few minutes: `deploy/gpu-check.sh` runs `python -m benchmarks.gpu`.

`parts` measures, each part in a process of its own, on what `host` finds; `report` makes one page of the results.
May import `benchmarks.common`, `benchmarks.processes`, `benchmarks.serving`, `benchmarks.training`, `training` and
`serving`.
"""
