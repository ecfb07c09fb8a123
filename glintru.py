"""`import glintru`: the package `modeling_glintru` under the name by which it is installed."""

import modeling_glintru

__all__ = modeling_glintru.__all__


def __getattr__(name: str) -> object:
    return getattr(modeling_glintru, name)


def __dir__() -> list[str]:
    return dir(modeling_glintru)
