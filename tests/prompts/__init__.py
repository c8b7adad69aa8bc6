"""Tests of prompts: formats, sources, filters, splits, and prompts that datasets share."""
