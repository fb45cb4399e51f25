"""Several opinions before an action: orders of what is shown, and specialists."""
