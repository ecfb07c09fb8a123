class GlintRUError(ValueError):
    """Base of every error that this package raises on bad input."""
