"""The room of prompts: formats, sources, filters, splits and what datasets share."""
