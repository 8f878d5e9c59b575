"""End the processes of a distributed test."""

import torch.distributed


def leave_process_group() -> None:
    """Close the connections of this rank: threads that live on may abort the process at its end."""
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
