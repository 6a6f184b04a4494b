"""The template: its image and labels, how images are aligned to it, and what makes one plausible."""
