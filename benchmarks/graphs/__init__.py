"""What graph networks compute round a product, beside what others offer for the same."""
