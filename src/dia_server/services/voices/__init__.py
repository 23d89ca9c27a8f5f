"""Voices and their audio prompts.

Empty, because child processes import modules of this package, and must not load SQLAlchemy or torch.
"""
