"""The HTTP server: the calls of `api` as JSON, the Open Inference Protocol over REST, and static pages.

`HttpServer` listens, with uvicorn's protocol in the server's own event loop; `make_app` makes the ASGI application. May
import every room above it: `system` to `rpc`, of which it uses none but `api` and below.
"""
