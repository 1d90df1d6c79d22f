"""Host reads in training are counted, with the line of code that reads."""

from __future__ import annotations

import torch

from device.reads import COPIES, HostReads


def test_every_kind_of_read_is_seen(device: torch.device) -> None:
    values = torch.arange(4.0, device=device)
    with HostReads() as reads:
        float(values[1])
        bool(values.isfinite().all())
        values[2].item()
        int(values[3])
        torch.equal(values, values)
        values[values > 1]
        values.nonzero()
        (values + 1).sum()  # reads nothing
    assert sum(reads.found.values()) == 7
    with HostReads() as copies:
        values.tolist()
        values.cpu()
        values.cpu().numpy()
        values * 2
    assert sum(number for (_, name, _), number in copies.found.items() if name in COPIES) == 4
