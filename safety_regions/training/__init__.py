"""Organisms: tiny chat models trained here, first helpful on everything, then aligned to refuse harm."""
