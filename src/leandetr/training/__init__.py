"""From a recipe and a data set to a trained model; `run.train` is the way in."""
