"""Rollouts in Gymnasium environments and honest statistics of their outcome."""
