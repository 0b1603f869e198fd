"""What products over ranks move, and how long it takes to plan them."""
