"""`python -m modeling_glintru` is `glintru`, for launchers that want a module."""

from .cli import main

if __name__ == "__main__":
    main()
