"""How a child process is started, judged and ended: vLLM, LitServe."""
