"""The OpenAPI description of the HTTP API, and the page that shows it."""
