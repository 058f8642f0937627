"""Other code bases' models and checkpoints."""
