"""The writings of the arithmetic as lists of operations, and what it takes to compare them."""
