"""Slow literal definitions, written from the papers and sharing no code with the package's fast ones."""
