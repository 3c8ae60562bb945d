"""The runs that are kept, and the page of results that is made from them."""
