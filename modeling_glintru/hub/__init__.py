"""Weights and numbers to a repository."""
