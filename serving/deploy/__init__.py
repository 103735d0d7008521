"""Base and variants as other engines bring them up: what each can serve, and the files it wants.

Knows folders, and the words of vLLM, SGLang, Ray Serve and KServe; knows no request and runs
nothing.
"""
