"""CNA: feed-forward neurons whose mean activation differs most between harmful and ordinary prompts."""
