"""The server beside other servers: Triton, LitServe and BentoML around the same graph and the same decoding.

`install` makes an environment for each, `__main__` measures, `servers` starts and stops them. `bentoml_server`,
`litserve_server` and `triton_model` run in the others' environments, which have only the core's libraries. May import
`benchmarks.common`, `benchmarks.processes`, `benchmarks.rounds`, `benchmarks.in_process`, `benchmarks.serving` and
`serving`.
"""
