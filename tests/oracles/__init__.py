"""Slow, literal definitions of the methods, written from the papers without the package's fast code."""
