"""What people open: HTML pages that stand alone."""
