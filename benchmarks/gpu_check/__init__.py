"""What Litport does on a real GPU, checked in parts: `python -m benchmarks.gpu_check`, which `make gpu-check` calls."""
