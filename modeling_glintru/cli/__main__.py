"""`python -m modeling_glintru.cli` is `glintru` too."""

from . import main

if __name__ == "__main__":
    main()
