"""LightningCLI for both stages."""
