"""The steps of preprocessing: each a small class with a name, a version and options."""
