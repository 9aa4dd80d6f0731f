"""Which photos of a catalogue are worth training on, and why the others are not."""
