"""Two sets of brains against each other: how they are read, and what others have published."""
