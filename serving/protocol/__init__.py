"""What TGI and OpenAI say on the wire: bodies, errors, events; knows no model and no engine."""
