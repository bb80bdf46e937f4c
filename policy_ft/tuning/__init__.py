"""The plugs of fine-tuning: which parameters learn, how fast, and the average of their path."""
