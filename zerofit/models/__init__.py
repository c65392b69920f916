"""Models: single-device modules, built under whatever placement the engine gives, and their weights."""
