"""Which parameters of a language model carry the refusal of harmful requests? The package behind the workflow."""

__version__ = "0.1.0"
