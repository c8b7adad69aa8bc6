"""How much single neurons matter to a prompt: what attention is given, what removing a unit changes, and ranks."""
