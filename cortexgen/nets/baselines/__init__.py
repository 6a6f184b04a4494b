"""Networks of the baselines, in PyTorch and einops alone."""
