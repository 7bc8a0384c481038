"""The lessons, a folder each; `python3 -m lessons` is the guide."""
