"""llama.cpp: language models in GGUF files, quantised or not, on its own server."""
