"""A simulated shop and what `afterglow demo` shows of it. Nothing else imports this package."""
