"""Every model, one file each, and what they share. The files are flat: they travel to the Hub beside the weights."""
