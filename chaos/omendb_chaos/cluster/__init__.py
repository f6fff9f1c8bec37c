"""A cluster in one process on virtual time: real routers, rules, engines and catalog; all else is simulated."""
