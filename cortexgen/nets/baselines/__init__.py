"""Networks of generators and registrations of others, in PyTorch, einops and MONAI alone."""
