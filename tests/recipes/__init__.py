"""Toys for the recipes of CONTRIBUTING.md."""
