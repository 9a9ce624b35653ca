"""One folder an op: its checks and torch registration, its definition in plain PyTorch, its kernels."""
