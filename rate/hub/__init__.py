"""Sharing models: a card made from the run, and the Hugging Face Hub.

Importing this package does not import huggingface_hub, which is needed only to push and to download.
"""

from rate.hub.card import write_card

__all__ = ["write_card"]
