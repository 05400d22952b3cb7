"""Events in, profiles updated: schema, Faust app and agents, the fold, settings, command line."""
