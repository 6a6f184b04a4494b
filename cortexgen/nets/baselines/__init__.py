"""Networks of generators and registrations of others."""
