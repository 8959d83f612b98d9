"""The OpenAPI description of the HTTP API, and the page that shows it: `documentation_routes`.

May import what `web` may, its modules but `app` and `http_server`, and `web.open_inference`.
"""
