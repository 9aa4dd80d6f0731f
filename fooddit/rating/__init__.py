"""People rate pictures under a written standard: projects, rounds, labels that nobody can overwrite."""
