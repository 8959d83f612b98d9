"""What a bundle says about itself to people: `page` (bundle.html), `model_card` (README.md) and `licenses`.

May import `export.engine_layers`, `export.options`, `training` and `serving`.
"""
