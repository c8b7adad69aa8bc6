"""Figures with their tables, and pages: every number comes from a table of the study and is computed once."""
