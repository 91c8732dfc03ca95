"""What a checkpoint of each paper looks like, and the recipe that its keys and sizes tell."""
