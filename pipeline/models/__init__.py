"""Model families behind one contract, their parts, their discriminator, and the import of released weights."""
