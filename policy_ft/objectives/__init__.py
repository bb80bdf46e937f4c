"""What is minimised: each module holds one objective of models/objective.py."""
