"""The runs that are kept, the page of results that is made from them, and what is given away."""
