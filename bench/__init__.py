"""Benchmarks measure what the package costs on this machine, and compare each figure with a lower bound."""
