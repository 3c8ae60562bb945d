"""What may cross between server and clients: keys, task, messages, the guard."""
