"""The service: a trained family behind HTTP. A thin layer; what it hands out, the family makes."""
