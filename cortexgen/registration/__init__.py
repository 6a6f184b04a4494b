"""A pair of images: registered, carried over to their own spaces, written."""
