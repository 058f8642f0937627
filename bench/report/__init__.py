"""Tables and pictures from committed results."""
