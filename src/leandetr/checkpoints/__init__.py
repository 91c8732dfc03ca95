"""Models on disk: our own folders (`store`) and the papers' released weights (`official`)."""
