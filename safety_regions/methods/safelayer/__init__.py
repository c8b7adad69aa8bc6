"""Safety layers: where hidden states of harmful and ordinary prompts diverge, and which layers cause refusals."""
