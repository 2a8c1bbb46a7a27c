"""The demo world: two invented practices and the people who use them."""
