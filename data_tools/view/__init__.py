"""Pictures of a dataset: contact sheets, plots, videos and one page that holds them together."""
