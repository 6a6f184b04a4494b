"""Generators of images and registrations of others, on the contracts that ours are on."""
