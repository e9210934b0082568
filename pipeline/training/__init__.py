"""One update of both networks, and what it is made of; it knows no record and no config composition."""
