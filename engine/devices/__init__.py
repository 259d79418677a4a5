"""Boards: how they are found and reached, and what runs on them."""
