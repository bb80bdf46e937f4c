"""What changes the architecture of a plain network: one module an edit."""
