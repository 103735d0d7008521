"""Takes a model out to other programs: GGUF for llama.cpp, Ollama, the hub, a plain folder."""
