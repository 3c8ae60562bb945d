"""Ranges of the settings of the compared methods, as ``conf.validate.RANGES`` holds all others."""

from __future__ import annotations

METHOD_RANGES: dict[str, tuple[float, float, bool]] = {
    **{
        f"method.{name}.{field}": limits
        for name in ("maml", "fomaml", "proto_maml")
        for field, limits in {
            "lr": (0, 10, False),
            "inner_lr": (0, 10, False),
            "steps": (1, 100, True),
            "tasks": (1, 1000, True),
            "shots": (1, 1000, True),
            "queries": (1, 1000, True),
            "client_steps": (0, 10_000, True),
        }.items()
    },
    **{
        f"method.{name}.{field}": limits
        for name in ("protonet", "matchingnet")
        for field, limits in {
            "lr": (0, 10, False),
            "ways": (2, 1000, True),
            "shots": (1, 1000, True),
            "queries": (1, 1000, True),
        }.items()
    },
    "method.matchingnet.scale": (0, 1000, False),
    **{
        f"method.{name}.{field}": limits
        for name in ("finetune", "finetune_pp")
        for field, limits in {
            "lr": (0, 10, False),
            "batch_size": (2, 65_536, True),
            "weight_decay": (0, 1, True),
            "client_lr": (0, 10, False),
            "client_body_lr": (0, 10, True),
        }.items()
    },
    "method.deepemd.lr": (0, 10, False),
    "method.deepemd.batch_size": (2, 65_536, True),
    "method.deepemd.weight_decay": (0, 1, True),
    "method.deepemd.class_share": (0, 1, True),
    "method.deepemd.episode_lr": (0, 10, False),
    "method.deepemd.ways": (2, 1000, True),
    "method.deepemd.queries": (1, 1000, True),
    "method.deepemd.side": (1, 16, True),
    "method.deepemd.temperature": (0, 1000, False),
    "method.deepemd.client_lr": (0, 100, False),
    "method.deepemd.client_steps": (0, 10_000, True),
    "method.deepemd.client_batch": (1, 65_536, True),
    "method.full.client_lr": (0, 10, False),
    "method.full.client_body_lr": (0, 10, True),
    "method.linear_probe.client_lr": (0, 10, False),
    **{
        f"method.{name}.{field}": limits
        for name in ("fedavg", "fedprox")
        for field, limits in {
            "rounds": (1, 10_000, True),
            "local_epochs": (1, 1000, True),
            "lr": (0, 10, False),
            "client_lr": (0, 10, False),
            "client_body_lr": (0, 10, True),
        }.items()
    },
    "method.fedprox.mu": (0, 1000, True),
}
