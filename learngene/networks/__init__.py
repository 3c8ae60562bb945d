"""The networks: layers, collective, individual, growth."""
