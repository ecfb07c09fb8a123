"""This repository's own measurements: its protocol, results and tuning notes. Not a part of the installed package."""
