"""What `zerofit doctor --calibrate` measures: products, attention, memory, launches, links, the host and its drive."""
