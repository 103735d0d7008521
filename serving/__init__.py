"""Base and variants from one process over the TGI and OpenAI HTTP APIs."""
