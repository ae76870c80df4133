"""Settings: the models of config.json and datasets.json (one file a concern), loading, saving and explaining them."""
