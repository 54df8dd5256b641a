"""What is hard beyond a new user: new items, as tasks of their own."""

from metarec.challenges.new_items import item_histories, transposed

__all__ = ["item_histories", "transposed"]
