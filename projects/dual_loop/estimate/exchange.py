"""What ranks tell each other in a step."""

from .kept import Sharding


def exchanged_bytes(count: int, gradients: int, sharding: Sharding) -> float:
    """Bytes that one rank sends in a step, and receives, by rings (Patarasuk and Yuan, 2009).

    Ranks of several hosts that stand in the ring one host after the other send as much through each host's network.

    Args:
        count: trained parameters.
        gradients: that surgery sees: each is averaged over the ranks, in fp32, before they are combined.
        sharding: over N ranks. Under ZeRO the combined gradient is reduced to the rank that steps its piece, and the
            stepped pieces are gathered; without it DDP averages the combined gradient as it does any other.
    """
    turns = (sharding.gpus - 1) / sharding.gpus
    size = 2 if sharding.bf16 else 4
    update = 2 * turns * size * count
    return 2 * turns * 4 * count * gradients + update
