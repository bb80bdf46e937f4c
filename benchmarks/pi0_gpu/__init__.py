"""pi0 at full size on one GPU: the parts of benchmarks/gpu_pi0.py."""
