"""The comparison that has run for the tests of the package is there for those of research, too."""

from __future__ import annotations

from ..comparison.conftest import finished

__all__ = ["finished"]
