"""Effect size: feed-forward neurons that fire more for harmful than for ordinary prompts, beside their spread."""
