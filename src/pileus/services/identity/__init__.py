"""Identity v3: who somebody is, what they may do where, and where the services are."""
