"""Turn a trained PyTorch network into a spiking one."""
