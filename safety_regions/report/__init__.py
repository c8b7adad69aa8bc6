"""Figures, their tables and pages: every number comes from a table of the study, none is computed twice."""
