"""Requests of token ids, batched continuously over one copy of weights; knows no text, no HTTP."""
