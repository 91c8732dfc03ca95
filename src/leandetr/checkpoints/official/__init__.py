"""Key maps of the official repositories, one file a paper."""
