"""Train an individual on its shard, held to what it inherited."""
