"""MongoDB: the store of real deployments, through Motor or PyMongo's asynchronous client."""
