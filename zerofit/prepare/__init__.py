"""Language data: rows of many forms are read in one pass, checked, and written as shards that SFT and GRPO read."""
